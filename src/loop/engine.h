/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * engine.h - what a loop asks of the kernel: operations, readiness, sleep
 *
 * Private to src/loop. An engine is made on the thread that will use it.
 */
#pragma once

#include "loop/loop.h"

struct engine;

struct engine_ops {
	const char *name;
	/** NULL on failure, with @err filled. */
	struct engine *(*open)(struct loop *loop, struct error *err);
	void (*close)(struct engine *engine);
	void (*submit)(struct engine *engine, struct loop_op *op);
	/** See loop_file_add() and loop_memory_add(); absent where there is no such thing. */
	int (*file_add)(struct engine *engine, int fd);
	void (*file_remove)(struct engine *engine, int slot);
	int (*memory_add)(struct engine *engine, char *base, size_t length);
	void (*memory_remove)(struct engine *engine, char *base, size_t length);
	/** Tells the kernel to report @watch->fd; again for one that is known has no effect. */
	void (*watch)(struct engine *engine, struct loop_watch *watch);
	/** Ends that; calls loop_watch_free() when the kernel has let go of it. */
	void (*unwatch)(struct engine *engine, struct loop_watch *watch);
	/**
	 * Hands over what was submitted and reports what is complete or ready. Sleeps until
	 * there is something, at most @timeout ns; 0: not at all, UINT64_MAX: no limit.
	 */
	void (*turn)(struct engine *engine, uint64_t timeout);
};

struct loop_watch {
	int fd;
	short events; /* POLLIN or POLLOUT, which are EPOLLIN and EPOLLOUT */
	void (*ready)(void *data);
	void *data;
	bool removed;            /* loop_watch_remove() was called */
	bool armed;              /* the kernel knows of it */
	bool reporting;          /* ready() is running */
	struct list link;        /* of the loop's watches */
	struct list again;       /* of those whose handlers have left something */
	struct loop_timer retry; /* see loop_watch_accept() */
};

/** Frees what loop_watch_remove() took out. */
void loop_watch_free(struct loop_watch *watch);

/** Takes the time anew: after the engine slept, before it reports. */
void loop_woke(struct loop *loop);

/** All watches of @loop, by their links. */
struct list *loop_watches(struct loop *loop);

extern const struct engine_ops engine_uring, engine_threads;
