/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * loop.h - a thread that serves queues: operations in the kernel, rings polled,
 * file descriptors watched, timers, tasks, and messages from other threads
 *
 * One loop is one thread, and loops share nothing; what another thread wants of
 * a loop it says in a message. One turn of a loop:
 *
 *     messages -> timers -> pollers -> watches whose handlers have left something -> tasks,
 *        and the same once more if there was work
 *     -> hand the kernel everything that was prepared, in one system call
 *     -> what it has completed, what is readable
 *
 * While a poller finds work the loop does not sleep. A poller that has found
 * nothing for its window is armed (its guest is asked to notify) and leaves the
 * set of active pollers; when none is active the loop sleeps in the kernel. The
 * window adapts to how soon the guest reacts: see loop.c.
 *
 * Below a loop stands an engine: io_uring, or threads with preadv and pwritev
 * where io_uring is not permitted. A probe chooses, and the log says which.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "util/list.h"

struct error;
struct loop;

enum loop_engine { LOOP_AUTO, LOOP_URING, LOOP_THREADS };

/* --- life of a loop ----------------------------------------------------------------- */

/** How a loop is made. */
struct loop_config {
	const char *name;        /**< of the thread, at most 15 characters */
	enum loop_engine engine; /**< LOOP_AUTO: io_uring if the probe succeeds */
	int cpu;                 /**< the core to stay on, or -1 */
	uint64_t poll_limit;     /**< longest window of a poller, ns; 0: never poll */
	bool passing; /**< it runs now and then: what must be served at any time has no place here
		       */
};

/** True if this process may use io_uring with what we need of it; else @why says what failed. */
bool loop_uring_permitted(struct error *why);

/** Makes a loop, not yet running. NULL on failure. */
struct loop *loop_create(const struct loop_config *config, struct error *err);

/** Runs the loop on a new thread. 0 or -errno. */
int loop_start(struct loop *loop, struct error *err);

/** Runs the loop on this thread, until loop_stop(). 0 or -errno. */
int loop_run(struct loop *loop, struct error *err);

/** Asks the loop to return. Any thread. */
void loop_stop(struct loop *loop);

/** Waits for the thread of loop_start() and frees the loop. NULL is allowed. */
void loop_destroy(struct loop *loop);

/** The loop that runs on this thread, or NULL. */
struct loop *loop_self(void);

/** "io_uring" or "threads". */
const char *loop_engine_name(const struct loop *loop);

/** True if the loop runs only now and then; see loop_config. */
bool loop_is_passing(const struct loop *loop);

/** CLOCK_MONOTONIC in ns as of this turn. */
uint64_t loop_now(const struct loop *loop);

/* --- operations in the kernel ------------------------------------------------------- */

enum loop_op_kind { LOOP_READV, LOOP_WRITEV, LOOP_FDATASYNC, LOOP_FALLOCATE };

/** One operation. Its owner fills it in, and must keep it until @done is called. */
struct loop_op {
	/** Called by the loop with the result of the system call, or -errno. */
	void (*done)(struct loop_op *op, int result);
	struct loop_op *next; /**< the engine's, while the operation is under way */
	int result;           /**< the engine's, likewise */
	enum loop_op_kind kind;
	int fd;
	int file;                /**< of @fd: from loop_file_add(), or 0 */
	uint64_t offset;         /**< in the file, bytes */
	const struct iovec *vec; /**< READV, WRITEV; must stay until done */
	uint32_t count;          /**< of @vec, 1..1024 */
	int flags;               /**< RWF_* of preadv2(2); mode of fallocate(2) */
	uint64_t length;         /**< FALLOCATE: bytes */
	struct iovec one;        /**< room for a @vec of one, for the owner's use */
	void *data;              /**< the owner's */
};

/** Gives @op to the kernel, with all others of this turn. On the loop's own thread. */
void loop_submit(struct loop *loop, struct loop_op *op);

/**
 * Registers @fd with the kernel for operations on this loop, which makes each of them cheaper. What
 * to set as loop_op.file: positive, or 0 if there is nothing to be had; @fd works without as well.
 */
int loop_file_add(struct loop *loop, int fd);

/** Ends that; no operation may be under way. 0 is allowed. */
void loop_file_remove(struct loop *loop, int file);

/**
 * Registers memory with the kernel, which pins it: all of it is allocated, and stays. Operations of
 * one iovec inside it get cheaper. Counted. 0 or -errno: -ENOMEM also if RLIMIT_MEMLOCK is in the
 * way.
 */
int loop_memory_add(struct loop *loop, void *base, size_t length);

/** Ends that. */
void loop_memory_remove(struct loop *loop, void *base, size_t length);

/* --- file descriptors --------------------------------------------------------------- */

struct loop_watch;

/**
 * Calls @ready(@data) whenever @fd becomes readable. Edge-triggered: the handler takes
 * all there is, or says that it has not (loop_watch_again()). On the loop's own thread, or before
 * it runs. NULL if memory is short. A descriptor has one watch: whoever needs two duplicates it.
 */
struct loop_watch *loop_watch_add(struct loop *loop, int fd, void (*ready)(void *data), void *data);

/** The same for when it becomes writable. */
struct loop_watch *loop_watch_add_writable(struct loop *loop, int fd, void (*ready)(void *data),
					   void *data);

/**
 * There may be more than its handler wanted to take in one go: @ready is called once more, when
 * others have had their turn. So nobody who sends without end has the loop for himself. No effect
 * in a handler that has removed its watch.
 */
void loop_watch_again(struct loop *loop, struct loop_watch *watch);

/**
 * Accepts one who waits at the socket of @watch: a descriptor, non-blocking, or -errno; -EAGAIN:
 * there is nobody. After any other error who waits there still does, and the kernel does not say so
 * again:
 * @ready is called in 100 ms, when there may be descriptors and memory.
 */
int loop_watch_accept(struct loop *loop, struct loop_watch *watch);

/** Ends it: @ready is not called again. The caller may close the descriptor at once. */
void loop_watch_remove(struct loop *loop, struct loop_watch *watch);

/* --- pollers ------------------------------------------------------------------------ */

/** Something that is looked at each turn while it is active. */
struct loop_poller {
	/** Takes what there is; true if there was anything. */
	bool (*poll)(struct loop_poller *poller);
	/** Asks to be notified from now on; true if something came meanwhile. */
	bool (*arm)(struct loop_poller *poller);
	struct list link;   /**< the loop's */
	bool active;        /**< the loop's: it is being polled */
	bool deep;          /**< the poller's: more is likely to follow what poll found, at once */
	uint64_t settled;   /**< ns; when the other side was last given something */
	uint64_t last_work; /**< ns; when poll last found something */
	uint64_t window;    /**< ns; how long to poll for a reaction */
};

/** Prepares @poller, inactive. */
void loop_poller_init(struct loop_poller *poller, bool (*poll)(struct loop_poller *),
		      bool (*arm)(struct loop_poller *));

/** Polls it from now on (a notification came, or it is new). No effect if active. */
void loop_poller_wake(struct loop *loop, struct loop_poller *poller);

/**
 * The other side is given something that it may react to. True if it is polled for that, and need
 * not notify.
 */
bool loop_poller_settled(struct loop *loop, struct loop_poller *poller);

/** Not polled any more until loop_poller_wake(). */
void loop_poller_stop(struct loop *loop, struct loop_poller *poller);

/* --- tasks, timers ------------------------------------------------------------------ */

/** Work for later in this turn. */
struct loop_task {
	struct loop_task *next; /**< the loop's */
	void (*run)(struct loop_task *task);
	bool queued;
};

/** Runs @task once, after the pollers of this turn. No effect if it is queued already. */
void loop_task_queue(struct loop *loop, struct loop_task *task);

/** A moment to be called at. */
struct loop_timer {
	struct list link; /**< the loop's; see loop_timer_init() */
	uint64_t at;      /**< ns of CLOCK_MONOTONIC */
	void (*fire)(struct loop_timer *timer);
};

void loop_timer_init(struct loop_timer *timer, void (*fire)(struct loop_timer *timer));

/** Fires once at @at (ns, see loop_now()); replaces an earlier setting. */
void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t at);

void loop_timer_cancel(struct loop_timer *timer);

/* --- messages ----------------------------------------------------------------------- */

/** Something to do on another loop. Its owner keeps it until @run is called. */
struct loop_message {
	struct loop_message *next; /**< the loop's */
	void (*run)(struct loop_message *message);
};

/** Runs @message on @loop's thread. In the order of sending. Any thread. */
void loop_send(struct loop *loop, struct loop_message *message);
