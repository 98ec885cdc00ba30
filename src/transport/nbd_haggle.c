/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_haggle.c - the first phase of an NBD connection; see nbd_haggle.h
 *
 * Bytes in, bytes out, and no sockets, so that it can be fuzzed. The server greets, the client
 * answers with flags, then sends options, each of which is answered before the next one is looked
 * at. The last one names the export (GO, or EXPORT_NAME of old clients, to which no error can be
 * told).
 *
 * What clients send is trusted in nothing: each length is held against what contains it. Names that
 * are asked for may be anything, and are only compared.
 *
 * With TLS the server is in the mode that the protocol calls FORCEDTLS: nothing but STARTTLS is
 * answered before. Bytes that a client sends behind STARTTLS without waiting for the answer would
 * count as encrypted though they were not; such a client is dropped.
 *
 * Metadata contexts: there is none to be had, since layers do not say what is allocated. Queries
 * are checked and answered with an empty list, as the protocol wants it.
 */
#include "transport/nbd_haggle.h"

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SKIP_MAX    (1u << 20) /* bytes of an option; a client that sends more is dropped */
#define OPTIONS_MAX 1000u      /* likewise, of options */
#define PADDING     124u       /* zeroes behind the answer to EXPORT_NAME */

/* --- what is sent ------------------------------------------------------------------- */

static void put(struct nbd_haggle *h, const void *data, size_t size)
{
	if (h->out_size + size > h->out_capacity) {
		size_t capacity = 2 * (h->out_size + size);
		uint8_t *grown = realloc(h->out, capacity);

		if (!grown) {
			h->no_memory = true;
			return;
		}
		h->out = grown;
		h->out_capacity = capacity;
	}
	memcpy(h->out + h->out_size, data, size);
	h->out_size += size;
}

static void put16(struct nbd_haggle *h, uint16_t value)
{
	value = htobe16(value);
	put(h, &value, sizeof value);
}

static void put32(struct nbd_haggle *h, uint32_t value)
{
	value = htobe32(value);
	put(h, &value, sizeof value);
}

static void put64(struct nbd_haggle *h, uint64_t value)
{
	value = htobe64(value);
	put(h, &value, sizeof value);
}

/* The head of a reply of @type to @option; @length bytes follow. */
static void reply(struct nbd_haggle *h, uint32_t option, uint32_t type, size_t length)
{
	put64(h, NBD_OPTION_REPLY_MAGIC);
	put32(h, option);
	put32(h, type);
	put32(h, (uint32_t)length);
}

static enum nbd_haggle_result acknowledge(struct nbd_haggle *h, uint32_t option)
{
	reply(h, option, NBD_REP_ACK, 0);
	return NBD_HAGGLE_MORE;
}

/* An error, with a text for people. */
static enum nbd_haggle_result refuse(struct nbd_haggle *h, uint32_t option, uint32_t type,
				     const char *text)
{
	reply(h, option, type, strlen(text));
	put(h, text, strlen(text));
	return NBD_HAGGLE_MORE;
}

/* --- what is read ------------------------------------------------------------------- */

/* The data of one option, from the front. */
struct field {
	const uint8_t *at;
	size_t left;
};

static bool take16(struct field *in, uint16_t *value)
{
	if (in->left < sizeof *value)
		return false;
	memcpy(value, in->at, sizeof *value);
	*value = be16toh(*value);
	in->at += sizeof *value;
	in->left -= sizeof *value;
	return true;
}

static bool take32(struct field *in, uint32_t *value)
{
	if (in->left < sizeof *value)
		return false;
	memcpy(value, in->at, sizeof *value);
	*value = be32toh(*value);
	in->at += sizeof *value;
	in->left -= sizeof *value;
	return true;
}

/* A string of @length bytes into @name; none of ours has a NUL, so one that has is no name. */
static bool take_name(struct field *in, uint32_t length, char name[NBD_NAME_MAX + 1])
{
	if (length > NBD_NAME_MAX || length > in->left || memchr(in->at, 0, length))
		return false;
	memcpy(name, in->at, length);
	name[length] = 0;
	in->at += length;
	in->left -= length;
	return true;
}

/* --- options ------------------------------------------------------------------------ */

static enum nbd_haggle_result list(struct nbd_haggle *h, const struct field *in)
{
	struct nbd_offer offer;

	if (in->left)
		return refuse(h, NBD_OPT_LIST, NBD_REP_ERR_INVALID, "LIST takes no data");
	for (unsigned i = 0; h->book->at(h->book, i, &offer); i++) {
		size_t name = strlen(offer.name), description = strlen(offer.description);

		reply(h, NBD_OPT_LIST, NBD_REP_SERVER, 4 + name + description);
		put32(h, (uint32_t)name);
		put(h, offer.name, name);
		put(h, offer.description, description);
	}
	return acknowledge(h, NBD_OPT_LIST);
}

static uint16_t flags_of(const struct nbd_haggle *h, const struct nbd_offer *offer)
{
	return offer->flags | (h->structured ? NBD_FLAG_SEND_DF : 0);
}

static void put_offer(struct nbd_haggle *h, uint32_t option, const struct nbd_offer *offer,
		      bool name, bool description)
{
	reply(h, option, NBD_REP_INFO, 12);
	put16(h, NBD_INFO_EXPORT);
	put64(h, offer->size);
	put16(h, flags_of(h, offer));
	if (name) {
		reply(h, option, NBD_REP_INFO, 2 + strlen(offer->name));
		put16(h, NBD_INFO_NAME);
		put(h, offer->name, strlen(offer->name));
	}
	if (description) {
		reply(h, option, NBD_REP_INFO, 2 + strlen(offer->description));
		put16(h, NBD_INFO_DESCRIPTION);
		put(h, offer->description, strlen(offer->description));
	}
	/* Whether or not it was asked for: clients ignore what they do not know. */
	reply(h, option, NBD_REP_INFO, 14);
	put16(h, NBD_INFO_BLOCK_SIZE);
	put32(h, offer->minimum);
	put32(h, offer->preferred);
	put32(h, offer->maximum);
}

static enum nbd_haggle_result unknown_export(struct nbd_haggle *h, uint32_t option,
					     const char *name)
{
	char text[200];

	if (*name)
		snprintf(text, sizeof text, "no export '%.100s'", name);
	else
		snprintf(text, sizeof text, "there is not one export alone: name the one you want");
	return refuse(h, option, NBD_REP_ERR_UNKNOWN, text);
}

/* INFO and GO: the name, and what is asked of it. */
static enum nbd_haggle_result info(struct nbd_haggle *h, uint32_t option, struct field in)
{
	bool wanted[NBD_INFO_BLOCK_SIZE + 1] = { false };
	char name[NBD_NAME_MAX + 1];
	struct nbd_offer offer;
	uint16_t count, item;
	uint32_t length;

	if (!take32(&in, &length) || !take_name(&in, length, name) || !take16(&in, &count) ||
	    in.left != 2u * count)
		return refuse(h, option, NBD_REP_ERR_INVALID, "its lengths do not fit");
	while (take16(&in, &item))
		if (item < sizeof wanted)
			wanted[item] = true;
	if (!h->book->find(h->book, name, &offer))
		return unknown_export(h, option, name);
	put_offer(h, option, &offer, wanted[NBD_INFO_NAME], wanted[NBD_INFO_DESCRIPTION]);
	acknowledge(h, option);
	if (option == NBD_OPT_INFO)
		return NBD_HAGGLE_MORE;
	snprintf(h->name, sizeof h->name, "%s", offer.name);
	return NBD_HAGGLE_GO;
}

static enum nbd_haggle_result export_name(struct nbd_haggle *h, struct field in, const char **why)
{
	static const uint8_t zeroes[PADDING];
	char name[NBD_NAME_MAX + 1];
	struct nbd_offer offer;

	if (!take_name(&in, (uint32_t)in.left, name) || !h->book->find(h->book, name, &offer)) {
		*why = "it asks for an export that there is not";
		return NBD_HAGGLE_FAIL;
	}
	put64(h, offer.size);
	put16(h, flags_of(h, &offer));
	if (!h->no_zeroes)
		put(h, zeroes, sizeof zeroes);
	snprintf(h->name, sizeof h->name, "%s", offer.name);
	return NBD_HAGGLE_GO;
}

static enum nbd_haggle_result start_tls(struct nbd_haggle *h, const struct field *in)
{
	if (in->left)
		return refuse(h, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID, "STARTTLS takes no data");
	if (h->tls)
		return refuse(h, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID, "TLS is on already");
	if (!h->can_tls)
		return refuse(h, NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY,
			      "this server was given no certificates and no keys");
	acknowledge(h, NBD_OPT_STARTTLS);
	return NBD_HAGGLE_TLS;
}

static enum nbd_haggle_result structured(struct nbd_haggle *h, const struct field *in)
{
	if (in->left)
		return refuse(h, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID,
			      "STRUCTURED_REPLY takes no data");
	h->structured = true;
	return acknowledge(h, NBD_OPT_STRUCTURED_REPLY);
}

static enum nbd_haggle_result contexts(struct nbd_haggle *h, uint32_t option, struct field in)
{
	char name[NBD_NAME_MAX + 1], query[NBD_NAME_MAX + 1];
	struct nbd_offer offer;
	uint32_t length, count;

	if (!h->structured)
		return refuse(h, option, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY must come first");
	if (!take32(&in, &length) || !take_name(&in, length, name) || !take32(&in, &count))
		return refuse(h, option, NBD_REP_ERR_INVALID, "its lengths do not fit");
	while (count && take32(&in, &length) && take_name(&in, length, query))
		count--;
	if (count || in.left)
		return refuse(h, option, NBD_REP_ERR_INVALID, "its lengths do not fit");
	if (!h->book->find(h->book, name, &offer))
		return unknown_export(h, option, name);
	return acknowledge(h, option);
}

static enum nbd_haggle_result take_option(struct nbd_haggle *h, uint32_t option, struct field in,
					  const char **why)
{
	if (h->can_tls && !h->tls && option != NBD_OPT_STARTTLS && option != NBD_OPT_ABORT) {
		if (option == NBD_OPT_EXPORT_NAME) {
			*why = "it asks for an export without TLS";
			return NBD_HAGGLE_FAIL;
		}
		return refuse(h, option, NBD_REP_ERR_TLSREQD, "TLS is required here");
	}
	switch (option) {
	case NBD_OPT_EXPORT_NAME:
		return export_name(h, in, why);
	case NBD_OPT_ABORT:
		acknowledge(h, option);
		return NBD_HAGGLE_END;
	case NBD_OPT_LIST:
		return list(h, &in);
	case NBD_OPT_STARTTLS:
		return start_tls(h, &in);
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		return info(h, option, in);
	case NBD_OPT_STRUCTURED_REPLY:
		return structured(h, &in);
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		return contexts(h, option, in);
	default:
		return refuse(h, option, NBD_REP_ERR_UNSUP, "this option is not known here");
	}
}

/* --- the whole ---------------------------------------------------------------------- */

void nbd_haggle_begin(struct nbd_haggle *haggle)
{
	put64(haggle, NBD_INIT_MAGIC);
	put64(haggle, NBD_OPTION_MAGIC);
	put16(haggle, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
}

void nbd_haggle_encrypted(struct nbd_haggle *haggle)
{
	haggle->tls = true;
	haggle->structured = false;
}

void nbd_haggle_release(struct nbd_haggle *haggle)
{
	free(haggle->out);
	haggle->out = NULL;
	haggle->out_size = haggle->out_capacity = 0;
}

static enum nbd_haggle_result take_flags(struct nbd_haggle *h, const uint8_t *in, size_t size,
					 size_t *used, const char **why)
{
	uint32_t flags;

	if (size < sizeof flags)
		return NBD_HAGGLE_MORE;
	*used = sizeof flags;
	memcpy(&flags, in, sizeof flags);
	flags = be32toh(flags);
	if (flags & ~(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) {
		*why = "it sets flags that there are not";
		return NBD_HAGGLE_FAIL;
	}
	h->greeted = true;
	h->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
	return NBD_HAGGLE_MORE;
}

/* An option that is larger than any that makes sense. */
static enum nbd_haggle_result take_large(struct nbd_haggle *h, uint32_t option, uint32_t length,
					 size_t *used, const char **why)
{
	if (length > SKIP_MAX || option == NBD_OPT_EXPORT_NAME) {
		*why = "it sends an option of absurd length";
		return NBD_HAGGLE_FAIL;
	}
	h->skip = length;
	h->options++;
	*used = sizeof(struct nbd_option_header);
	return refuse(h, option, NBD_REP_ERR_TOO_BIG, "it is too long");
}

enum nbd_haggle_result nbd_haggle_take(struct nbd_haggle *h, const uint8_t *in, size_t size,
				       size_t *used, const char **why)
{
	enum nbd_haggle_result result;
	struct nbd_option_header header;
	uint32_t option, length;

	*used = 0;
	if (!h->greeted)
		return take_flags(h, in, size, used, why);
	if (h->skip) {
		*used = size < h->skip ? size : h->skip;
		h->skip -= (uint32_t)*used;
		return NBD_HAGGLE_MORE;
	}
	if (size < sizeof header)
		return NBD_HAGGLE_MORE;
	memcpy(&header, in, sizeof header);
	if (be64toh(header.magic) != NBD_OPTION_MAGIC) {
		*why = "what it sends is no option";
		return NBD_HAGGLE_FAIL;
	}
	if (h->options == OPTIONS_MAX) {
		*why = "it haggles without end";
		return NBD_HAGGLE_FAIL;
	}
	option = be32toh(header.option);
	length = be32toh(header.length);
	if (length > NBD_OPTION_BYTES - sizeof header)
		return take_large(h, option, length, used, why);
	if (size < sizeof header + length)
		return NBD_HAGGLE_MORE;
	h->options++;
	*used = sizeof header + length;
	result = take_option(h, option, (struct field){ in + sizeof header, length }, why);
	if (result == NBD_HAGGLE_TLS && *used != size) {
		*why = "it sends more before TLS has begun";
		return NBD_HAGGLE_FAIL;
	}
	if (h->no_memory) {
		*why = "there is no memory for an answer";
		return NBD_HAGGLE_FAIL;
	}
	return result;
}
