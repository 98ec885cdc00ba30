/* SPDX-License-Identifier: BSD-3-Clause */
/* qemu.h - the options that attach a VM of QEMU to its devices */
#pragma once

#include <jansson.h>
#include <stdint.h>

struct config;
struct config_vm;
struct daemon;

/** Memory of a VM when nothing is said, bytes. */
#define QEMU_MEMORY (1ull << 30)

/**
 * {"vm": its name, "args": QEMU's options, a text for each argument, "note": what QEMU it takes, if
 * not any}. @daemon: that runs @config, where NICs may have another MTU by now; or NULL. @memory:
 * the VM's, bytes. NULL if memory is short.
 */
json_t *qemu_args(const struct config *config, const struct daemon *daemon,
		  const struct config_vm *vm, uint64_t memory);

/** Prints that for a shell, one option a line, and the note for a person (standard error). */
void qemu_print_args(const json_t *answer);

/** Prints those of the VM @name of @config. Returns the exit status. */
int qemu_print(const struct config *config, const char *name, uint64_t memory);
