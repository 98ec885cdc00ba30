/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vfio_user_testing.h - what the tests of the vfio-user server share: the server, and a client
 *
 * The server runs as in the daemon, on a control loop and a loop for the functions. What fails here
 * fails the test.
 */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "frontend/pci/testing.h"
#include "vfio_user_client.h"

#define PAGE    4096u
#define DEVICES 2

/** The functions that are served, each at its own socket. */
struct served {
	char path[96];
	struct device *device;
	void *server;
};

extern struct served served[DEVICES];

/** Group setup and teardown. */
int start_all(void **state);
int stop_all(void **state);

/** Opens and closes one of them, as the daemon does. */
void open_served(struct served *s);
void close_served(struct served *s);

/** What the control side knows of the first function; see() looks. */
struct seen {
	bool connected, broken;
	char reason[200];
	uint64_t accesses, interrupts;
};

extern struct seen seen;
void see(void);

/** The client of a test, connected to the first function by its setup. */
extern struct vfu_client client;
int connect_client(void **state);
int disconnect_client(void **state);

/** The same with memory that nobody has mapped yet. */
#define RAM (64 * PAGE)
extern char *ram;
extern int ram_fd;
int connect_with_ram(void **state);
int disconnect_with_ram(void **state);

/** A transfer of the function's; and its status when it is over. */
void start_transfer(uint64_t address, uint32_t length, bool to_guest);
int transfer(uint64_t address, uint32_t length, bool to_guest);

#define CLIENT(name) cmocka_unit_test_setup_teardown(name, connect_client, disconnect_client)
#define MEMORY(name) cmocka_unit_test_setup_teardown(name, connect_with_ram, disconnect_with_ram)
