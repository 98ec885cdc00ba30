/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mirror_open.c - a mirror's legs as they are found when it opens, and as they are left
 *
 * Whose data count is judged by the superblocks alone (mirror_judge(), docs/mirror-format.md). Then
 * each leg is one of three: in sync, where only regions that are dirty may differ from the
 * winner's; stale, with the same bitmap if it has fallen behind this very mirror, or lacking all;
 * or not used at all, and then nothing is written to it. If the table must say something new, that
 * is on the legs before the first request is taken.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "layer/mirror.h"
#include "layer/session.h"
#include "layer/stack.h"
#include "util/error.h"

#define SECTORS      ((MIRROR_REGIONS + MIRROR_SECTOR_BITS - 1) / MIRROR_SECTOR_BITS)
#define SECTOR_BYTES (MIRROR_SECTOR_BITS / 8)
#define IMAGE_BYTES  ((size_t)SECTORS * SECTOR_BYTES)

/* It could be opened. */
static bool is_open(const struct mirror *m, unsigned leg)
{
	return m->layer.legs[leg] && !m->layer.legs[leg]->absent;
}

/* --- a leg as it is found --------------------------------------------------------------- */

void mirror_name_leg(char *name, size_t size, unsigned index, const struct layer *leg)
{
	const char *path = NULL;
	int n = snprintf(name, size, "leg %u", index);

	while (leg && leg->below)
		leg = leg->below;
	if (leg && leg->config)
		path = layer_config_get(leg->config, "path");
	if (leg && n > 0 && (size_t)n < size)
		snprintf(name + n, size - (size_t)n, " (%s)",
			 !path                ? leg->ops->name
			 : strrchr(path, '/') ? strrchr(path, '/') + 1
					      : path);
}

static int read_bitmap(struct session *session, struct mirror_find *find)
{
	uint32_t sectors =
		mirror_bitmap_sectors(mirror_regions(find->super.data_size, find->super.region));
	uint64_t bytes =
		mirror_bitmap_bytes(mirror_regions(find->super.data_size, find->super.region));
	uint8_t *sector = aligned_alloc(MIRROR_BLOCK, bytes);
	int ret;

	find->bits = calloc(1, IMAGE_BYTES);
	if (!sector || !find->bits) {
		free(sector);
		return error_set(&find->err, ENOMEM, "out of memory");
	}
	ret = session_read(session, find->super.bitmap_offset, sector, bytes);
	if (ret)
		error_set(&find->err, -ret, "its bitmap cannot be read: %s", strerror(-ret));
	for (uint32_t i = 0; !ret && i < sectors; i++)
		if (!mirror_sector_decode(sector + (size_t)i * MIRROR_SECTOR, &find->super.set, i,
					  find->bits + (size_t)i * SECTOR_BYTES))
			ret = error_set(
				&find->err, EUCLEAN,
				"its bitmap is damaged at byte %llu of the leg: the checksum is "
				"wrong",
				(unsigned long long)(find->super.bitmap_offset +
						     (uint64_t)i * MIRROR_SECTOR));
	free(sector);
	return ret;
}

/* Looks at the superblocks that end at @end. */
static void look(struct session *session, uint64_t end, struct mirror_find *find)
{
	uint8_t *blocks = aligned_alloc(MIRROR_BLOCK, MIRROR_COPIES * MIRROR_BLOCK);
	int ret = -ENOMEM;

	if (blocks)
		ret = session_read(session, end - MIRROR_COPIES * MIRROR_BLOCK, blocks,
				   MIRROR_COPIES * MIRROR_BLOCK);
	if (ret) {
		error_set(&find->err, -ret, "its superblock cannot be read: %s", strerror(-ret));
		find->found = MIRROR_DAMAGED;
	} else {
		find->found = mirror_supers_decode(blocks, end, &find->super, &find->err);
	}
	if (find->found == MIRROR_GOOD && read_bitmap(session, find))
		find->found = MIRROR_DAMAGED;
	free(blocks);
}

void mirror_probe(struct layer *leg, struct session *session, struct mirror_find *find)
{
	find->end = mirror_end(leg->limits.size);
	if (find->end < 4 * MIRROR_BLOCK) {
		find->found = MIRROR_DAMAGED;
		error_set(&find->err, ENOSPC, "it is too small for a mirror");
		return;
	}
	look(session, find->end, find);
}

void mirror_forget_find(struct mirror_find *find)
{
	free(find->bits);
	find->bits = NULL;
}

/* Room for @data_size bytes and what comes behind them; the leg may have to grow. */
int mirror_place(struct layer *leg, uint64_t data_size, uint64_t region, uint64_t *end,
		 struct error *err)
{
	uint64_t needed = (data_size + MIRROR_BLOCK - 1) / MIRROR_BLOCK * MIRROR_BLOCK +
			  mirror_tail(data_size, region);
	struct error why = { 0 };
	char a[32], b[32];

	*end = mirror_end(leg->limits.size);
	if (*end >= needed)
		return 0;
	/* Its limits stay for now: what is above it in a disk in use goes by them. */
	*end = needed;
	if (!layer_resize(leg, needed, &why))
		return 0;
	return error_set(err, ENOSPC, "it holds %s, and a mirror of %s needs %llu bytes of it%s%s",
			 format_size(leg->limits.size, a, sizeof a),
			 format_size(data_size, b, sizeof b), (unsigned long long)needed,
			 *why.text ? "; " : "", why.text);
}

/* --- memory --------------------------------------------------------------------------- */

static void *map(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

_Atomic uint64_t *mirror_new_need(void)
{
	return calloc(MIRROR_REGIONS / 64, sizeof(_Atomic uint64_t));
}

static int get_memory(struct mirror *m, struct error *err)
{
	bool got = true;

	pthread_mutex_init(&m->lock, NULL);
	m->region = map(MIRROR_REGIONS * sizeof *m->region);
	m->image = calloc(1, IMAGE_BYTES);
	m->sectors = aligned_alloc(MIRROR_BLOCK, mirror_bitmap_bytes(MIRROR_REGIONS));
	m->blocks = aligned_alloc(MIRROR_BLOCK, MIRROR_LEGS * MIRROR_BLOCK);
	m->sync.granules = map(MIRROR_REGIONS * sizeof *m->sync.granules);
	for (unsigned i = 0; i < m->layer.leg_count; i++)
		got &= (m->leg[i].need = mirror_new_need()) != NULL;
	if (got && m->region && m->image && m->sectors && m->blocks && m->sync.granules) {
		memset(m->sectors, 0, mirror_bitmap_bytes(MIRROR_REGIONS));
		return 0;
	}
	return error_set(err, ENOMEM, "out of memory");
}

static void free_memory(struct mirror *m)
{
	for (unsigned i = 0; i < MIRROR_LEGS; i++)
		free((void *)m->leg[i].need);
	if (m->region)
		munmap((void *)m->region, MIRROR_REGIONS * sizeof *m->region);
	if (m->sync.granules)
		munmap(m->sync.granules, MIRROR_REGIONS * sizeof *m->sync.granules);
	free(m->image);
	free(m->sectors);
	free(m->blocks);
	ranges_destroy(m->ranges);
	pthread_mutex_destroy(&m->lock);
}

/* --- writing, before the disk is in use, or after ---------------------------------------- */

static void fail_leg(struct mirror *m, unsigned i, const char *why)
{
	struct mirror_leg *leg = &m->leg[i];

	leg->state = LEG_FAILED;
	leg->synced = false;
	snprintf(leg->reason, sizeof leg->reason, "%s", why);
	atomic_fetch_and(&m->live, ~(1u << i));
	atomic_fetch_and(&m->readable, ~(1u << i));
	log_warn("disk %s: mirror: %s is not used: %s", m->layer.disk, leg->name, why);
}

uint32_t mirror_all_sectors(const struct mirror *m)
{
	uint64_t bytes = mirror_bitmap_bytes(mirror_regions(m->data_size, 1ull << m->shift));

	return (uint32_t)(bytes / MIRROR_SECTOR);
}

int mirror_save_leg(struct mirror *m, unsigned i, struct session *session, bool table)
{
	const struct mirror_leg *leg = &m->leg[i];
	int ret = 0;

	if (!table)
		return session_write(session, leg->bitmap_offset, m->sectors,
				     (size_t)mirror_all_sectors(m) * MIRROR_SECTOR, IO_FUA);
	mirror_super_of(m, i, m->blocks);
	for (unsigned copy = 0; copy < MIRROR_COPIES && !ret; copy++)
		ret = session_write(session, mirror_super_offset(leg->end, copy), m->blocks,
				    MIRROR_BLOCK, IO_FUA);
	return ret;
}

/*
 * Writes the whole bitmap to all live legs, and a new table, first to those in sync; again without
 * the leg that fails, if one does. 0, or -EIO if no leg in sync takes them.
 */
int mirror_save(struct mirror *m, struct session **sessions, struct error *err)
{
	bool again;

	do {
		again = false;
		pthread_mutex_lock(&m->lock);
		mirror_sectors_encode(m, 0, mirror_all_sectors(m));
		mirror_next_table(m);
		pthread_mutex_unlock(&m->lock);
		for (unsigned step = 0; step < 3; step++) {
			uint32_t in_sync = atomic_load(&m->readable), live = atomic_load(&m->live);
			uint32_t legs = step == 0 ? live : step == 1 ? in_sync : live & ~in_sync;

			for_each_leg(i, legs)
			{
				int ret = mirror_save_leg(m, i, sessions[i], step > 0);

				if (!ret)
					continue;
				fail_leg(m, i, strerror(-ret));
				again = true;
			}
		}
		if (!atomic_load(&m->readable))
			return error_set(err, EIO, "its records can be written to no leg");
	} while (again);
	pthread_mutex_lock(&m->lock);
	mirror_table_written(m);
	pthread_mutex_unlock(&m->lock);
	return 0;
}

/* --- a new mirror --------------------------------------------------------------------- */

int mirror_random_uuid(struct mirror_uuid *uuid, struct error *err)
{
	if (getrandom(uuid->byte, sizeof uuid->byte, 0) != sizeof uuid->byte)
		return error_set(err, EIO, "no random numbers: %s", strerror(errno));
	uuid->byte[6] = (uint8_t)((uuid->byte[6] & 0x0f) | 0x40); /* RFC 9562, version 4 */
	uuid->byte[8] = (uint8_t)((uuid->byte[8] & 0x3f) | 0x80);
	return 0;
}

static bool is_zero(const uint8_t *bytes, size_t length)
{
	while (length--)
		if (*bytes++)
			return false;
	return true;
}

/*
 * Nothing is kept there; or only what a mirror writes first, its bitmap, and then its superblock:
 * whoever made one here before did not come to its end.
 */
static bool is_free(struct session *session, uint64_t offset, uint64_t length)
{
	uint8_t *bytes = aligned_alloc(MIRROR_BLOCK, length), bits[SECTOR_BYTES] = { 0 };
	uint64_t bitmap = length - MIRROR_COPIES * MIRROR_BLOCK;
	bool is = bytes && !session_read(session, offset, bytes, length), begun = false;

	for (uint64_t at = 0; is && at < bitmap; at += MIRROR_SECTOR) {
		if (is_zero(bytes + at, MIRROR_SECTOR))
			continue;
		begun = true;
		is = mirror_sector_decode(bytes + at, NULL, (uint32_t)(at / MIRROR_SECTOR), bits);
	}
	is = is && (begun || is_zero(bytes + bitmap, MIRROR_COPIES * MIRROR_BLOCK));
	free(bytes);
	return is;
}

/* The first leg's data become the mirror's: all of them, or all but an end that is empty. */
static int size_new(struct mirror *m, struct session *session, struct error *err)
{
	struct layer *leg = m->layer.legs[0];
	uint64_t size = leg->limits.size - leg->limits.size % m->layer.block_size, tail, end;

	m->table.region = m->region_size ? m->region_size : mirror_default_region(size);
	if (mirror_regions(size, m->table.region) > MIRROR_REGIONS)
		return error_set(err, EINVAL,
				 "region-size: %llu regions; expected a size that makes %u at most",
				 (unsigned long long)mirror_regions(size, m->table.region),
				 MIRROR_REGIONS);
	m->table.data_size = size;
	if (!mirror_place(leg, size, m->table.region, &end, err))
		return 0;
	*err = (struct error){ 0 };
	tail = mirror_tail(size, m->table.region);
	end = mirror_end(leg->limits.size);
	if (end < tail + MIRROR_BLOCK)
		return error_set(err, ENOSPC, "leg 0 is too small for a mirror");
	m->table.data_size = end - tail;
	if (is_free(session, end - tail, tail))
		return 0;
	return error_set(
		err, ENOSPC,
		"leg 0 cannot grow, and there are data in its last %llu bytes, which the mirror "
		"needs for its records; make room there",
		(unsigned long long)tail);
}

static void settle_size(struct mirror *m)
{
	m->data_size = m->table.data_size;
	m->shift = (unsigned)__builtin_ctzll(m->table.region);
}

/* A leg that comes new to the mirror: it lacks all. */
static int join(struct mirror *m, unsigned i, struct error *err)
{
	struct mirror_leg *leg = &m->leg[i];

	if (mirror_random_uuid(&leg->uuid, err) ||
	    mirror_place(m->layer.legs[i], m->data_size, m->table.region, &leg->end, err))
		return -err->code;
	leg->member = true;
	leg->state = LEG_STALE;
	leg->bitmap_offset = leg->end - mirror_tail(m->data_size, m->table.region);
	return 0;
}

void mirror_need_all(struct mirror *m, unsigned leg)
{
	uint64_t regions = mirror_regions(m->data_size, m->table.region);

	for (uint64_t r = 0; r < regions; r++) {
		mirror_need(m, leg, r);
		mirror_image_set(m, r);
	}
}

static int create(struct mirror *m, struct session **sessions, const struct mirror_find *find,
		  struct error *err)
{
	if (!m->create)
		return error_set(
			err, ENODATA,
			"none of its legs is part of a mirror; with create: true they become one, "
			"with the data of the first leg");
	if (m->layer.read_only)
		return error_set(err, EROFS, "a new mirror cannot be made read-only");
	for (unsigned i = 0; i < m->layer.leg_count; i++) {
		if (!is_open(m, i))
			return error_set(
				err, ENODEV,
				"none of its legs that are here is part of a mirror, and %s cannot "
				"be opened%s%s; a new mirror needs all its legs",
				m->leg[i].name, m->layer.legs[i] ? ": " : "",
				m->layer.legs[i] ? m->layer.legs[i]->absent : "");
		if (find[i].found == MIRROR_DAMAGED)
			return error_set(err, find[i].err.code, "%s: %s; nothing is written to it",
					 m->leg[i].name, find[i].err.text);
	}
	if (mirror_random_uuid(&m->table.set, err) || size_new(m, sessions[0], err))
		return -err->code;
	settle_size(m);
	for (unsigned i = 0; i < m->layer.leg_count; i++) {
		if (join(m, i, err))
			return error_prefix(err, "%s", m->leg[i].name);
		atomic_fetch_or(&m->live, 1u << i);
		if (i)
			mirror_need_all(m, i);
	}
	m->leg[0].state = LEG_IN_SYNC;
	atomic_store(&m->readable, 1);
	return mirror_save(m, sessions, err);
}

/* --- a mirror that there is ------------------------------------------------------------- */

/* A leg without a superblock at its end may have grown, and another leg know where it was. */
static void look_where_it_was(struct mirror *m, unsigned i, struct session *session,
			      struct mirror_find *find)
{
	for (unsigned k = 0; k < m->layer.leg_count; k++) {
		for (unsigned n = 0; find[k].found == MIRROR_GOOD && n < find[k].super.count; n++) {
			uint64_t end = find[k].super.member[n].end;

			if (find[i].found != MIRROR_NONE || end % MIRROR_BLOCK ||
			    end < 4 * MIRROR_BLOCK || end >= find[i].end)
				continue;
			look(session, end, &find[i]);
			if (find[i].found == MIRROR_GOOD &&
			    !mirror_uuid_equal(&find[i].super.set, &find[k].super.set))
				find[i].found = MIRROR_NONE;
		}
	}
}

static int here(const struct mirror *m, const struct mirror_find *find,
		const struct mirror_uuid *uuid)
{
	for (unsigned i = 0; i < m->layer.leg_count; i++)
		if (find[i].found == MIRROR_GOOD && mirror_uuid_equal(&find[i].super.self, uuid))
			return (int)i;
	return -1;
}

/* Members that have all data must be here, or their absence be permitted. */
static int check_missing(struct mirror *m, const struct mirror_find *find, struct error *err)
{
	uint64_t generation = m->table.stamp.generation;
	char text[MIRROR_UUID_TEXT], damage[200] = "";

	for (unsigned i = 0; i < m->layer.leg_count; i++)
		if (is_open(m, i) && find[i].found == MIRROR_DAMAGED)
			snprintf(damage, sizeof damage, "; %.40s: %.140s", m->leg[i].name,
				 find[i].err.text);
	for (unsigned k = 0; k < m->table.count; k++) {
		struct mirror_member *member = &m->table.member[k];

		if (!member->in_sync || here(m, find, &member->uuid) >= 0)
			continue;
		if (m->degraded != generation)
			return error_set(
				err, ENODEV,
				"member %.8s is missing, and may have newer data than the legs that are "
				"here%s; bring it back, or, if you know that it has none or is lost, "
				"start once with degraded: %llu",
				mirror_uuid_text(&member->uuid, text), damage,
				(unsigned long long)generation);
		log_warn("disk %s: mirror: starting without member %.8s, as the option degraded "
			 "permits at generation %llu",
			 m->layer.disk, mirror_uuid_text(&member->uuid, text),
			 (unsigned long long)generation);
		member->in_sync = false;
		m->table_wanted = true;
	}
	return 0;
}

/* Members that no leg can be, since all legs are known, are out. */
static void forget_members(struct mirror *m, const struct mirror_find *find)
{
	for (unsigned i = 0; i < m->layer.leg_count; i++)
		if (m->leg[i].state == LEG_FAILED)
			return;
	for (unsigned k = m->table.count; k-- > 0;) {
		if (here(m, find, &m->table.member[k].uuid) >= 0)
			continue;
		mirror_forget(&m->table, k);
		m->table_wanted = true;
	}
}

/* A leg that is a member, or was: what it may lack is in the image later. */
static int take_in(struct mirror *m, unsigned i, unsigned winner, struct mirror_find *find,
		   struct error *err)
{
	struct mirror_leg *leg = &m->leg[i];
	const struct mirror_super *super = &find[i].super;
	struct mirror_member *member = mirror_member(&m->table, &super->self);
	bool known = i == winner || mirror_knows(&find[winner].super, super);

	leg->uuid = super->self;
	leg->member = true;
	leg->end = super->end;
	leg->bitmap_offset = super->bitmap_offset;
	if (super->data_size != m->data_size || super->end != find[i].end) {
		/* It was away, or on its way to another size: its records get another place. */
		if (!m->layer.read_only &&
		    mirror_place(m->layer.legs[i], m->data_size, m->table.region, &leg->end, err))
			return -err->code;
		leg->bitmap_offset = leg->end - mirror_tail(m->data_size, m->table.region);
		m->table_wanted = true;
	}
	leg->state = member && member->in_sync && known ? LEG_IN_SYNC : LEG_STALE;
	/* If the next table does not reach it, this one is what it still has. */
	if (member)
		member->confirmed = super->stamp;
	m->table_wanted |= !known || super->stamp.tag != find[winner].super.stamp.tag;
	if (!known)
		mirror_forget_find(&find[i]); /* that bitmap is of another history */
	return 0;
}

static void join_bitmaps(struct mirror *m, const struct mirror_find *find)
{
	uint64_t regions = mirror_regions(m->data_size, m->table.region);

	for (uint64_t r = 0; r < regions; r++) {
		bool any = false, every = true;

		for (unsigned i = 0; i < m->layer.leg_count; i++) {
			if (m->leg[i].state == LEG_FAILED || !find[i].bits)
				continue;
			any |= mirror_bit_of(find[i].bits, r);
			every &= mirror_bit_of(find[i].bits, r);
		}
		if (any)
			mirror_image_set(m, r);
		m->table_wanted |= any && !every;
	}
}

/*
 * The leg whose contents of dirty regions count: the first in sync in the order of the table, which
 * stays. So it is the same one again if there is another crash before they are copied.
 */
static unsigned find_source(const struct mirror *m, const struct mirror_find *find, unsigned winner)
{
	for (unsigned k = 0; k < m->table.count; k++) {
		int leg = here(m, find, &m->table.member[k].uuid);

		if (leg >= 0 && m->leg[leg].state == LEG_IN_SYNC)
			return (unsigned)leg;
	}
	return winner;
}

/* What each leg may lack, by the bitmap as it is now. */
static void settle_needs(struct mirror *m, unsigned source, const struct mirror_find *find)
{
	uint64_t regions = mirror_regions(m->data_size, m->table.region);

	for (unsigned i = 0; i < m->layer.leg_count; i++) {
		if (i == source || m->leg[i].state == LEG_FAILED)
			continue;
		if (m->leg[i].state == LEG_STALE && !find[i].bits) {
			mirror_need_all(m, i);
			continue;
		}
		for (uint64_t r = 0; r < regions; r++)
			if (mirror_image_get(m, r))
				mirror_need(m, i, r);
	}
}

static int assemble(struct mirror *m, struct session **sessions, struct mirror_find *find,
		    struct error *err)
{
	const struct mirror_super *supers[MIRROR_LEGS] = { NULL };
	unsigned winner = 0;

	for (unsigned i = 0; i < m->layer.leg_count; i++)
		if (find[i].found == MIRROR_GOOD)
			supers[i] = &find[i].super;
	if (mirror_judge(supers, m->layer.leg_count, &winner, err))
		return -err->code;
	m->table = find[winner].super;
	settle_size(m);
	if (m->data_size % m->layer.block_size)
		return error_set(err, EINVAL, "it holds %llu bytes, not a multiple of blocks of %u",
				 (unsigned long long)m->data_size, m->layer.block_size);
	if (check_missing(m, find, err))
		return -err->code;
	for (unsigned i = 0; i < m->layer.leg_count; i++) {
		struct error why = { 0 };
		int ret = 0;

		if (!is_open(m, i) || find[i].found == MIRROR_DAMAGED) {
			fail_leg(m, i,
				 is_open(m, i)      ? find[i].err.text
				 : m->layer.legs[i] ? m->layer.legs[i]->absent
						    : "it cannot be opened");
			continue;
		}
		if (find[i].found == MIRROR_NONE && !m->create)
			return error_set(
				err, ENODATA,
				"%s is not part of the mirror; create: true takes it in, and "
				"overwrites it",
				m->leg[i].name);
		if (find[i].found == MIRROR_GOOD)
			ret = take_in(m, i, winner, find, &why);
		else if (!m->layer.read_only)
			ret = join(m, i, &why);
		if (ret || (find[i].found == MIRROR_NONE && m->layer.read_only)) {
			fail_leg(m, i, ret ? why.text : "it is not part of the mirror yet");
			continue;
		}
		m->table_wanted |= find[i].found == MIRROR_NONE;
		atomic_fetch_or(&m->live, 1u << i);
		if (m->leg[i].state == LEG_IN_SYNC)
			atomic_fetch_or(&m->readable, 1u << i);
	}
	if (!(atomic_load(&m->readable) >> winner & 1))
		return error_set(err, EIO, "%s has the data, but is not used: %s",
				 m->leg[winner].name, m->leg[winner].reason);
	forget_members(m, find);
	join_bitmaps(m, find);
	settle_needs(m, find_source(m, find, winner), find);
	if (!m->table_wanted || m->layer.read_only)
		return 0;
	return mirror_save(m, sessions, err);
}

/* --- open, close ------------------------------------------------------------------------ */

static void begin(struct mirror *m)
{
	uint64_t regions = mirror_regions(m->data_size, m->table.region), dirty = 0;
	uint32_t live = atomic_load(&m->live);
	bool lacking = false;
	char text[MIRROR_UUID_TEXT];

	for (uint64_t r = 0; r < regions; r++) {
		if (!mirror_image_get(m, r))
			continue;
		atomic_store(&m->region[r], REGION_DIRTY);
		dirty++;
	}
	atomic_store(&m->dirty, dirty);
	for_each_leg(i, live)
		lacking |= atomic_load(&m->leg[i].need_count) || m->leg[i].state == LEG_STALE;
	atomic_store(&m->copying, lacking);
	m->table_wanted = false;
	m->first = m->last = 0;
	log_info("disk %s: mirror %.8s, generation %llu: %d of %u legs in sync%s", m->layer.disk,
		 mirror_uuid_text(&m->table.set, text),
		 (unsigned long long)m->table.stamp.generation,
		 __builtin_popcount(atomic_load(&m->readable)), m->layer.leg_count,
		 lacking ? ", regions are to be copied" : "");
}

static int open_legs(struct mirror *m, struct session **sessions, struct mirror_find *find,
		     struct error *err)
{
	unsigned good = 0;

	for (unsigned i = 0; i < m->layer.leg_count; i++) {
		struct layer *leg = m->layer.legs[i];

		mirror_name_leg(m->leg[i].name, sizeof m->leg[i].name, i, leg);
		if (!is_open(m, i))
			continue;
		sessions[i] = session_open(leg, err);
		if (!sessions[i])
			return -err->code;
		mirror_probe(leg, sessions[i], &find[i]);
		good += find[i].found == MIRROR_GOOD;
	}
	for (unsigned i = 0; good && i < m->layer.leg_count; i++)
		if (is_open(m, i) && find[i].found == MIRROR_NONE)
			look_where_it_was(m, i, sessions[i], find);
	return good ? assemble(m, sessions, find, err) : create(m, sessions, find, err);
}

int mirror_open(struct layer *layer, struct error *err)
{
	struct mirror *m = (struct mirror *)layer;
	struct session *sessions[MIRROR_LEGS] = { NULL };
	struct mirror_find find[MIRROR_LEGS] = { 0 };
	int ret = get_memory(m, err);

	if (!ret && m->region_size & (m->region_size - 1))
		ret = error_set(err, EINVAL, "region-size: expected a power of 2");
	if (!ret)
		ret = open_legs(m, sessions, find, err);
	if (!ret && !(m->ranges = ranges_create(mirror_granule(m))))
		ret = error_set(err, ENOMEM, "out of memory");
	for (unsigned i = 0; i < MIRROR_LEGS; i++) {
		session_close(sessions[i]);
		mirror_forget_find(&find[i]);
	}
	if (ret)
		free_memory(m);
	else
		begin(m);
	return ret;
}

/* Nothing is under way any more: after a flush, what is the same on all legs is not dirty. */
static void leave_clean(struct mirror *m)
{
	struct session *sessions[MIRROR_LEGS] = { NULL };
	uint32_t live = atomic_load(&m->live);
	bool good = true;

	for (uint64_t r = 0; r < mirror_regions(m->data_size, m->table.region); r++)
		if (atomic_load(&m->region[r]) == REGION_DIRTY)
			atomic_store(&m->region[r], REGION_DIRTY | REGION_QUIET);
	for_each_leg(i, live)
	{
		sessions[i] = session_open(m->layer.legs[i], NULL);
		good = good && sessions[i] && !session_do(sessions[i], IO_FLUSH, 0, 0, 0);
	}
	if (good) {
		mirror_clean(m);
		mirror_sectors_encode(m, 0, mirror_all_sectors(m));
		for_each_leg(i, live) mirror_save_leg(m, i, sessions[i], false);
	}
	for (unsigned i = 0; i < MIRROR_LEGS; i++)
		session_close(sessions[i]);
}

void mirror_close(struct layer *layer)
{
	struct mirror *m = (struct mirror *)layer;

	if (!layer->read_only && !m->parted && atomic_load(&m->dirty) && mirror_complete(m))
		leave_clean(m);
	free_memory(m);
}
