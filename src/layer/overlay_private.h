/* SPDX-License-Identifier: BSD-3-Clause */
/* overlay_private.h - what the files of the overlay layer share; see overlay.c */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "layer/layer.h"
#include "layer/overlay_format.h"
#include "layer/overlay_map.h"
#include "layer/ranges.h"

#define OVERLAY_FAN_OUT      8u   /* parts of a request at once */
#define OVERLAY_COMMIT_PAGES 256u /* of the map, in one round of a commit */

#define OVERLAY_FILLS 4u /* copies on read under way on one queue */

enum overlay_undo { OVERLAY_NEVER, OVERLAY_AT_EXIT };

/** See overlay_commit.c. */
struct overlay_commit {
	pthread_mutex_t lock; /* of busy, waiting */
	_Atomic bool busy;
	struct io *waiting, **last; /* for the next one */
	/* Of whoever leads: */
	struct io *following; /* for this one */
	char *buffer;         /* OVERLAY_COMMIT_PAGES pages, as they are written */
	uint64_t pages[OVERLAY_COMMIT_PAGES];
	unsigned count, written; /* of pages */
	uint64_t cursor;         /* pages below it are done with */
	bool last_write;         /* nothing need be flushed after it */
	struct iovec vec[OVERLAY_FAN_OUT];
};

struct overlay {
	struct layer layer;
	uint64_t size, block; /* as configured, bytes; 0: the base's size */
	bool copy_on_read;
	int undo; /* enum overlay_undo */

	struct overlay_header header; /* of the store; id, block and places do not change */
	struct overlay_map map;
	struct overlay_page *pages; /* of the map; of whoever leads a commit */
	uint64_t sequence;          /* the latest that a page was written with; likewise */
	struct overlay_commit commit;
	struct ranges *ranges; /* of what is not DATA yet */
	unsigned shift;        /* of a block */
	_Atomic uint64_t end;  /* of the base, bytes */
	atomic_bool warned;    /* that the store is full */
};

struct overlay_queue {
	unsigned fills; /* under way */
};

static inline struct layer *overlay_store(const struct overlay *o)
{
	return o->layer.legs[0];
}

/** The blocks that [@offset, @offset+@length) touches. */
static inline uint64_t overlay_blocks(const struct overlay *o, uint64_t offset, uint64_t length,
				      uint64_t *first)
{
	*first = offset >> o->shift;
	return ((offset + length - 1) >> o->shift) - *first + 1;
}

/* --- overlay_store.c: opening and closing, by code that waits ---------------------------- */

/** Reads the store, or makes it if it is blank; then there is a header, a map. */
int overlay_store_open(struct overlay *o, struct error *err);

/** Writes what is dirty, or throws it away; frees the map. */
void overlay_store_close(struct overlay *o);

/** Makes the disk larger. */
int overlay_store_grow(struct overlay *o, uint64_t size, struct error *err);

/** Throws all changes away. Nothing may be under way. */
int overlay_store_undo(struct overlay *o, struct error *err);

/** Is @base what the store was made over? */
int overlay_check_base(const struct overlay *o, struct layer *base, struct error *err);

/** Does @leg hold the store that is open? */
int overlay_check_store(const struct overlay *o, struct layer *leg, struct error *err);

/* --- overlay_shadow.c: the map outlives a daemon that is killed ------------------------------ */

extern const char *overlay_shadows; /**< the directory of these files */

/** Makes o->map; @left: it holds what a daemon that was killed left. 0 or -ENOMEM. */
int overlay_shadow_open(struct overlay *o, bool *left);

/** There is room for @pages of the map; false: there is none, see errno. */
bool overlay_shadow_grow(struct overlay *o, uint64_t pages);

/** A header with @sequence is about to be written, and the map belongs to it, too. */
void overlay_shadow_expect(struct overlay *o, uint64_t sequence);

/** The map belongs to no header: it is about to be emptied. */
void overlay_shadow_void(struct overlay *o);

/** The map belongs to o->header. */
void overlay_shadow_set(struct overlay *o);

/** Releases the map; the file is of no use any more if @remove. */
void overlay_shadow_close(struct overlay *o, bool remove);

/* --- overlay_commit.c ---------------------------------------------------------------------- */

/** Finishes @io once all that was changed before now is on stable storage. */
void overlay_commit(struct overlay *o, struct io *io);

/** Writes the pages that are taken, to @buffer: as they are to be in the store. */
void overlay_encode_pages(struct overlay *o, const uint64_t *pages, unsigned count, char *buffer);

/** They are on stable storage. */
void overlay_settle_pages(struct overlay *o, const uint64_t *pages, unsigned count);

/** They are not, and will have to be written again. */
void overlay_unsettle_pages(struct overlay *o, const uint64_t *pages, unsigned count);

/* --- overlay_io.c, overlay_fill.c ------------------------------------------------------------ */

void overlay_submit(struct layer *layer, struct io *io);

/** Keeps in the store what @io, a read that is done, has from the base. */
void overlay_fill(struct overlay *o, const struct io *io);
