/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * overlay_load_test.c - parts of the same blocks written on several loops at once; a daemon that is
 * killed
 */
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "layer/overlay_testing.h"
#include "util/log.h"

#define LOOPS   3u
#define SECTORS 1536u /* that they share: each third one is one's own */
#define DEPTH   8u

/* One loop writes its own sectors, so that in each block others write, too; and reads them back. */
static struct writer {
	struct disk *disk;
	struct loop *loop, *control;
	struct disk_queue *queue;
	struct loop_message begin, end;
	unsigned number, issued, out;
	uint64_t random;
	unsigned char now[SECTORS]; /* what is in a sector; 0: what the base has */
	bool busy[SECTORS];
	struct slot {
		bool out;
		unsigned sector;
		unsigned char bytes[512];
		struct iovec vec;
	} slot[DEPTH];
	bool wrong;
} writers[LOOPS];
static _Atomic unsigned writing;

static void write_more(struct writer *w);

static void sector_done(struct layer *layer, struct io *io)
{
	struct writer *w = io->queue->owner;
	struct slot *slot = &w->slot[io_frame(io)->note[0]];

	(void)layer;
	w->wrong |= io->status != 0;
	if (io->op != IO_FLUSH)
		w->busy[slot->sector] = false;
	for (unsigned i = 0; io->op == IO_READ && i < 512; i++)
		w->wrong |= slot->bytes[i] != (w->now[slot->sector]
						       ? w->now[slot->sector]
						       : base_byte(slot->sector * 512 + i));
	slot->out = false;
	w->out--;
	io_put(io);
	write_more(w);
}

static void write_more(struct writer *w)
{
	while (w->out < DEPTH && w->issued < 3000) {
		unsigned slot = 0, sector;
		struct io *io;

		w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
		sector = (unsigned)(w->random >> 33) % (SECTORS / LOOPS) * LOOPS + w->number;
		w->issued++;
		if (w->busy[sector])
			continue;
		while (w->slot[slot].out)
			slot++;
		io = io_get(&w->queue->ios);
		w->slot[slot].out = true;
		w->slot[slot].sector = sector;
		w->slot[slot].vec = (struct iovec){ w->slot[slot].bytes, 512 };
		io->op = w->issued % 3 == 0 ? IO_READ : w->issued % 64 == 1 ? IO_FLUSH : IO_WRITE;
		io->flags = io->op == IO_WRITE && w->issued % 32 == 1 ? IO_FUA : 0;
		io->offset = io->op == IO_FLUSH ? 0 : sector * 512;
		io->length = io->op == IO_FLUSH ? 0 : 512;
		io->data = (struct io_data){ .vec = &w->slot[slot].vec, .count = 1 };
		if (io->op != IO_FLUSH)
			w->busy[sector] = true;
		if (io->op == IO_WRITE) {
			w->now[sector] = (unsigned char)(w->issued % 255 + 1);
			memset(w->slot[slot].bytes, w->now[sector], 512);
		}
		w->out++;
		disk_submit(w->queue, io, sector_done)->note[0] = slot;
	}
	if (!w->out)
		loop_send(w->loop, &w->end);
}

static void writer_begins(struct loop_message *message)
{
	struct writer *w = container_of(message, struct writer, begin);

	w->queue = disk_queue_open(w->disk, w->loop, DEPTH, 1);
	w->queue->ios.owner = w;
	write_more(w);
}

static struct layer_stop writers_stop;

static void writers_over(struct loop_message *message)
{
	(void)message;
	loop_stop(writers_stop.loop);
}

static void all_written(struct loop_message *message)
{
	(void)message;
	writers_stop.done.run = writers_over;
	assert_int_equal(disk_stop(writers[0].disk, &writers_stop), 0);
}

static struct loop_message written_all;

static void writer_ends(struct loop_message *message)
{
	struct writer *w = container_of(message, struct writer, end);

	disk_queue_close(w->queue);
	if (atomic_fetch_sub(&writing, 1) == 1)
		loop_send(w->control, &written_all);
}

static void expect_sectors(struct disk *disk)
{
	unsigned char bytes[512];

	for (unsigned sector = 0; sector < SECTORS; sector++) {
		const struct writer *w = &writers[sector % LOOPS];

		assert_int_equal(testing_io(disk, LOOP_AUTO, IO_READ, 0, sector * 512, 512, bytes),
				 0);
		for (unsigned i = 0; i < 512; i++)
			assert_int_equal(bytes[i], w->now[sector] ? w->now[sector]
								  : base_byte(sector * 512 + i));
	}
}

static void parts_of_blocks_on_several_loops(void **unused)
{
	const struct loop_config config = { .name = "overlay", .cpu = -1 };
	const char *const copy[] = { "copy-on-read", "true", NULL };
	struct disk *disk = open_with(copy);
	struct error err = { 0 };

	(void)unused;
	written_all.run = all_written;
	writers_stop.loop = loop_create(&config, &err);
	atomic_store(&writing, LOOPS);
	for (unsigned i = 0; i < LOOPS; i++) {
		writers[i] = (struct writer){ .disk = disk,
					      .control = writers_stop.loop,
					      .begin.run = writer_begins,
					      .end.run = writer_ends,
					      .number = i,
					      .random = i };
		writers[i].loop = loop_create(&config, &err);
		loop_send(writers[i].loop, &writers[i].begin);
		assert_int_equal(loop_start(writers[i].loop, &err), 0);
	}
	assert_int_equal(loop_run(writers_stop.loop, &err), 0);
	for (unsigned i = 0; i < LOOPS; i++) {
		loop_stop(writers[i].loop);
		loop_destroy(writers[i].loop);
		assert_false(writers[i].wrong);
	}
	loop_destroy(writers_stop.loop);
	expect_sectors(disk);
	disk_close(disk);
	disk = open_disk();
	expect_sectors(disk);
	disk_close(disk);
}

/* The write number @n of the child: to which of 64 places, and what. */
static unsigned place_of(unsigned n)
{
	return n * 7 % 64;
}

static int value_of(unsigned n)
{
	return (int)(n % 250 + 1);
}

static void write_until_killed(int tell)
{
	struct disk *disk = open_disk();

	for (unsigned n = 1;; n++) {
		write_at(disk, place_of(n) * 65536 + 4096, 8192, value_of(n));
		if (write(tell, &n, sizeof n) != sizeof n)
			_exit(1);
		if (n % 40 == 0)
			flush(disk);
	}
}

/* A guest goes on when the daemon is killed: all that was completed must be there, flushed or not.
 */
static void a_killed_daemon_loses_nothing(void **unused)
{
	unsigned n = 0, value;
	struct disk *disk;
	int pipes[2];
	pid_t child;

	(void)unused;
	disk_close(open_disk());
	assert_int_equal(pipe(pipes), 0);
	child = fork();
	if (!child)
		write_until_killed(pipes[1]);
	close(pipes[1]);
	while (n < 150 && read(pipes[0], &n, sizeof n) == sizeof n)
		;
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
	while (read(pipes[0], &value, sizeof value) == sizeof value)
		n = value;
	close(pipes[0]);
	assert_true(n >= 150);
	for (unsigned again = 0; again < 2; again++) {
		disk = open_disk();
		/* The next one may have been done, or a part of it; that it was is not said. */
		for (unsigned k = n; k > n - 63; k--) {
			if (place_of(k) == place_of(n + 1))
				continue;
			expect(disk, place_of(k) * 65536, 4096, BASE);
			expect(disk, place_of(k) * 65536 + 4096, 8192, value_of(k));
		}
		disk_close(disk);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		OVERLAY_TEST(parts_of_blocks_on_several_loops),
		OVERLAY_TEST(a_killed_daemon_loses_nothing),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("overlay load", tests, NULL, NULL);
}
