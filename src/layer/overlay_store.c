/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * overlay_store.c - makes, reads and empties an overlay's store, by code that waits
 *
 * The order of writes is what makes each of these safe at any loss of power: the map's pages are
 * zeroed before the first header says that they are there, or that there are more of them; the
 * header, which has two copies, is written one copy after the other, the one that does not count
 * first. Nothing is written before all was read and found good.
 *
 * Throwing all changes away is one number: the header's floor rises to the latest sequence, so that
 * every page there is becomes void.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "layer/overlay_private.h"
#include "layer/session.h"
#include "layer/stack.h"
#include "util/crc32c.h"
#include "util/error.h"
#include "util/log.h"

#define SAMPLE       4096u        /* bytes */
#define SAMPLES      24u          /* all over the base */
#define HEAD         65536u       /* bytes at its start, and at 1 MiB: labels, superblocks */
#define READ_PAGES   64u          /* of the map, at once */
#define DISCARD_STEP (1ull << 30) /* bytes */

/* --- the base --------------------------------------------------------------------------------- */

static int add_sample(struct session *s, uint64_t offset, uint64_t length, uint64_t size,
		      char *buffer, uint32_t *sum)
{
	int ret;

	offset -= offset % SAMPLE;
	if (offset >= size)
		return 0;
	if (length > size - offset)
		length = size - offset;
	ret = session_read(s, offset, buffer, length);
	if (!ret)
		*sum = crc32c(*sum, buffer, length);
	return ret;
}

/* Size and sum of what is below. The sum is of whole SAMPLEs, so that no block size matters. */
static int identify(struct layer *base, uint64_t *size, uint32_t *sum, struct error *err)
{
	uint64_t whole = base->limits.size / SAMPLE * SAMPLE;
	struct session *s = session_open(base, err);
	char *buffer = s ? malloc(HEAD) : NULL;
	int ret;

	if (!buffer) {
		session_close(s);
		return s ? error_set(err, ENOMEM, "out of memory") : -err->code;
	}
	*size = base->limits.size;
	*sum = 0;
	ret = add_sample(s, 0, HEAD, whole, buffer, sum);
	if (!ret)
		ret = add_sample(s, 1u << 20, HEAD, whole, buffer, sum);
	for (unsigned i = 1; i <= SAMPLES && !ret; i++)
		ret = add_sample(s, whole / SAMPLES * i - (i == SAMPLES ? SAMPLE : 0), SAMPLE,
				 whole, buffer, sum);
	free(buffer);
	session_close(s);
	return ret ? error_set(err, -ret, "the base cannot be read: %s", strerror(-ret)) : 0;
}

int overlay_check_base(const struct overlay *o, struct layer *base, struct error *err)
{
	const struct overlay_header *h = &o->header;
	char a[32], b[32];
	uint64_t size;
	uint32_t sum;

	if (base->limits.size != h->base_size)
		return error_set(
			err, EINVAL,
			"this store was made over a base of %s, and the one below is %s: it is "
			"another one; put the right one below, or take a new store",
			format_size(h->base_size, a, sizeof a),
			format_size(base->limits.size, b, sizeof b));
	if (!h->base_sum)
		return 0; /* it is not known */
	if (identify(base, &size, &sum, err))
		return -err->code;
	if (sum != h->base_sum)
		return error_set(
			err, EINVAL,
			"this store was made over another base than the one below, or that was "
			"written to since (sum %08x, expected %08x): put the right one below, or "
			"take a new store",
			sum, h->base_sum);
	return 0;
}

/* --- the header ---------------------------------------------------------------------------------
 */

static int failed(int ret, const char *what, struct error *err)
{
	return error_set(err, -ret, "the store cannot be %s: %s", what, strerror(-ret));
}

/* @header becomes the store's; o->header, too, if that succeeds. */
static int write_header(struct overlay *o, struct session *s, struct overlay_header *header,
			struct error *err)
{
	char bytes[OVERLAY_HEADER_COPY] = { 0 };
	unsigned copy = !header->copy;
	int ret = 0;

	header->sequence++;
	overlay_header_encode(header, (unsigned char *)bytes);
	for (unsigned i = 0; i < 2 && !ret; i++, copy = !copy) {
		ret = session_write(s, copy * OVERLAY_HEADER_COPY, bytes, sizeof bytes, 0);
		if (!ret)
			ret = session_do(s, IO_FLUSH, 0, 0, 0);
	}
	if (ret)
		return failed(ret, "written", err);
	o->header = *header;
	return 0;
}

static int read_header(struct session *s, const struct layer *store, struct overlay_header *header,
		       struct error *err)
{
	unsigned char bytes[2 * OVERLAY_HEADER_COPY], copies[2][OVERLAY_HEADER_BYTES];
	int ret;

	if (store->limits.size < sizeof bytes)
		return -ENODATA;
	ret = session_read(s, 0, bytes, sizeof bytes);
	if (ret)
		return failed(ret, "read", err);
	for (unsigned i = 0; i < 2; i++)
		memcpy(copies[i], bytes + i * OVERLAY_HEADER_COPY, sizeof copies[i]);
	return overlay_header_decode(copies, header, err);
}

int overlay_check_store(const struct overlay *o, struct layer *leg, struct error *err)
{
	struct session *s = session_open(leg, err);
	struct overlay_header header;
	int ret = s ? read_header(s, leg, &header, err) : -err->code;

	session_close(s);
	if (ret == -ENODATA || (!ret && (memcmp(header.id, o->header.id, sizeof header.id) != 0 ||
					 header.sequence != o->header.sequence)))
		return error_set(
			err, EBUSY,
			"store: what it is to be does not hold what the store in use does");
	return ret;
}

/* --- making one
 * ----------------------------------------------------------------------------------- */

/* Zeroes the pages [@from, @to) of the map in both slots; they are not used yet. */
static int zero_pages(struct session *s, const struct overlay_header *header, uint64_t from,
		      uint64_t to)
{
	int ret = 0;

	for (unsigned slot = 0; slot < 2 && !ret && from < to; slot++)
		ret = session_do(s, IO_ZEROES, overlay_page_offset(header, from, slot),
				 (to - from) * OVERLAY_PAGE, 0);
	return ret ? ret : session_do(s, IO_FLUSH, 0, 0, 0);
}

static int make_room(const struct overlay_header *header, struct layer *store, struct error *err)
{
	uint64_t need = overlay_header_need(header);
	char a[32], b[32], c[32];
	struct error why = { 0 };

	if (store->limits.size >= need)
		return 0;
	if (layer_resize(store, need, &why))
		return error_set(
			err, why.code,
			"the store has %s; for a disk of %s it needs %s, of which only what is "
			"written is used where it is sparse (%s)",
			format_size(store->limits.size, a, sizeof a),
			format_size(header->size, b, sizeof b), format_size(need, c, sizeof c),
			why.text);
	stack_limits(store);
	return 0;
}

static int create(struct overlay *o, struct session *s, struct error *err)
{
	struct overlay_header h = { .copy = 1 };
	uint64_t size = o->size ? o->size : o->layer.below->limits.size;
	uint64_t block = o->block > o->layer.block_size ? o->block : o->layer.block_size;
	char a[32];
	int ret;

	if (o->layer.read_only)
		return error_set(err, EROFS,
				 "the store is blank, and cannot be made: the disk is read-only");
	size -= size % o->layer.block_size;
	if (!size)
		return error_set(err, EINVAL,
				 "the base is empty; option 'size' says how large the "
				 "disk is to be");
	overlay_header_lay_out(&h, size, (uint32_t)block);
	if (getrandom(h.id, sizeof h.id, 0) != sizeof h.id)
		return error_set(err, errno, "no random numbers: %s", strerror(errno));
	if (identify(o->layer.below, &h.base_size, &h.base_sum, err) ||
	    make_room(&h, overlay_store(o), err))
		return -err->code;
	/* What is in use may be written to until the overlay is above it. */
	if (o->layer.below->owner)
		h.base_sum = 0;
	ret = zero_pages(s, &h, 0, overlay_header_pages(&h));
	if (ret)
		return failed(ret, "written", err);
	if (write_header(o, s, &h, err))
		return -err->code;
	log_info("disk %s: overlay: a new store for %s in blocks of %u bytes", o->layer.disk,
		 format_size(size, a, sizeof a), h.block);
	return 0;
}

/* --- reading one
 * ---------------------------------------------------------------------------------- */

/* @left: there is one already, of a daemon that was killed. */
static int make_map(struct overlay *o, bool *left, struct error *err)
{
	o->shift = (unsigned)__builtin_ctz(o->header.block);
	o->pages = calloc(o->header.pages, sizeof *o->pages);
	if (!o->pages || overlay_shadow_open(o, left))
		return error_set(err, ENOMEM, "out of memory");
	return 0;
}

static int read_pages(struct overlay *o, struct session *s, char *buffer, uint64_t from,
		      uint64_t count, bool left, struct error *err)
{
	uint64_t words[OVERLAY_PAGE_WORDS];
	struct overlay_page *page;
	int ret = 0;

	for (unsigned slot = 0; slot < 2 && !ret; slot++)
		ret = session_read(s, overlay_page_offset(&o->header, from, slot),
				   buffer + slot * READ_PAGES * OVERLAY_PAGE, count * OVERLAY_PAGE);
	if (ret)
		return failed(ret, "read", err);
	for (uint64_t i = 0; i < count; i++) {
		const unsigned char *slots[2] = { (unsigned char *)buffer + i * OVERLAY_PAGE,
						  (unsigned char *)buffer +
							  (READ_PAGES + i) * OVERLAY_PAGE };

		page = &o->pages[from + i];
		if (overlay_page_decode(&o->header, from + i, slots, words, page, err))
			return -err->code;
		if (page->highest > o->sequence)
			o->sequence = page->highest;
		overlay_map_load(&o->map, from + i, left, words);
	}
	return 0;
}

static int read_map(struct overlay *o, struct session *s, bool left, struct error *err)
{
	uint64_t count = overlay_header_pages(&o->header);
	char *buffer = malloc(2 * READ_PAGES * OVERLAY_PAGE);
	int ret = 0;

	if (!buffer)
		return error_set(err, ENOMEM, "out of memory");
	o->sequence = o->header.floor;
	for (uint64_t at = 0; at < count && !ret; at += READ_PAGES)
		ret = read_pages(o, s, buffer, at,
				 count - at < READ_PAGES ? count - at : READ_PAGES, left, err);
	free(buffer);
	return ret;
}

static int grow(struct overlay *o, struct session *s, uint64_t size, struct error *err);

static int check(const struct overlay *o, struct error *err)
{
	const struct overlay_header *h = &o->header;
	char a[32], b[32];

	if (h->block < o->layer.block_size)
		return error_set(
			err, EINVAL,
			"the store has blocks of %u bytes, and the disk's are larger: set its "
			"block-size to %u",
			h->block, h->block);
	if (o->size && o->size < h->size)
		return error_set(
			err, EINVAL, "size: the disk in the store has %s, and cannot shrink to %s",
			format_size(h->size, a, sizeof a), format_size(o->size, b, sizeof b));
	if (overlay_store(o)->limits.size < overlay_header_need(h))
		return error_set(
			err, EINVAL,
			"the store has %s, and its header tells of %s: a part of it is missing",
			format_size(overlay_store(o)->limits.size, a, sizeof a),
			format_size(overlay_header_need(h), b, sizeof b));
	return overlay_check_base(o, o->layer.below, err);
}

/* From now on the store is ours. */
static int take(struct overlay *o, struct session *s, struct error *err)
{
	struct overlay_header h = o->header;
	/*
	 * What was read may be in a cache only, after a crash of the daemon; from now on the other
	 * copies of it are written over.
	 */
	int ret = session_do(s, IO_FLUSH, 0, 0, 0);

	if (ret)
		return failed(ret, "flushed", err);
	overlay_shadow_expect(o, h.sequence + 1);
	if (write_header(o, s, &h, err))
		return -err->code;
	overlay_shadow_set(o);
	return 0;
}

static int load(struct overlay *o, struct session *s, struct error *err)
{
	char a[32], b[32], c[32];
	bool left;

	if (check(o, err) || make_map(o, &left, err) || read_map(o, s, left, err))
		return -err->code;
	if (!o->layer.read_only && take(o, s, err))
		return -err->code;
	log_info("disk %s: overlay: %s, of which %s are in the store and %s are zeroes",
		 o->layer.disk, format_size(o->header.size, a, sizeof a),
		 format_size(o->map.count[OVERLAY_DATA] << o->shift, b, sizeof b),
		 format_size(o->map.count[OVERLAY_ZERO] << o->shift, c, sizeof c));
	if (o->size > o->header.size)
		return grow(o, s, o->size, err);
	return 0;
}

/* --- growing, emptying
 * ----------------------------------------------------------------------------- */

static int grow(struct overlay *o, struct session *s, uint64_t size, struct error *err)
{
	struct overlay_header h = o->header;
	uint64_t pages = overlay_header_pages(&h);
	char a[32], b[32];
	int ret;

	if (o->layer.read_only)
		return error_set(err, EROFS, "the disk is read-only: it cannot grow");
	h.size = size - size % o->layer.block_size;
	if (overlay_header_pages(&h) > h.pages)
		return error_set(
			err, ENOSPC,
			"the map in the store has room for a disk of %s; expected no more than "
			"that, not %s",
			format_size(h.pages * OVERLAY_PAGE_BLOCKS * h.block, a, sizeof a),
			format_size(size, b, sizeof b));
	if (make_room(&h, overlay_store(o), err))
		return -err->code;
	if (!overlay_shadow_grow(o, overlay_header_pages(&h)))
		return error_set(err, errno, "no room in %s: %s", overlay_shadows, strerror(errno));
	ret = zero_pages(s, &h, pages, overlay_header_pages(&h));
	if (ret)
		return failed(ret, "written", err);
	overlay_shadow_expect(o, h.sequence + 1);
	if (write_header(o, s, &h, err))
		return -err->code;
	overlay_shadow_set(o);
	return 0;
}

int overlay_store_grow(struct overlay *o, uint64_t size, struct error *err)
{
	struct session *s;
	int ret;

	if (size <= o->header.size)
		return 0;
	s = session_open(overlay_store(o), err);
	if (!s)
		return -err->code;
	ret = grow(o, s, size, err);
	session_close(s);
	return ret;
}

/* Space that was used goes back; no page of the map tells of it any more. */
static void give_back(struct overlay *o, struct session *s)
{
	uint64_t end = overlay_header_need(&o->header), length;

	if (!overlay_store(o)->limits.discard)
		return;
	for (uint64_t at = o->header.data_offset; at < end; at += length) {
		length = end - at < DISCARD_STEP ? end - at : DISCARD_STEP;
		if (session_do(s, IO_DISCARD, at, length, 0))
			return;
	}
}

static int undo(struct overlay *o, struct session *s, struct error *err)
{
	struct overlay_header h = o->header;
	int ret = 0;

	overlay_shadow_void(o);
	h.floor = o->sequence;
	if (h.floor != o->header.floor)
		ret = write_header(o, s, &h, err);
	if (!ret) {
		overlay_map_clear(&o->map, overlay_header_pages(&h));
		for (uint64_t i = 0; i < overlay_header_pages(&h); i++)
			o->pages[i].sequence = 0;
	}
	overlay_shadow_set(o);
	if (!ret)
		give_back(o, s);
	return ret;
}

int overlay_store_undo(struct overlay *o, struct error *err)
{
	struct session *s = session_open(overlay_store(o), err);
	int ret = s ? undo(o, s, err) : -err->code;

	session_close(s);
	return ret;
}

/* --- the two ends
 * ------------------------------------------------------------------------------------ */

int overlay_store_open(struct overlay *o, struct error *err)
{
	struct session *s = session_open(overlay_store(o), err);
	bool left;
	int ret;

	o->map.fd = -1;
	if (!s)
		return -err->code;
	ret = read_header(s, overlay_store(o), &o->header, err);
	if (ret == -ENODATA) {
		ret = create(o, s, err) || make_map(o, &left, err) ? -err->code : 0;
		if (!ret)
			overlay_shadow_set(o);
	} else if (!ret) {
		ret = load(o, s, err);
	}
	if (!ret && o->undo == OVERLAY_AT_EXIT && !o->layer.read_only)
		ret = undo(o, s, err);
	session_close(s);
	if (ret) {
		free(o->pages);
		overlay_shadow_close(o, false);
	}
	return ret;
}

/* As in overlay_commit.c, where nobody waits. */
static int write_dirty(struct overlay *o, struct session *s)
{
	struct overlay_commit *c = &o->commit;
	int ret = 0;

	for (c->cursor = 0; c->cursor < o->map.pages && !ret;) {
		c->count = overlay_map_take(&o->map, &c->cursor, c->pages, OVERLAY_COMMIT_PAGES);
		if (!c->count)
			break;
		overlay_encode_pages(o, c->pages, c->count, c->buffer);
		ret = session_do(s, IO_FLUSH, 0, 0, 0);
		for (unsigned i = 0; i < c->count && !ret; i++)
			ret = session_write(s,
					    overlay_page_offset(&o->header, c->pages[i],
								!o->pages[c->pages[i]].slot),
					    c->buffer + i * OVERLAY_PAGE, OVERLAY_PAGE, 0);
		if (!ret)
			ret = session_do(s, IO_FLUSH, 0, 0, 0);
		if (!ret)
			overlay_settle_pages(o, c->pages, c->count);
	}
	return ret;
}

void overlay_store_close(struct overlay *o)
{
	struct error err = { 0 };
	bool empties = o->undo == OVERLAY_AT_EXIT;
	struct session *s = NULL;
	int ret = 0;

	if (!o->layer.read_only && (empties || atomic_load(&o->map.unsettled))) {
		s = session_open(overlay_store(o), &err);
		ret = !s ? -err.code : empties ? undo(o, s, &err) : write_dirty(o, s);
		session_close(s);
	}
	if (ret)
		log_warn("disk %s: overlay: what was not flushed is lost: %s", o->layer.disk,
			 err.code ? err.text : strerror(-ret));
	free(o->pages);
	overlay_shadow_close(o, !ret && !o->layer.read_only);
}
