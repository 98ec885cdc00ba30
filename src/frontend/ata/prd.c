/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * prd.c - a table of physical regions, walked piece by piece
 *
 * The table is the guest's: it may name what is no memory, end too soon, change while we read.
 * For each piece up to 256 entries are copied, once, from where the walker stands, and only the
 * copy is looked at. No entry is empty (a count of 0 is 65,536), there are no links, and a command
 * wants a bounded number of bytes; so every walk ends.
 *
 * A piece for a disk is whole sectors, while entries may end anywhere (at even addresses). So the
 * walker remembers the last boundary of a sector that it has passed, and stands there after the
 * piece, maybe inside an entry. What does not make a sector within 256 entries is refused.
 *
 * The copy stays inside a page, so that it need not know how long a table is meant to be.
 */
#include <endian.h>
#include <errno.h>

#include "frontend/ata/ide.h"

#define PAGE    4096u
#define LAST    0x80000000u
#define ADDRESS 0xfffffffeu
#define COUNT   0x0000fffeu
#define COUNT_0 65536u

static uint32_t count_of(const struct prd *prd)
{
	uint32_t count = le32toh(prd->count) & COUNT;

	return count ? count : COUNT_0;
}

static bool is_last(const struct prd *prd)
{
	return le32toh(prd->count) & LAST;
}

/* Past the entry that is used up. */
static void advance(struct prd_walker *w, const struct prd *prd)
{
	if (w->used < count_of(prd))
		return;
	w->used = 0;
	w->ended = is_last(prd);
	w->entry += (uint32_t)sizeof *prd;
}

/*
 * Adds up to @length bytes of @prd, cut where a granule ends. How many that was, or -errno.
 */
static int add(struct ide_channel *c, const struct prd_walker *w, const struct prd *prd,
	       uint64_t want, uint64_t total)
{
	uint64_t length = count_of(prd) - w->used, to_boundary;
	int ret;

	if (length > want - total)
		length = want - total;
	to_boundary = (c->granule - total % c->granule) % c->granule;
	if (to_boundary && length > to_boundary)
		length = to_boundary;
	else if (!to_boundary && length > c->granule)
		length -= length % c->granule;
	ret = dma_add(&c->dma, (uint64_t)(le32toh(prd->address) & ADDRESS) + w->used, length);
	return ret ? ret : (int)length;
}

static void begin(struct ide_channel *c)
{
	dma_begin(&c->dma, &c->ide->pci.dma, c->vec, IDE_VECTORS);
	c->dma.owner = c;
	c->mapped = true;
}

/*
 * Walks the copy, for up to @want bytes. Bytes found, in whole granules; 0: the table ends before
 * one; or -errno. What comes before an entry that cannot be had is a piece of its own: it is walked
 * again, up to there.
 */
static int walk(struct ide_channel *c, uint64_t want)
{
	struct prd_walker w = c->walker, boundary = w;
	uint64_t total = 0, whole = 0;
	unsigned i = 0;
	int n = 0;

	while (total < want && i < c->prds && !w.ended) {
		const struct prd *prd = &c->prd[i];

		/* An entry that we stopped in may be shorter now. */
		if (w.used < count_of(prd)) {
			n = add(c, &w, prd, want, total);
			if (n < 0)
				break;
			total += (unsigned)n;
			w.used += (unsigned)n;
		}
		if (w.used >= count_of(prd))
			i++;
		advance(&w, prd);
		if (total % c->granule == 0) {
			whole = total;
			boundary = w;
		}
	}
	if (n < 0 && whole) {
		dma_cancel(&c->dma);
		begin(c);
		return walk(c, whole);
	}
	if (!whole)
		return n < 0 ? n : w.ended ? 0 : -E2BIG;
	c->walker = boundary;
	return (int)whole;
}

static void end_gather(struct ide_channel *c, int result)
{
	if (c->mapped && (result <= 0 || c->abandoned)) {
		dma_cancel(&c->dma);
		c->mapped = false;
	}
	c->gathered(c, result);
}

static void ready(struct dma_transfer *t, int status)
{
	struct ide_channel *c = t->owner;

	if (status)
		c->mapped = false; /* over, says dma.h */
	end_gather(c, status ? status : (int)c->found);
}

static void copied(struct dma_transfer *t, int status)
{
	struct ide_channel *c = t->owner;
	int n;

	if (!status) {
		io_data_copy_out((struct io_data){ .vec = t->vec, .count = t->count }, c->prd,
				 c->prds * sizeof *c->prd);
		dma_cancel(t);
	}
	if (status || c->abandoned) {
		end_gather(c, status);
		return;
	}
	begin(c);
	n = walk(c, c->want);
	if (n <= 0) {
		end_gather(c, n);
		return;
	}
	c->found = (uint32_t)n;
	dma_ready(&c->dma, c->direction, ready);
}

void prd_gather(struct ide_channel *c, enum dma_direction direction, uint64_t want,
		uint32_t granule, ide_status_fn *gathered)
{
	uint32_t length = PAGE - c->walker.entry % PAGE;
	int ret;

	c->direction = direction;
	c->want = want;
	c->granule = granule;
	c->gathered = gathered;
	c->mapped = false;
	c->prds = length / sizeof *c->prd;
	if (!c->prds)
		c->prds = 1;
	if (c->prds > IDE_PRDS)
		c->prds = IDE_PRDS;
	if (c->walker.ended) {
		end_gather(c, 0);
		return;
	}
	dma_begin(&c->table_dma, &c->ide->pci.dma, c->table_vec, 4);
	c->table_dma.owner = c;
	ret = dma_add(&c->table_dma, c->walker.entry, c->prds * sizeof *c->prd);
	if (ret) {
		dma_cancel(&c->table_dma);
		end_gather(c, ret);
		return;
	}
	dma_ready(&c->table_dma, DMA_FROM_GUEST, copied);
}

static void finished(struct dma_transfer *t, int status)
{
	struct ide_channel *c = t->owner;

	c->moved(c, status);
}

void prd_finish(struct ide_channel *c, uint32_t length, ide_status_fn *moved)
{
	c->mapped = false;
	c->moved = moved;
	if (length) {
		dma_finish(&c->dma, length, finished);
		return;
	}
	dma_cancel(&c->dma);
	if (moved)
		moved(c, 0);
}
