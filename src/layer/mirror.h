/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mirror.h - what the files of the mirror share
 *
 *     mirror.c          options; a request's way: reads to one leg, changes to all
 *     mirror_meta.c     what has to be on the legs before a change may go on or be acknowledged
 *     mirror_open.c     legs as they are found: whose data counts, who joins
 *     mirror_legs.c     other legs while it is in use
 *     mirror_retire.c   legs that are left behind by a change: what is written on them and the
 * others mirror_resize.c   room for more data: the records move to the new end of each leg
 *     mirror_sync.c     work of its own: copying to legs that lack something, clearing the bitmap
 *     mirror_report.c   its state for status and the API
 *     mirror_format.c   bytes on a leg
 *
 * A leg is *live* if changes are sent to it, and *in sync* if it has, by the table of members that
 * is on the legs, all that was acknowledged. What a live leg may lack are the regions in its set
 * @need; reads avoid them. There is always a leg in sync that needs nothing: the source.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "layer/copier.h"
#include "layer/layer.h"
#include "layer/mirror_format.h"
#include "layer/ranges.h"
#include "util/error.h"
#include "util/log.h"

/* Of a region's word; the rest counts the changes that are under way in it. */
#define REGION_DIRTY (1u << 31) /* its bit is on the legs */
#define REGION_QUIET (1u << 30) /* no change has begun since the last tick */

/* Notes of a frame of a change. */
enum { NOTE_LEGS, NOTE_STATUS };
/* NOTE_LEGS: which legs failed it; which it was sent to; and: */
#define NOTE_SENT    8
#define NOTE_LOCKED  (1u << 16) /* has its range */
#define NOTE_REGIONS (1u << 17) /* counts in its regions */

#define MIRROR_TICK 2000000000ull /* ns */

enum mirror_leg_state {
	LEG_FAILED,  /* not used; reason says why */
	LEG_STALE,   /* live, but lacks data by the table */
	LEG_IN_SYNC, /* live */
};

struct mirror_leg {
	char name[64]; /* for messages */
	struct mirror_uuid uuid;
	bool member; /* it has one */
	_Atomic(enum mirror_leg_state) state;
	bool synced; /* has all, and the next table will say so */
	char reason[200];
	uint64_t end, bitmap_offset; /* bytes from its front */
	_Atomic uint64_t *need;      /* a bit for each region that it may lack */
	_Atomic uint64_t need_count; /* bits in it */
	_Atomic uint64_t errors;     /* requests that it failed */
};

struct session;

/* What was found on a leg. */
struct mirror_find {
	enum mirror_found found;
	struct mirror_super super;
	uint8_t *bits; /* the bitmap, as long as mirror.image */
	uint64_t end;
	struct error err; /* what is wrong with it */
};

/* What is being written to the legs, in steps; see mirror_meta.c. */
enum mirror_step { STEP_BITS, STEP_TABLE, STEP_SYNCED, STEP_CLEAN };

struct mirror {
	struct layer layer;
	/* options */
	bool create;
	uint64_t degraded; /* the generation that may do without its other legs */
	uint64_t region_size;
	uint64_t resync_limit; /* bytes a second */
	uint64_t retry;        /* its change is what matters */

	uint64_t data_size;
	unsigned shift;                  /* of a region */
	_Atomic uint32_t *region;        /* MIRROR_REGIONS words */
	_Atomic uint64_t dirty;          /* regions that are */
	_Atomic uint32_t live, readable; /* masks of legs: live ones, those of them in sync */
	atomic_bool needs;               /* a live leg may lack something */
	atomic_bool pending;             /* nothing is acknowledged before the table is written */
	atomic_bool copying;             /* changes lock their range */
	struct ranges *ranges;
	bool discard; /* all legs can */

	pthread_mutex_t lock; /* of all that follows but for sync */
	struct mirror_leg leg[MIRROR_LEGS];
	struct mirror_super table; /* self, end, bitmap_offset are a leg's own */
	uint8_t *image;            /* the bitmap as it is to be on the legs */
	uint32_t first, last;      /* sectors of it that are not; none if first == last */
	bool busy;                 /* something is being written, by @queue: */
	struct io_queue *queue;
	enum mirror_step step;
	unsigned phase;              /* of STEP_TABLE */
	unsigned out;                /* errands under way */
	uint32_t targets, failed;    /* masks of legs */
	struct io *marking, *marked; /* wait for their bits: those of the next write, of this one */
	struct io *held;             /* wait for the table */
	bool table_wanted, table_blocked, clean_wanted;
	uint32_t finishing; /* legs to which all is copied */
	uint8_t *sectors;   /* of the bitmap as it is being written */
	uint8_t *blocks;    /* of the superblock, a MIRROR_BLOCK for each leg */
	struct iovec vec[MIRROR_LEGS];
	struct mirror_change *change; /* of legs, prepared; see mirror_legs.c */
	bool parted;       /* the legs have what is for after a change that is not made yet */
	char stalled[120]; /* why copying has stopped, or "" */

	/* Work of its own: on the home loop, while there is one. */
	struct mirror_sync {
		struct loop *loop; /* where it is */
		struct loop *home; /* the same while it may begin something; under the lock */
		struct io_queue queue;
		bool open; /* the queue is */
		struct loop_timer timer;
		struct loop_message start_message, stop_message, arm, go_on, over;
		atomic_bool armed;
		bool going_on; /* go_on is sent */
		bool stopping;
		struct layer_stop *stop;
		struct copier copier;
		bool running;                /* the copier */
		unsigned target;             /* leg */
		uint64_t cursor;             /* bytes: what the copier was given ends here */
		uint32_t *granules;          /* of each region: that are copied in this run */
		uint64_t total;              /* bytes that were to copy when it began */
		_Atomic uint64_t unreadable; /* reads that no leg could do */
		uint64_t unreadable_before;  /* this run */
	} sync;
};

struct mirror_queue {
	uint32_t depth[MIRROR_LEGS];   /* reads under way */
	uint64_t latency[MIRROR_LEGS]; /* ns, a moving average */
	uint32_t turn;
};

static inline uint64_t region_of(const struct mirror *m, uint64_t offset)
{
	return offset >> m->shift;
}

/* Bytes that are copied and locked as one. */
static inline uint32_t mirror_granule(const struct mirror *m)
{
	return m->shift < 20 ? 1u << m->shift : 1u << 20;
}

static inline bool leg_needs(const struct mirror_leg *leg, uint64_t region)
{
	return atomic_load_explicit(&leg->need[region / 64], memory_order_relaxed) >> region % 64 &
	       1;
}

static inline bool mirror_bit_of(const uint8_t *bits, uint64_t region)
{
	return bits[region / 8] >> region % 8 & 1;
}

#define for_each_leg(i, mask)                                                                      \
	for (uint32_t i##_left = (mask), i;                                                        \
	     i##_left && (i = (uint32_t)__builtin_ctz(i##_left), 1); i##_left &= i##_left - 1)

/* mirror.c */
void mirror_marked(struct layer *layer, struct io *io);
void mirror_settled(struct layer *layer, struct io *io);

/* mirror_meta.c: on the thread of the io's queue, or of @queue */
bool mirror_mark(struct mirror *m, struct io *io);
bool mirror_settle(struct mirror *m, struct io *io, const char *what);
void mirror_drop(struct mirror *m, unsigned leg, const char *why, int status);
void mirror_kick(struct mirror *m, struct io_queue *queue);
/* with the lock */
bool mirror_drop_locked(struct mirror *m, unsigned leg, const char *why, int status);
void mirror_find_source(struct mirror *m);
void mirror_need(struct mirror *m, unsigned leg, uint64_t region);
void mirror_has(struct mirror *m, unsigned leg, uint64_t region);
void mirror_image_set(struct mirror *m, uint64_t region);
void mirror_image_save(struct mirror *m, uint32_t first, uint32_t last);
bool mirror_image_get(const struct mirror *m, uint64_t region);
void mirror_next_stamp(struct mirror *m);
void mirror_next_table(struct mirror *m);
void mirror_super_of(const struct mirror *m, unsigned leg, uint8_t *block);
void mirror_sectors_encode(struct mirror *m, uint32_t first, uint32_t last);
void mirror_table_written(struct mirror *m);
void mirror_clean(struct mirror *m);
bool mirror_complete(const struct mirror *m);

/* mirror_open.c */
int mirror_open(struct layer *layer, struct error *err);
void mirror_close(struct layer *layer);
int mirror_place(struct layer *leg, uint64_t data_size, uint64_t region, uint64_t *end,
		 struct error *err);
uint32_t mirror_all_sectors(const struct mirror *m);
int mirror_save_leg(struct mirror *m, unsigned leg, struct session *session, bool table);
int mirror_save(struct mirror *m, struct session **sessions, struct error *err);
void mirror_name_leg(char *name, size_t size, unsigned index, const struct layer *leg);
void mirror_probe(struct layer *leg, struct session *session, struct mirror_find *find);
void mirror_forget_find(struct mirror_find *find);
_Atomic uint64_t *mirror_new_need(void);
int mirror_random_uuid(struct mirror_uuid *uuid, struct error *err);
void mirror_need_all(struct mirror *m, unsigned leg);

/* mirror_legs.c */
int mirror_prepare(struct layer *layer, const struct layer_plan *plan, struct error *err);
void mirror_commit(struct layer *layer);
void mirror_abandon(struct layer *layer);
bool mirror_stays(const struct mirror *m, const struct mirror_uuid *uuid);

/* mirror_retire.c */
int mirror_retire(struct layer *layer, uint32_t kept, struct error *err);
void mirror_stay(struct mirror *m);

/* mirror_resize.c */
int mirror_resize(struct layer *layer, uint64_t size, struct error *err);

/* mirror_sync.c */
void mirror_settle_copying(struct mirror *m); /* with the lock */
void mirror_start(struct layer *layer, struct loop *home);
void mirror_stop(struct layer *layer, struct layer_stop *stop);
void mirror_arm(struct mirror *m);

/* mirror_report.c */
struct json_t *mirror_report(struct layer *layer);
