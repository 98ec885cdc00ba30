/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_history.h - the changes that an NBD server has been sent and may still lose: the latest of
 * them, without a gap, in the order in which they were sent, with copies of their data
 *
 * A server that dies takes with it what it had acknowledged and not made stable. So each write,
 * discard and zeroing is entered here when it is sent, and leaves at the old end once it is stable,
 * and everything before it is: by a FLUSH that began after it was acknowledged, or by FUA. After a
 * reconnect the whole history is sent again in its order, which leads to the same bytes whatever
 * part of it the server still had: what was sent after an entry is sent again after it.
 *
 * It is a ring of bytes of fixed size, mapped twice in a row so that an entry never wraps. One
 * thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct nbd_command;

enum past_state {
	PAST_SENT,  /**< no answer yet: its command is alive */
	PAST_ACKED, /**< done, and stable once a flush says so */
	PAST_FIRM,  /**< stable, by FUA; sent again where something before it has to be */
	PAST_VOID,  /**< it failed, and is not to be sent again */
};

/** One change, 64 bytes; its data follow. */
struct past {
	uint64_t offset, length;     /**< on the server, bytes */
	uint64_t epoch;              /**< ACKED: flushes that had begun */
	struct nbd_command *command; /**< SENT */
	uint32_t room;               /**< bytes here, data and header */
	uint8_t op;                  /**< enum io_op */
	uint8_t flags;               /**< enum io_flag */
	uint8_t state;               /**< enum past_state */
	bool has_data;
	char pad[24];
	char data[];
};

struct history {
	char *base;
	uint64_t size; /**< bytes; half of the mapping */
	uint64_t head,
		tail;    /**< oldest entry, end of the newest; they only grow until it is empty */
	uint64_t epoch;  /**< flushes that have begun */
	uint64_t stable; /**< entries of an epoch below this are */
	bool held;       /**< nothing leaves: it is being walked */
};

/** @size: bytes, rounded up to pages. 0 or -errno. */
int history_open(struct history *h, uint64_t size, struct error *err);
void history_close(struct history *h);

/** Longest data of one entry that always finds room in the end. */
uint32_t history_longest(const struct history *h);

/** A new entry, SENT; @data: with room for its bytes. NULL if there is no room now. */
struct past *history_add(struct history *h, uint8_t op, uint8_t flags, uint64_t offset,
			 uint64_t length, bool data);

/** The server has answered: it is done (@firm: and stable), or failed. */
void history_done(struct history *h, struct past *past, bool firm);
void history_failed(struct history *h, struct past *past);

/** A flush begins: what to tell history_flushed() if it succeeds. */
uint64_t history_flush(struct history *h);
void history_flushed(struct history *h, uint64_t flush);

/** Everything that was acknowledged counts as stable: a flush failed, which somebody was told. */
void history_forget(struct history *h);

/** Bytes in use. */
static inline uint64_t history_used(const struct history *h)
{
	return h->tail - h->head;
}

/** True if a server that lost everything unstable would have to be sent @past again. */
bool history_wanted(const struct history *h, const struct past *past);

/** The walk over all of it: nothing leaves until history_walked(). */
struct past *history_first(struct history *h);
struct past *history_next(struct history *h, struct past *past);
void history_walked(struct history *h);
