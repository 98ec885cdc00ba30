/* SPDX-License-Identifier: BSD-3-Clause */
/* state.h - changes made at run time that a restart comes back to; see state.c */
#pragma once

#include <stdbool.h>

struct daemon;
struct error;
struct mistakes;
struct node;
struct state;
struct waiter;

/**
 * Takes the state file @path for whoever will write it; see state_lock.c. May wait some seconds. A
 * descriptor that holds the lock as long as it is open, or -errno with @err.
 */
int state_lock(const char *path, struct error *err);

/**
 * Puts what the file @path says, if it is there, in place of what @tree, a configuration, says.
 * What is wrong, and what is replaced, goes into @mistakes. NULL after a fatal one. @lock is taken
 * over: from state_lock(), or -1 if nothing will be written.
 */
struct state *state_read(const char *path, int lock, struct node *tree, struct mistakes *mistakes);

/** NULL is allowed. */
void state_free(struct state *state);

/*
 * Of a running daemon; control thread only.
 */

/** All is as configured now. 0, or -errno with @err if changes could not be kept. */
int state_begin(struct daemon *daemon, struct error *err);

/**
 * Something has changed: keeps it, and then tells the waiter that is held at @waiter, if there is
 * one; at once if nothing is to be kept. If it cannot be kept the waiter is told so; the change
 * stands.
 */
void state_keep(struct daemon *daemon, struct waiter **waiter);
