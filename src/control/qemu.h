/* SPDX-License-Identifier: BSD-3-Clause */
/* qemu.h - the options that attach a VM of QEMU to its devices */
#pragma once

#include <jansson.h>
#include <stdint.h>

struct config;
struct config_vm;

/** Memory of a VM when nothing is said, bytes. */
#define QEMU_MEMORY (1ull << 30)

/** QEMU's options, one string for each argument. @memory: the VM's, bytes. NULL if memory is short.
 */
json_t *qemu_args(const struct config_vm *vm, uint64_t memory);

/** Prints an array of arguments for a shell, one option a line. */
void qemu_print_args(const json_t *args);

/** Prints those of the VM @name of @config. Returns the exit status. */
int qemu_print(const struct config *config, const char *name, uint64_t memory);
