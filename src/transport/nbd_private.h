/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_private.h - what the files of the NBD server share
 *
 *     nbd_server.c   listens, and lets clients in
 *     nbd_exports.c  which disks there are for them
 *     nbd_control.c  a client on the control thread: it haggles (nbd_haggle.c), comes and goes
 *     nbd_client.c   a client on a loop: requests (nbd_request.c) and replies
 *     nbd_stream.c   its socket, with TLS or without
 */
#pragma once

#include "layer/disk.h"
#include "transport/nbd.h"
#include "transport/nbd_haggle.h"
#include "transport/nbd_protocol.h"
#include "transport/nbd_stream.h"
#include "transport/transport.h"
#include "util/log.h"

#define NBD_DEPTH         128u           /* requests of one client at once */
#define NBD_SLOT_BYTES    (256u << 10)   /* of data that each of them has room for */
#define NBD_PAYLOAD_BYTES (32u << 20)    /* of data in one request, at most */
#define NBD_INPUT_BYTES   (64u << 10)    /* that are read ahead */
#define NBD_PIECE_BYTES   (128ull << 20) /* of a trim or zeroing that goes to the disk at once */

_Static_assert(NBD_INPUT_BYTES >= NBD_OPTION_BYTES, "an option fits");

/* What a client may ask of an export; fixed when transmission begins, but for the size. */
struct nbd_terms {
	uint16_t flags;      /* enum nbd_transmission_flag */
	bool structured;     /* replies */
	uint32_t block_size; /* bytes */
};

/* Memory of a request that has more data than its slot has room for. */
struct nbd_memory {
	struct nbd_memory *next; /* kept */
	size_t size;             /* bytes, this header's page included */
};

/* One request, from its header to the last byte of its reply. */
struct nbd_request {
	struct nbd_request *next; /* free, or to be sent */
	uint64_t cookie, offset;
	uint32_t length;
	uint16_t type, flags;     /* enum nbd_command, nbd_command_flag */
	uint64_t rest;            /* bytes that are not on their way to the disk yet */
	char *slot;               /* NBD_SLOT_BYTES that are always there */
	struct nbd_memory *large; /* memory for more than that, or NULL */
	struct iovec vec;         /* its data: where they are, and how many bytes */
	struct iovec reply[2];    /* what is to be sent; the second one may be empty */
	union {
		struct nbd_simple_reply simple;
		struct nbd_chunk_header none;
		struct nbd_chunk_data data;
		struct nbd_chunk_error error;
	} head;
};

/** Reads a header. False: it is none. Nothing of it is checked but its magic number. */
bool nbd_request_read(struct nbd_request *request, const uint8_t *bytes);

/** Whether a request may go to a disk of @size bytes: NBD_OK, or what its client is told. */
enum nbd_error nbd_request_check(const struct nbd_request *request, const struct nbd_terms *terms,
				 uint64_t size);

/** Fills in request->reply: success, with its data if it reads. */
void nbd_request_answer(struct nbd_request *request, const struct nbd_terms *terms);

/** Fills in request->reply: the error. */
void nbd_request_refuse(struct nbd_request *request, const struct nbd_terms *terms,
			enum nbd_error error);

/** What a client is told of a disk's -errno. */
enum nbd_error nbd_error_of(int status, uint16_t type);

/* One client. The control thread has it until transmission begins and after it has ended. */
struct nbd_client {
	struct list link; /* of the server */
	struct nbd_server *server;
	struct loop *control;
	struct nbd_stream stream;
	uint8_t *input;  /* NBD_INPUT_BYTES */
	size_t from, to; /* bytes of it that are not yet looked at */

	/* Haggling, on the control thread. */
	enum { NBD_HAGGLING, NBD_HANDSHAKE, NBD_SERVED } phase;
	enum nbd_haggle_result next; /* what comes when haggle.out is sent */
	struct nbd_haggle haggle;
	size_t sent; /* of haggle.out */
	struct loop_timer timer;
	struct loop_watch *readable, *writable;
	int writable_fd; /* the socket once more, since a descriptor has one watch */

	/* Transmission, on the loop. */
	struct disk *disk; /* NULL: none yet */
	struct nbd_terms terms;
	struct loop *loop;
	struct disk_queue *queue; /* NULL: not yet, or no more */
	struct loop_poller poller;
	struct loop_task end;
	struct nbd_request *requests; /* NBD_DEPTH */
	struct nbd_request *free;
	char *slots;                 /* of all of them */
	struct nbd_memory *kept;     /* memory of large requests, for the next ones */
	size_t large;                /* bytes of such memory, in use or kept */
	struct nbd_request *filling; /* a write whose data are coming */
	size_t filled;               /* bytes of them that are here */
	uint64_t drain;              /* bytes of a refused write that are still to come */
	bool bulk;                   /* writes are large: nothing is read ahead of headers */
	bool stalled;                /* no requests are looked at until others are answered */
	bool finishing;              /* no more requests: those that are here are answered */
	bool failed;                 /* it ends as soon as the disk has nothing of it */
	bool stopping;               /* the server wants it gone */
	bool blocked;                /* the socket takes no more now */
	unsigned unblocked;          /* times since then that it took all */
	struct nbd_request *out, **out_last; /* replies to be sent */
	struct queue_stats stats;

	/* Between the two: see nbd_control.c. */
	struct loop_message start, stop, gone, stopped;
	bool ended, stop_seen, stop_seen_at_end, stop_sent, waits;
};

/* A server; the control thread's. */
struct nbd_server {
	const struct nbd_config *config;
	const struct nbd_house *house;
	struct transport_loops loops;
	unsigned turn; /* of loops */
	char *label;
	struct nbd_book book;
	struct nbd_tls *tls;
	int listen_fd;
	struct loop_watch *watch;
	struct list clients;
	unsigned client_count;
	struct list pasts; /* counters of connections that are gone: nbd_exports.c */
	struct log_limit limit;
	bool closing;
	void (*closed)(void *data);
	void *closed_data;
	struct loop_message end;
};

/** A client has left, which is waited for when the server closes. */
void nbd_server_left(struct nbd_server *server);

/** Begins: @server has a book, and no counters yet. */
void nbd_exports_open(struct nbd_server *server);
void nbd_exports_close(struct nbd_server *server);

/** The exported disk called @name; the only one, if @name is empty. NULL: there is none. */
struct disk *nbd_exports_find(const struct nbd_server *server, const char *name);

/** What clients that come now are told of @disk. */
void nbd_exports_describe(const struct nbd_server *server, const struct disk *disk,
			  struct nbd_offer *offer);

/** Keeps the counters of a client that goes. Without memory they are lost, and no more. */
void nbd_exports_remember(struct nbd_server *server, const struct nbd_client *client);

/** Lets in who is connected by @fd, and haggles. False: no memory, and @fd is still the caller's.
 */
bool nbd_client_admit(struct nbd_server *server, int fd);

/** Ends a client because the server closes: at once if it haggles, else it has left later. */
void nbd_client_dismiss(struct nbd_client *client);

/** Serves a client whose disk, terms, loop and stream are set, on its loop; sends gone at the end.
 */
void nbd_client_start(struct nbd_client *client);

/** Has it end soon; on its loop. */
void nbd_client_stop(struct nbd_client *client);
