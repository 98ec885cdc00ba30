/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_private.h - the parts of the NBD back-end
 *
 *     nbd.c           the layer: options, limits, growth, report
 *     nbd_dial.c      a connection, from the URI to the first request; waits, on any thread
 *     nbd_owner.c     which loop has the connections; requests from the others
 *     nbd_request.c   a request becomes commands, and a command an answer
 *     nbd_link.c      a connection on its loop: readable, writable, lost
 *     nbd_recovery.c  after a loss: dial, send again what may be lost, or give up
 *     nbd_history.c   what may be lost
 *
 * The client is what a layer shares with messages and threads that may outlive it; it is counted.
 * All its connections belong to one loop at a time, its owner, and so do all members that are not
 * marked otherwise.
 */
#pragma once

#include <libnbd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "backend/nbd_history.h"
#include "layer/layer.h"
#include "util/error.h"
#include "util/list.h"
#include "util/log.h"

#define NBD_CONNECTIONS 16
#define NBD_COMMANDS    1024u /* under way at once; requests beyond that wait */

/** What a server says of an export. */
struct nbd_export {
	uint64_t size; /**< bytes */
	bool read_only, flush, fua, trim, zero, multi_conn;
	uint32_t minimum, preferred, maximum; /**< block sizes, bytes; never 0 */
};

/* --- nbd_dial.c ------------------------------------------------------------------------ */

/**
 * Connects to @uri; NULL with @err if that has not succeeded after @patience ns. The handle is
 * ready for requests; @export tells what it is. Waits; any thread.
 */
struct nbd_handle *nbd_dial(const char *uri, uint64_t patience, struct nbd_export *export,
			    struct error *err);

/** A flush that is waited for, @patience ns at most. 0 or -errno with @err. */
int nbd_dial_flush(struct nbd_handle *handle, const char *uri, uint64_t patience,
		   struct error *err);

/** What libnbd says, without the name of its function. NULL is allowed. */
const char *nbd_dial_words(const char *text);

/** 0, or why a disk that relied on @was cannot go on with @now. */
int nbd_dial_compare(const struct nbd_export *was, const struct nbd_export *now, struct error *err);

/* --- the client -------------------------------------------------------------------------- */

/** Memory for reads into several iovecs: libnbd takes one buffer for a command. */
struct nbd_bounce {
	struct nbd_bounce *next;
	char data[] __attribute__((aligned(64)));
};

#define NBD_BOUNCE_SIZES 9 /* 4 KiB, 8, ... 1 MiB */

/** One command of the protocol. */
struct nbd_command {
	struct list link; /**< of client.sent, client.kept or client.spare */
	struct nbd_client *client;
	struct nbd_link *on;       /**< where it was sent; NULL: it is kept */
	struct io *io;             /**< that it is a part of; NULL: the client's own */
	struct past *past;         /**< its entry in the history, or NULL */
	uint64_t offset, length;   /**< bytes */
	char *data;                /**< READ, WRITE */
	struct nbd_bounce *bounce; /**< READ: what @data is in, or NULL */
	unsigned bounce_size;
	uint64_t start;    /**< of it in the io, bytes */
	uint64_t arrived;  /**< READ: bytes */
	uint64_t number;   /**< of its sending first */
	uint64_t since;    /**< ns; when it was sent last */
	uint64_t flush;    /**< FLUSH: of history_flush() */
	uint8_t op, flags; /**< enum io_op, enum io_flag */
	bool replay;       /**< an acknowledged change, sent again */
};

/** One connection. */
struct nbd_link {
	struct nbd_client *client;
	struct nbd_handle *handle; /**< NULL: it is down */
	struct loop_watch *readable;
	struct loop_watch *writable; /**< while libnbd has more to send than the socket takes */
	int fds[2];         /**< duplicates of its descriptor, for these watches; -1: none */
	unsigned under_way; /**< commands */
	bool lost;          /**< to be closed, once libnbd is not on the stack */
	char reason[200];
	/* Guarded by the client's lock: */
	bool dialing;               /**< a thread is at it */
	bool dialed;                /**< it has ended */
	struct nbd_handle *arrived; /**< what it brought, or NULL */
	struct nbd_export export;   /**< with that */
	struct error error;         /**< or this */
	/* The owner's again: */
	uint64_t dial_at; /**< ns; when to dial next; 0: not at all */
};

enum nbd_state {
	NBD_RUNNING,    /**< requests are sent */
	NBD_RECOVERING, /**< a connection is lost: others finish, no request is sent */
	NBD_REPLAYING,  /**< the history is being sent again */
};

struct nbd_client {
	atomic_uint references;
	/* Fixed once it is open: */
	char *disk; /**< its name, a copy */
	char *uri;
	unsigned links_count;
	_Atomic uint64_t reconnect_delay, timeout,
		open_timeout; /**< ns; timeout 0: none. Any thread */

	/* Ownership: nbd_owner.c */
	pthread_mutex_t lock;           /**< guards the next five, and each link's dialing */
	struct list users;              /**< struct nbd_queue */
	struct io *inbox, **inbox_last; /**< requests from other loops */
	bool kicked;                    /**< @kick is on its way */
	bool closed;                    /**< the layer is gone */
	struct loop_message kick;
	_Atomic(struct loop *) owner; /**< written with the lock */
	struct loop *loop;   /**< where the watches are: the owner, or NULL while it changes */
	struct loop *helper; /**< a loop of its own, for users whose loops do not run always */

	/* State, of the owner: */
	struct nbd_link links[NBD_CONNECTIONS];
	enum nbd_state state;
	bool failing;             /**< requests fail at once: it has been lost too long */
	bool settling;            /**< nbd_settle() is on the stack */
	bool unsettled;           /**< there is something for it */
	atomic_bool renew;        /**< connections that know the old size are to be made anew */
	struct nbd_export export; /**< as of the last connection */
	struct history history;
	struct nbd_command commands[NBD_COMMANDS];
	struct list spare, sent,
		kept; /**< commands: free; sent; to be sent, in the order of number */
	unsigned spare_count;
	struct io *waiting, **waiting_last; /**< requests; of the first a part may be sent */
	uint64_t number;                    /**< of the last command */
	bool flushing;                      /**< a flush of our own is under way */
	int owed;                           /**< -errno that the next flush has to report */
	struct past *cursor;                /**< REPLAYING: what is to be sent next */
	unsigned replayed;                  /**< changes */
	uint64_t lost_since;                /**< ns; 0: connected, and it has answered since */
	uint64_t pause;                     /**< ns before the next dialing */
	struct loop_timer timer;
	uint64_t timer_at;   /**< ns; 0: it is not set */
	char complaint[480]; /**< why dialing failed, as it was logged */
	struct nbd_bounce *bounces[NBD_BOUNCE_SIZES];
	struct log_limit limit;

	/* For reports, from any thread: */
	_Atomic uint64_t size;     /**< bytes */
	atomic_uint connected;     /**< connections */
	_Atomic uint64_t losses;   /**< times a connection was lost */
	_Atomic uint64_t unstable; /**< bytes of the history */
	atomic_bool failed;        /**< failing */
};

/** Of each queue. */
struct nbd_queue {
	struct list link;
	struct loop *loop;
	bool idle; /**< no queue, but a disk in service */
};

/** A client of @handle, which becomes its own, with what its options say. NULL with @err. */
struct nbd_client *nbd_client_new(const char *disk, const char *uri, uint64_t memory,
				  struct error *err);
void nbd_client_get(struct nbd_client *client);
void nbd_client_put(struct nbd_client *client);

/* --- nbd_owner.c: any thread --------------------------------------------------------------- */

/** A user of the connections on @loop. 0 or -ENOMEM. */
int nbd_owner_join(struct nbd_client *client, struct nbd_queue *queue, struct loop *loop,
		   bool idle);

/** Ends that, on the loop's thread. */
void nbd_owner_leave(struct nbd_client *client, struct nbd_queue *queue);

/** Has the owner look at its inbox and at what was dialed. With the lock. */
void nbd_owner_kick(struct nbd_client *client);

/** Takes a request to where it is served. */
void nbd_owner_submit(struct nbd_client *client, struct io *io);

/** Ends what is left; no queue is. */
void nbd_owner_close(struct nbd_client *client);

/** Has all connections made anew, once nothing is under way: the server has grown. */
void nbd_owner_renew(struct nbd_client *client);

/* --- the others: on the owner's thread ---------------------------------------------------------
 */

/** Takes a request, now or when its turn comes. */
void nbd_request(struct nbd_client *client, struct io *io);

/** An io_done_fn: @io, which a foreign loop owns, is over. */
void nbd_request_wake(struct layer *layer, struct io *io);

/** Sends what waits, as far as there is room. */
void nbd_request_pump(struct nbd_client *client);

/** @command has its answer, 0 or -errno. */
void nbd_request_done(struct nbd_command *command, int status);

/** Ends all requests that are not with the server. */
void nbd_request_fail(struct nbd_client *client);

/** A command to fill in, for replaying; NULL: all are in use. */
struct nbd_command *nbd_request_command(struct nbd_client *client);

/** @command is free. */
void nbd_request_spare(struct nbd_command *command);

/** Gives @command to libnbd, on the connection with the least to do. */
void nbd_link_send(struct nbd_client *client, struct nbd_command *command);

/** Watches begin and end on the client's loop. 0 or -ENOMEM. */
int nbd_link_attach(struct nbd_link *link);
void nbd_link_detach(struct nbd_link *link);

/** Closes it; what was sent on it is kept. */
void nbd_link_close(struct nbd_link *link);

/** Marks it as lost for @reason; nbd_settle() does the rest. */
void nbd_link_lose(struct nbd_link *link, const char *reason);

/** After anything has happened: losses, recovery, what waits. Not within a call of libnbd. */
void nbd_settle(struct nbd_client *client);

/** Something was dialed. */
void nbd_recovery_arrived(struct nbd_client *client);

/** The client has a loop (again): its timer is set. */
void nbd_recovery_watch(struct nbd_client *client);
void nbd_recovery_timer(struct loop_timer *timer);
