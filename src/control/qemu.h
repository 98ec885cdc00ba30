/* SPDX-License-Identifier: BSD-3-Clause */
/* qemu.h - the options that attach a VM of QEMU to its devices */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct config;
struct config_vm;
struct daemon;
struct invocation;

/** Memory of a VM when nothing is said, bytes. */
#define QEMU_MEMORY (1ull << 30)

/** A version of QEMU as a number that grows: 7.2 is 702. */
#define QEMU_VERSION(major, minor) ((major)*100u + (minor))

/** What the options are for. */
struct qemu_wish {
	uint64_t memory;  /**< of the VM, bytes */
	unsigned version; /**< QEMU_VERSION() of the QEMU that will read them */
};

/**
 * {"vm": its name, "args": QEMU's options, a text for each argument, "note": what QEMU it takes, if
 * not any}. @daemon: that runs @config, where NICs may have another MTU by now; or NULL. NULL if
 * memory is short.
 */
json_t *qemu_args(const struct config *config, const struct daemon *daemon,
		  const struct config_vm *vm, const struct qemu_wish *wish);

/** Prints that for a shell, one option a line, and the note for a person (standard error). */
void qemu_print_args(const json_t *answer);

/** Prints those of the VM of @config that @in names. Returns the exit status. */
int qemu_print(const struct config *config, const struct invocation *in);

/** Reads a version, such as 7.2 or 11.1.3; false if it is none. */
bool qemu_version_parse(const char *text, unsigned *version);

/** That of the qemu-system-x86_64 that a shell would find; 7.2, whose options most versions know,
 * if there is none. Asks it, which takes some 30 ms. */
unsigned qemu_version_here(void);
