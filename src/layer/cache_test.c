/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache_test.c - what stays in a cache and what does not; who shares it; that it never shows old
 * bytes, whatever several threads do at once
 *
 * The policy is driven page by page, without disks, against an LRU that the test works out itself.
 * The rest are disks on loops of their own.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "layer/cache_pool.h"
#include "layer/chance.h"
#include "layer/change.h"
#include "layer/testing_stack.h"
#include "testing.h"
#include "util/log.h"

#define KIB  1024u
#define MIB  (1024u * KIB)
#define PAGE 4096u

static unsigned char out[4 * MIB] __attribute__((aligned(4096)));
static unsigned char in[4 * MIB] __attribute__((aligned(4096)));

/* --- the policy ----------------------------------------------------------------------- */

static struct cache_user user;

/* A pool of its own for @pages pages, with a store. */
static struct cache_store *small_store(unsigned pages)
{
	struct error err = { 0 };
	struct cache_pool *pool;

	user.size = (uint64_t)pages * (PAGE + 96) + 1;
	pool = cache_pool_get(NULL, PAGE, &user, &err);
	assert_non_null(pool);
	return cache_store_get(pool, "something");
}

static void store_end(struct cache_store *store)
{
	struct cache_pool *pool = store->pool;

	cache_store_put(store);
	cache_pool_put(pool, &user);
}

static void nobody_waits(struct layer *layer, struct io *io)
{
	(void)layer;
	(void)io;
	abort();
}

/* Reads a page; true if it was there. */
static bool touch(struct cache_store *store, uint64_t number)
{
	struct cache_ref ref;

	switch (cache_find(store, number, CACHE_CLAIM, NULL, &ref)) {
	case CACHE_HIT:
		assert_int_equal(*(uint64_t *)(void *)ref.bytes, number);
		cache_unpin(&ref);
		return true;
	case CACHE_CLAIMED:
		*(uint64_t *)(void *)ref.bytes = number;
		cache_filled(store, ref.page, true, nobody_waits);
		return false;
	default:
		return false; /* no page could go just now */
	}
}

/* An LRU of @size pages: when each was last used, and who is there. */
struct lru {
	uint64_t number[2000], last[2000], now;
	unsigned size, count;
};

static bool lru_touch(struct lru *l, uint64_t number)
{
	unsigned oldest = 0;

	l->now++;
	for (unsigned i = 0; i < l->count; i++) {
		if (l->number[i] == number) {
			l->last[i] = l->now;
			return true;
		}
		if (l->last[i] < l->last[oldest])
			oldest = i;
	}
	if (l->count < l->size)
		oldest = l->count++;
	l->number[oldest] = number;
	l->last[oldest] = l->now;
	return false;
}

/* A skewed choice among @n: half of all go to a tenth of them. */
static uint64_t skewed(uint64_t *random, uint64_t n)
{
	uint64_t draw = chance_draw(random) >> 16;

	return chance_draw(random) >> 63 ? draw % n : draw % (n / 10);
}

static void a_scan_leaves_the_hot_set(void **unused)
{
	static struct lru lru;
	struct cache_store *store = small_store(1000);
	uint64_t random = chance_seed(7);
	unsigned hits = 0, lru_hits = 0, rounds = 0;

	(void)unused;
	lru = (struct lru){ .size = 1000 };
	/* A hot set of half the memory, used for a while. */
	for (unsigned i = 0; i < 20000; i++) {
		uint64_t number = skewed(&random, 500);

		touch(store, number);
		lru_touch(&lru, number);
	}
	/* A scan of ten times the memory, with a use of the hot set now and then. */
	for (uint64_t i = 0; i < 10000; i++) {
		assert_false(touch(store, 100000 + i));
		lru_touch(&lru, 100000 + i);
		if (i % 10 == 0) {
			uint64_t number = skewed(&random, 500);

			rounds++;
			hits += touch(store, number);
			lru_hits += lru_touch(&lru, number);
		}
	}
	print_message("# during a scan: %u of %u hot pages hit, with LRU %u\n", hits, rounds,
		      lru_hits);
	assert_true(hits > rounds * 9 / 10);
	assert_true(hits > lru_hits * 2);
	/* After it the hot set is still there. */
	hits = lru_hits = 0;
	for (uint64_t number = 0; number < 500; number++) {
		hits += touch(store, number);
		lru_hits += lru_touch(&lru, number);
	}
	print_message("# after it: %u of 500, with LRU %u\n", hits, lru_hits);
	assert_true(hits > 400);
	store_end(store);
}

/* On a skewed load without scans it must not be worse than LRU. */
static void as_good_as_lru_otherwise(void **unused)
{
	static struct lru lru;
	struct cache_store *store = small_store(500);
	uint64_t random = chance_seed(3);
	unsigned hits = 0, lru_hits = 0;

	(void)unused;
	lru = (struct lru){ .size = 500 };
	for (unsigned i = 0; i < 60000; i++) {
		uint64_t number = skewed(&random, 4000);

		hits += touch(store, number);
		lru_hits += lru_touch(&lru, number);
	}
	print_message("# skewed: %u of 60000 hit, with LRU %u\n", hits, lru_hits);
	assert_true(hits >= lru_hits);
	store_end(store);
}

static void a_ghost_comes_to_stay(void **unused)
{
	struct cache_store *store = small_store(100);

	(void)unused;
	for (uint64_t i = 0; i < 100; i++)
		touch(store, i);
	/* 1000 leaves the small queue unused, and is remembered. */
	touch(store, 1000);
	for (uint64_t i = 0; i < 20; i++)
		touch(store, 2000 + i);
	assert_false(touch(store, 1000));
	for (uint64_t i = 0; i < 40; i++)
		touch(store, 3000 + i);
	assert_true(touch(store, 1000));
	store_end(store);
}

static void memory_is_bounded(void **unused)
{
	struct cache_store *store = small_store(4000);
	struct cache_figures figures;
	struct error err = { 0 };
	uint64_t before = user.size;

	(void)unused;
	cache_pool_figures(store->pool, &figures);
	assert_int_equal(figures.used, 0);
	for (uint64_t i = 0; i < 20000; i++) {
		touch(store, i);
		touch(store, i / 2);
	}
	cache_pool_figures(store->pool, &figures);
	assert_true(figures.used <= before);
	assert_true(figures.used > before * 9 / 10);
	assert_true(figures.evictions > 10000);
	/* Smaller, at once; larger again; not without bounds. */
	cache_pool_state(store->pool, &user, before / 4);
	cache_pool_figures(store->pool, &figures);
	assert_true(figures.used <= before / 4);
	for (uint64_t i = 0; i < 10000; i++)
		touch(store, i);
	cache_pool_figures(store->pool, &figures);
	assert_true(figures.used <= before / 4);
	assert_int_equal(cache_pool_check(store->pool, before * 3, &err), 0);
	cache_pool_state(store->pool, &user, before * 3);
	for (uint64_t i = 0; i < 20000; i++)
		touch(store, i);
	cache_pool_figures(store->pool, &figures);
	assert_true(figures.used <= before * 3 && figures.used > before * 2);
	assert_int_equal(cache_pool_check(store->pool, before * 5, &err), -ENOSPC);
	store_end(store);
}

/* Of a write, a fill and readers: each order that may be. */
static void writes_and_fills(void **unused)
{
	struct cache_store *store = small_store(100);
	struct iovec vec = { out, PAGE };
	struct io_data data = { .vec = &vec, .count = 1 };
	struct cache_ref ref, reader;

	(void)unused;
	memset(out, 'n', PAGE);
	/* A fill under way when the write begins is void. */
	assert_int_equal(cache_find(store, 1, CACHE_CLAIM, NULL, &ref), CACHE_CLAIMED);
	cache_write_begins(store, 1, NULL);
	assert_int_equal(cache_find(store, 1, CACHE_CLAIM, NULL, &reader), CACHE_NONE);
	cache_filled(store, ref.page, true, nobody_waits);
	assert_int_equal(cache_find(store, 1, CACHE_CLAIM, NULL, &reader), CACHE_NONE);
	cache_write_ended(store, 1, &data, 0, PAGE);
	assert_false(touch(store, 1));
	/* A page that is there is readable meanwhile, and new in the end. */
	cache_write_begins(store, 1, NULL);
	assert_true(touch(store, 1));
	cache_write_ended(store, 1, &data, 512, 1024);
	assert_int_equal(cache_find(store, 1, CACHE_CLAIM, NULL, &ref), CACHE_HIT);
	assert_int_equal(ref.bytes[511], 0);
	assert_int_equal(ref.bytes[512], 'n');
	assert_int_equal(ref.bytes[1535], 'n');
	assert_int_equal(ref.bytes[1536], 0);
	/* With a reader it is dropped, and the reader's bytes stay. */
	cache_write_begins(store, 1, NULL);
	cache_write_ended(store, 1, &data, 0, PAGE);
	assert_int_equal(ref.bytes[511], 0);
	assert_int_equal(cache_find(store, 1, CACHE_LOOK, NULL, &reader), CACHE_NONE);
	for (uint64_t i = 100; i < 400; i++)
		touch(store, i);
	assert_int_equal(ref.bytes[511], 0);
	assert_int_equal(ref.bytes[512], 'n');
	cache_unpin(&ref);
	/* Two writes at once: nobody knows what is there. */
	touch(store, 2);
	cache_write_begins(store, 2, NULL);
	cache_write_begins(store, 2, NULL);
	cache_write_ended(store, 2, &data, 0, PAGE);
	assert_int_equal(cache_find(store, 2, CACHE_CLAIM, NULL, &ref), CACHE_NONE);
	cache_write_ended(store, 2, &data, 0, PAGE);
	assert_false(touch(store, 2));
	/* A write that failed: neither. */
	cache_write_begins(store, 2, NULL);
	cache_write_ended(store, 2, NULL, 0, PAGE);
	assert_false(touch(store, 2));
	/* A wide change drops all, and what is being filled. */
	touch(store, 3);
	assert_int_equal(cache_find(store, 4, CACHE_CLAIM, NULL, &ref), CACHE_CLAIMED);
	cache_wide_begins(store);
	assert_int_equal(cache_find(store, 3, CACHE_CLAIM, NULL, &reader), CACHE_NONE);
	cache_wide_ended(store);
	cache_filled(store, ref.page, true, nobody_waits);
	assert_false(touch(store, 3));
	assert_false(touch(store, 4));
	store_end(store);
}

/* --- disks ---------------------------------------------------------------------------- */

static json_int_t figure(struct layer *cache, const char *name)
{
	json_t *report = cache->ops->report(cache);
	json_int_t value;

	assert_non_null(report);
	value = json_integer_value(json_object_get(report, name));
	json_decref(report);
	return value;
}

static char directory[200], image[250];

static void make_image(void)
{
	int fd;

	snprintf(image, sizeof image, "%s/image", testing_directory(directory));
	fd = open(image, O_RDWR | O_CREAT | O_EXCL, 0600);
	for (unsigned i = 0; i < sizeof out; i++)
		out[i] = (unsigned char)(i / 512 * 7 + i % 509);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, out, sizeof out), sizeof out);
	close(fd);
}

static void remove_image(void)
{
	unlink(image);
	rmdir(directory);
}

static struct disk *cached(const char *name, const char *options, bool read_only)
{
	struct error err = { 0 };
	struct disk *disk;
	char text[400];

	snprintf(text, sizeof text, "cache %s | file path=%s", options, image);
	disk = testing_disk_of(name, text, 512, read_only, &err);
	if (!disk)
		fail_msg("%s", err.text);
	return disk;
}

static void assert_reads(struct disk *disk, uint64_t offset, size_t length)
{
	memset(in, 0x5a, length);
	assert_int_equal(testing_read(disk->top, offset, in, length), 0);
	assert_memory_equal(in, out + offset, length);
}

static void the_second_reader_hits(void **unused)
{
	struct disk *a, *b, *c;

	(void)unused;
	make_image();
	a = cached("a", "pool=golden size=16M read-ahead=0", true);
	b = cached("b", "pool=golden read-ahead=0", true);
	c = cached("c", "pool=other read-ahead=0", true);
	assert_reads(a, 0, MIB);
	assert_int_equal(figure(a->top, "misses"), 256);
	assert_reads(b, 0, MIB);
	assert_int_equal(figure(b->top, "misses"), 0);
	assert_int_equal(figure(b->top, "hits"), 256);
	assert_int_equal(figure(b->top, "used"), MIB);
	assert_int_equal(figure(b->top, "users"), 2);
	assert_reads(c, 0, MIB);
	assert_int_equal(figure(c->top, "misses"), 256);
	/* What one has read stays when it goes. */
	disk_close(a);
	assert_reads(b, 512, MIB - 1024);
	assert_int_equal(figure(b->top, "misses"), 0);
	disk_close(b);
	disk_close(c);
	remove_image();
}

static void writers_share_nothing(void **unused)
{
	struct disk *a = testing_disk("cache pool=p | memory size=1M");
	struct disk *b = testing_disk("cache pool=p | memory size=1M");

	(void)unused;
	memset(out, 'a', PAGE);
	assert_int_equal(testing_write(a->top, 0, out, PAGE), 0);
	assert_reads(a, 0, PAGE);
	memset(out, 0, PAGE);
	assert_reads(b, 0, PAGE);
	disk_close(a);
	disk_close(b);
}

static void odd_places(void **unused)
{
	static const struct {
		uint64_t offset, length;
	} reads[] = {
		{ 512, 512 },           { 3584, 1024 },       { 0, 4 * MIB - 512 },
		{ 4 * MIB - 512, 512 }, { MIB - 1536, 3072 }, { 0, MIB },
	};
	static const char *const pages[] = { "4K", "16K", "64K" };

	(void)unused;
	make_image();
	/* The image ends within a page. */
	assert_int_equal(truncate(image, 4 * MIB - 512), 0);
	memset(out + 4 * MIB - 512, 0, 512);
	for (unsigned p = 0; p < 3; p++)
		for (unsigned i = 0; i < sizeof reads / sizeof *reads; i++) {
			uint64_t offset = reads[i].offset, length = reads[i].length;
			char options[100];
			struct disk *disk;

			if (offset + length > 4 * MIB - 512)
				offset -= 512;
			snprintf(options, sizeof options, "page=%s size=64M", pages[p]);
			disk = cached("odd", options, true);
			assert_reads(disk, offset, length);
			assert_reads(disk, offset, length);
			assert_true(figure(disk->top, "hits") || length < 64 * KIB);
			disk_close(disk);
		}
	remove_image();
}

static void reads_ahead(void **unused)
{
	struct disk *disk;
	json_int_t misses;

	(void)unused;
	make_image();
	disk = cached("a", "size=16M read-ahead=256K", true);
	/* One queue, for what it remembers. */
	struct session *session = session_open(disk->top, NULL);

	assert_non_null(session);
	for (uint64_t at = 0; at < 2 * MIB; at += 16 * KIB) {
		assert_int_equal(session_read(session, at, in, 16 * KIB), 0);
		assert_memory_equal(in, out + at, 16 * KIB);
	}
	session_close(session);
	misses = figure(disk->top, "misses");
	print_message("# %" JSON_INTEGER_FORMAT " misses, %" JSON_INTEGER_FORMAT " read ahead\n",
		      misses, figure(disk->top, "read-ahead"));
	assert_true(misses <= 20);
	assert_true(figure(disk->top, "read-ahead") >= 480);
	disk_close(disk);
	/* Random reads have nothing read ahead. */
	disk = cached("a", "size=16M", true);
	for (uint64_t i = 0; i < 50; i++)
		assert_reads(disk, i * 37 % 64 * 64 * KIB, 4 * KIB);
	assert_int_equal(figure(disk->top, "read-ahead"), 0);
	disk_close(disk);
	remove_image();
}

static void what_fails(void **unused)
{
	struct error err = { 0 };
	struct disk *disk = testing_disk("cache | flaky errors=100% | memory size=1M"), *other;

	(void)unused;
	assert_int_equal(testing_read(disk->top, 0, in, 64 * KIB), -EIO);
	assert_int_equal(testing_read(disk->top, 512, in, 512), -EIO);
	assert_int_equal(testing_write(disk->top, 512, in, 512), -EIO);
	assert_int_equal(testing_do(disk->top, IO_FLUSH, 0, 0), -EIO);
	assert_int_equal(figure(disk->top, "hits"), 0);
	disk_close(disk);
	other = testing_disk_of("other", "cache page=64K size=1M | memory size=1M", 512, false,
				&err);
	assert_null(other);
	assert_non_null(strstr(err.text, "cache: size: 1M is too small for pages of 64K; 2M is"));
	disk = testing_disk("cache pool=p page=4K | memory size=1M");
	other = testing_disk_of("other", "cache pool=p page=8K | memory size=1M", 512, false, &err);
	assert_null(other);
	assert_non_null(strstr(err.text, "cache: page: pool p has pages of 4K; 8K is asked for"));
	disk_close(disk);
}

/* A write is done when it is in memory, and is below soon; until then the next one waits. */
static void unsafe_writes(void **unused)
{
	struct disk *disk = testing_disk("cache writeback=unsafe | delay delay=200ms ops=write | "
					 "memory size=1M");
	struct session *session = session_open(disk->top, NULL);
	struct layer *memory = disk->top->below->below;

	(void)unused;
	assert_non_null(session);
	memset(out, 'u', PAGE);
	/* The session ends a request when errands have ended too, so the time tells nothing here.
	 */
	assert_int_equal(session_write(session, PAGE, out, PAGE, 0), 0);
	assert_int_equal(session_read(session, PAGE, in, PAGE), 0);
	assert_memory_equal(in, out, PAGE);
	assert_int_equal(figure(disk->top, "misses"), 0);
	memset(out, 'v', PAGE);
	assert_int_equal(session_write(session, PAGE + 512, out, 512, IO_FUA), 0);
	assert_int_equal(session_do(session, IO_FLUSH, 0, 0, 0), 0);
	session_close(session);
	assert_int_equal(testing_read(memory, PAGE, in, PAGE), 0);
	assert_int_equal(in[511], 'u');
	assert_int_equal(in[512], 'v');
	assert_int_equal(in[1024], 'u');
	disk_close(disk);
	/* What is lost is told, and is not in the cache. */
	disk = testing_disk(
		"cache writeback=unsafe | flaky errors=100% ops=write | memory size=1M");
	assert_int_equal(testing_write(disk->top, 0, out, PAGE), 0);
	assert_int_equal(figure(disk->top, "lost"), 1);
	assert_int_equal(testing_read(disk->top, 0, in, PAGE), 0);
	assert_int_equal(in[0], 0);
	disk_close(disk);
}

/* --- several loops at once ------------------------------------------------------------- */

/*
 * Writers own blocks of pages that all share: writer w those with number % LOOPS == w. A block
 * holds a stamp that its writer counts up, at both ends. Readers, which are the same loops, must
 * never find a stamp older than one that was written before they began. Below is a file, because
 * the memory back-end leaves the order of bytes that are read and written at once to the processor.
 */
#define LOOPS   3u
#define SECTORS (64u * 8)
#define DEPTH   8u
#define ROUNDS  4000u

struct racer {
	struct loop *loop;
	struct loop_message start;
	struct disk_queue *queue;
	unsigned number, out, rounds;
	uint64_t random;
	struct race_io {
		bool out, write;
		uint64_t first, count;
		uint64_t least[64];
		unsigned char bytes[64 * 512] __attribute__((aligned(512)));
	} ios[DEPTH];
};

static struct race {
	struct disk *disk;
	struct racer racers[LOOPS];
	_Atomic uint64_t written[SECTORS]; /* stamps that were written, and completed */
	uint64_t issued[SECTORS];          /* by the owner alone */
	_Atomic bool busy[SECTORS];
	_Atomic unsigned wrong, ended;
} race;

static void race_on(struct racer *r);

static void race_done(struct layer *layer, struct io *io)
{
	struct racer *r = io->queue->owner;
	struct race_io *x = &r->ios[io_frame(io)->note[0]];

	(void)layer;
	for (uint64_t i = 0; i < x->count; i++) {
		uint64_t sector = x->first + i, *words = (uint64_t *)(void *)(x->bytes + i * 512);

		if (x->write) {
			atomic_store(&race.written[sector], race.issued[sector]);
			atomic_store(&race.busy[sector], false);
		} else if (words[0] < x->least[i] || words[63] < x->least[i]) {
			race.wrong++;
		}
	}
	race.wrong += io->status != 0;
	io_put(io);
	x->out = false;
	r->out--;
	race_on(r);
}

static void race_submit(struct racer *r, unsigned slot)
{
	struct race_io *x = &r->ios[slot];
	struct io *io = io_get(&r->queue->ios);
	uint64_t draw = chance_draw(&r->random) >> 8;

	x->out = true;
	x->write = draw % 3 == 0;
	x->count = x->write ? 1 : 1 + draw / 3 % 64;
	x->first = draw / 512 % (SECTORS - x->count + 1);
	if (x->write) {
		x->first -= x->first % LOOPS;
		x->first = (x->first + r->number) % SECTORS;
		/* One write of a block at a time, and by its owner. */
		if (x->first % LOOPS != r->number || atomic_exchange(&race.busy[x->first], true))
			x->write = false;
	}
	for (uint64_t i = 0; i < x->count; i++) {
		uint64_t *words = (uint64_t *)(void *)(x->bytes + i * 512);

		x->least[i] = atomic_load(&race.written[x->first + i]);
		if (x->write)
			words[0] = words[63] = ++race.issued[x->first + i];
	}
	io->op = x->write ? IO_WRITE : IO_READ;
	io->offset = x->first * 512;
	io->length = x->count * 512;
	io_vector(io)[0] = (struct iovec){ x->bytes, io->length };
	io->data = (struct io_data){ .vec = io_vector(io), .count = 1 };
	r->out++;
	r->rounds++;
	disk_submit(r->queue, io, race_done)->note[0] = slot;
}

/* After each batch of completions; the end is when no errand is under way either. */
static void race_settled(struct io_queue *queue)
{
	struct racer *r = queue->owner;

	if (r->rounds == ROUNDS && !r->out && !queue->inside) {
		r->rounds++;
		disk_queue_close(r->queue);
		race.ended++;
	}
}

static void race_on(struct racer *r)
{
	for (unsigned slot = 0; slot < DEPTH && r->rounds < ROUNDS; slot++)
		if (!r->ios[slot].out)
			race_submit(r, slot);
}

static void race_start(struct loop_message *message)
{
	struct racer *r = container_of(message, struct racer, start);

	r->queue = disk_queue_open(race.disk, r->loop, DEPTH, 1);
	assert_non_null(r->queue);
	r->queue->ios.owner = r;
	r->queue->ios.settled = race_settled;
	race_on(r);
}

static void run_race(const char *layers)
{
	char stack[400];
	int check;

	make_image();
	assert_int_equal(
		pwrite(check = open(image, O_RDWR), memset(out, 0, sizeof out), SECTORS * 512, 0),
		SECTORS * 512);
	close(check);
	snprintf(stack, sizeof stack, "%s | file path=%s direct=off", layers, image);
	race = (struct race){ .disk = testing_disk(stack) };
	for (unsigned i = 0; i < LOOPS; i++) {
		struct loop_config config = { .name = "racer", .engine = LOOP_THREADS, .cpu = -1 };
		struct racer *r = &race.racers[i];

		r->number = i;
		r->random = chance_seed(i + 1);
		r->start.run = race_start;
		r->loop = loop_create(&config, NULL);
		assert_non_null(r->loop);
		loop_send(r->loop, &r->start);
		assert_int_equal(loop_start(r->loop, NULL), 0);
	}
	/* While one runs it may wake the requests of another, on that one's loop. */
	while (race.ended < LOOPS)
		usleep(1000);
	for (unsigned i = 0; i < LOOPS; i++) {
		loop_stop(race.racers[i].loop);
		loop_destroy(race.racers[i].loop);
	}
	assert_int_equal(race.wrong, 0);
	disk_close(race.disk);
	/* What was written last is below. */
	check = open(image, O_RDONLY);
	assert_int_equal(pread(check, in, SECTORS * 512, 0), SECTORS * 512);
	close(check);
	for (unsigned i = 0; i < SECTORS; i++)
		assert_int_equal(*(uint64_t *)(void *)(in + i * 512), race.issued[i]);
	remove_image();
}

static void never_old_bytes(void **unused)
{
	(void)unused;
	/* Larger than the disk, smaller, and with requests that overtake one another below. */
	run_race("cache size=16M");
	run_race("cache size=80K read-ahead=64K");
	run_race("cache size=128K | flaky jitter=100us");
	run_race("cache size=16M page=16K | flaky jitter=50us ops=read");
	run_race("cache size=16M writeback=unsafe | flaky jitter=100us");
	run_race("cache size=130K writeback=unsafe read-ahead=0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_scan_leaves_the_hot_set),
		cmocka_unit_test(as_good_as_lru_otherwise),
		cmocka_unit_test(a_ghost_comes_to_stay),
		cmocka_unit_test(memory_is_bounded),
		cmocka_unit_test(writes_and_fills),
		cmocka_unit_test(the_second_reader_hits),
		cmocka_unit_test(writers_share_nothing),
		cmocka_unit_test(odd_places),
		cmocka_unit_test(reads_ahead),
		cmocka_unit_test(what_fails),
		cmocka_unit_test(unsafe_writes),
		cmocka_unit_test(never_old_bytes),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
