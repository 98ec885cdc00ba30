/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_haggle.h - the first phase of an NBD connection: what the client asks for before it reads or
 * writes; see nbd_haggle.c
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport/nbd_protocol.h"

/** Bytes of an option that are taken, data included; larger ones are refused unread. */
#define NBD_OPTION_BYTES 16384u

/** One export, as clients are to see it. */
struct nbd_offer {
	const char *name;      /**< canonical; valid until the next call into the book */
	char description[160]; /**< for people */
	uint64_t size;         /**< bytes */
	uint16_t flags;        /**< enum nbd_transmission_flag, without DF */
	uint32_t minimum;      /**< bytes of a block: offsets and lengths are multiples of it */
	uint32_t preferred;    /**< likewise, best */
	uint32_t maximum;      /**< bytes of a payload */
};

/** Where exports are looked up. */
struct nbd_book {
	/** What there is to say of the export @name (empty: the only one). False: there is none. */
	bool (*find)(const struct nbd_book *book, const char *name, struct nbd_offer *offer);
	/** The same of the export number @index; false: there are not so many. */
	bool (*at)(const struct nbd_book *book, unsigned index, struct nbd_offer *offer);
};

/** The state of it. Zero-initialise, then nbd_haggle_begin(). */
struct nbd_haggle {
	const struct nbd_book *book;
	bool can_tls;                /**< TLS can be had, and then nothing without it */
	bool tls;                    /**< it has begun */
	bool greeted;                /**< the client's flags are known */
	bool no_zeroes;              /**< the client does not want the padding of EXPORT_NAME */
	bool structured;             /**< structured replies are negotiated */
	unsigned options;            /**< taken so far */
	uint32_t skip;               /**< bytes of a refused option that are still to come */
	char name[NBD_NAME_MAX + 1]; /**< the export that was chosen, canonical */
	uint8_t *out; /**< what is to be sent to the client, before anything else is read */
	size_t out_size, out_capacity;
	bool no_memory; /**< for out */
};

enum nbd_haggle_result {
	NBD_HAGGLE_MORE, /**< more bytes are wanted */
	NBD_HAGGLE_TLS,  /**< when out was sent: TLS begins */
	NBD_HAGGLE_GO,   /**< when out was sent: transmission of the export in name begins */
	NBD_HAGGLE_END,  /**< when out was sent: it is over */
	NBD_HAGGLE_FAIL, /**< the client breaks the protocol, or wants what cannot be */
};

/** Begins: the greeting is in out. */
void nbd_haggle_begin(struct nbd_haggle *haggle);

/**
 * Takes what the client has sent, one option at most; *@used bytes of @in are done with. With
 * NBD_HAGGLE_MORE and *@used 0 it waits for more than @size bytes. @why: of FAIL.
 */
enum nbd_haggle_result nbd_haggle_take(struct nbd_haggle *haggle, const uint8_t *in, size_t size,
				       size_t *used, const char **why);

/** TLS has begun: what was said before counts no more. */
void nbd_haggle_encrypted(struct nbd_haggle *haggle);

/** Frees what it holds. */
void nbd_haggle_release(struct nbd_haggle *haggle);
