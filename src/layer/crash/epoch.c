/* SPDX-License-Identifier: BSD-3-Clause */
/* epoch.c - a guest's requests on a disk in a world; see epoch.h */
#include "layer/crash/epoch.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"

#define DEPTH   8u
#define LONGEST 48u /* sectors of a request */
#define QUIET                                                                                      \
	150u /* turns of the loop without a request to a device: some seconds, see clock.c         \
	      */
#define PATIENCE (100000ull * 1000000000) /* ns, of which each turn takes some 10 ms */

enum phase { READS_FIRST, WORKS, READS_LAST, SETTLES, READS_SETTLED, OVER };

struct request {
	bool out;
	enum io_op op;
	uint32_t sector, count, came; /* came: event */
	unsigned char *bytes;
};

static struct epoch {
	const struct scene *scene;
	struct world *world;
	struct model *model;
	const struct epoch_plan *plan;
	char *why;
	bool wrong;
	uint32_t sector; /* that was wrong */

	struct loop *loop;
	struct loop_message begin, turn;
	struct loop_timer watchdog;
	struct layer_stop stop;
	struct disk *disk;
	struct disk_queue *queue;
	struct chance chance;

	struct request request[DEPTH];
	unsigned out, issued;
	enum phase phase;
	uint32_t next; /* sectors gone over */
	uint32_t active;
	unsigned quiet;
	bool ending, closed;
} epoch;

uint32_t epoch_stamps(uint32_t count)
{
	static uint32_t last;

	last += count;
	return last - count + 1;
}

uint32_t epoch_wrong_sector(void)
{
	return epoch.sector;
}

static void __attribute__((format(printf, 1, 2))) wrong(const char *format, ...)
{
	va_list args;

	if (epoch.wrong)
		return;
	epoch.wrong = true;
	va_start(args, format);
	vsnprintf(epoch.why, 600, format, args);
	va_end(args);
}

static bool note(struct event event)
{
	uint32_t index = world_note(epoch.world, event);

	return model_follow(epoch.model, epoch.world->log, index);
}

static void check_sector(const struct request *r, uint32_t i)
{
	uint32_t sector = r->sector + i;
	uint32_t stamp = stamp_read(r->bytes + (uint64_t)i * SECTOR, sector);
	char may[400];

	epoch.model->sector[sector].readers--;
	if (note((struct event){ .kind = GUEST_READ, .sector = sector, .stamp = stamp }))
		return;
	model_describe(epoch.model, sector, may, sizeof may);
	if (!epoch.wrong)
		epoch.sector = sector;
	if (stamp == UINT32_MAX)
		wrong("sector %u is garbage (begins %02x %02x %02x %02x); it may be %s", sector,
		      r->bytes[i * SECTOR], r->bytes[i * SECTOR + 1], r->bytes[i * SECTOR + 2],
		      r->bytes[i * SECTOR + 3], may);
	else
		wrong("sector %u is %u; it may be %s", sector, stamp, may);
}

static void completed(struct layer *layer, struct io *io)
{
	struct request *r = &epoch.request[io_frame(io)->note[0]];

	(void)layer;
	if (!r->out)
		wrong("a request came back twice");
	r->out = false;
	epoch.out--;
	if (io->status && io->op != IO_DISCARD)
		wrong("a %s failed with %d", io_op_name(io->op), io->status);
	if (r->op == IO_READ) {
		for (uint32_t i = 0; i < r->count; i++)
			check_sector(r, i);
	} else {
		note((struct event){ .kind = r->op == IO_FLUSH ? GUEST_FLUSHED : GUEST_WRITTEN,
				     .of = r->came,
				     .weak = io->status != 0 });
	}
	free(r->bytes);
	r->bytes = NULL;
	io_put(io);
}

static void submit(enum io_op op, uint32_t sector, uint32_t count)
{
	struct io *io = io_get(&epoch.queue->ios);
	unsigned slot = 0;
	struct request *r;
	struct event event = { .kind = GUEST_WRITE, .sector = sector, .count = count };

	while (epoch.request[slot].out)
		slot++;
	r = &epoch.request[slot];
	*r = (struct request){ .op = op, .out = true, .sector = sector, .count = count };
	io->op = (uint8_t)op;
	io->offset = (uint64_t)sector * SECTOR;
	io->length = (uint64_t)count * SECTOR;
	if ((op == IO_WRITE || op == IO_ZEROES) && chance_of(&epoch.chance, 8) == 0)
		io->flags = IO_FUA;
	if (op == IO_ZEROES && chance_of(&epoch.chance, 2))
		io->flags |= IO_UNMAP;
	if (op == IO_READ || op == IO_WRITE) {
		r->bytes = malloc(io->length);
		if (!r->bytes)
			abort();
		io_vector(io)[0] = (struct iovec){ r->bytes, io->length };
		io->data = (struct io_data){ .vec = io_vector(io), .count = 1 };
	}
	if (op == IO_WRITE) {
		event.stamp = epoch_stamps(count);
		for (uint32_t i = 0; i < count; i++)
			stamp_write(event.stamp + i, sector + i, r->bytes + (uint64_t)i * SECTOR);
	}
	if (op == IO_FLUSH)
		event.kind = GUEST_FLUSH;
	event.fua = io->flags & IO_FUA;
	event.weak = op == IO_DISCARD;
	if (op == IO_READ) {
		for (uint32_t i = 0; i < count; i++)
			epoch.model->sector[sector + i].readers++;
	} else {
		r->came = epoch.world->events;
		note(event);
	}
	epoch.out++;
	disk_submit(epoch.queue, io, completed)->note[0] = slot;
}

/* Nothing under way is in its way, and the model can hold one version more. */
static bool is_free(enum io_op op, uint32_t sector, uint32_t count)
{
	for (uint32_t i = sector; i < sector + count; i++) {
		const struct sector *s = &epoch.model->sector[i];

		if (s->changing)
			return false;
		if (op != IO_READ && (s->readers || !model_has_room(epoch.model, i)))
			return false;
	}
	return true;
}

static void issue(void)
{
	static const enum io_op ops[] = { IO_READ,  IO_READ,  IO_WRITE, IO_WRITE,  IO_WRITE,
					  IO_WRITE, IO_WRITE, IO_FLUSH, IO_ZEROES, IO_DISCARD };
	struct chance *c = &epoch.chance;
	enum io_op op = ops[chance_of(c, sizeof ops / sizeof *ops)];
	uint32_t unit = epoch.disk->block_size / SECTOR, sectors = epoch.scene->sectors;
	uint32_t count = unit * (1 + (uint32_t)chance_of(c, chance_of(c, 3) ? 3 : LONGEST / unit));
	uint32_t sector;

	/* Most go to a small part, so that there are versions over versions. */
	if (chance_of(c, 4))
		sectors = sectors / 8 > count ? sectors / 8 : sectors;
	sector = (uint32_t)chance_of(c, (sectors - count) / unit + 1) * unit;
	epoch.issued++;
	if (op == IO_FLUSH)
		submit(op, 0, 0);
	else if (is_free(op, sector, count))
		submit(op, sector, count);
}

/* Reads all of the disk, a piece after the other but several at once. */
static bool go_over(void)
{
	uint32_t unit = epoch.disk->block_size / SECTOR;

	while (epoch.out < DEPTH && epoch.next < epoch.scene->sectors) {
		uint32_t count = unit * (1 + (uint32_t)chance_of(&epoch.chance, 96 / unit));

		if (count > epoch.scene->sectors - epoch.next)
			count = epoch.scene->sectors - epoch.next;
		submit(IO_READ, epoch.next, count);
		epoch.next += count;
	}
	return epoch.next < epoch.scene->sectors || epoch.out;
}

static void pump(struct io_queue *queue);

static void ended(struct loop_message *message)
{
	(void)message;
	epoch.closed = true;
	loop_stop(epoch.loop);
}

/* Not inside the queue's own call. Errands of layers may still be under way. */
static void close_all(struct loop_message *message)
{
	(void)message;
	disk_queue_close(epoch.queue);
	if (disk_stop(epoch.disk, &epoch.stop))
		abort();
}

/* One turn after another until the devices have been quiet for a while. */
static void turned(struct loop_message *message)
{
	if (epoch.active == epoch.world->active && ++epoch.quiet == QUIET) {
		epoch.phase++;
		epoch.next = 0;
		pump(&epoch.queue->ios);
		return;
	}
	if (epoch.active != epoch.world->active)
		epoch.quiet = 0;
	epoch.active = epoch.world->active;
	loop_send(epoch.loop, message);
}

static void next_phase(void)
{
	epoch.phase++;
	epoch.next = 0;
	if (epoch.phase == SETTLES) {
		if (epoch.plan->settles)
			loop_send(epoch.loop, &epoch.turn);
		else
			epoch.phase = OVER;
	}
}

/* At the beginning, and after each batch of completions. */
static void pump(struct io_queue *queue)
{
	const struct epoch_plan *plan = epoch.plan;

	(void)queue;
	for (;;) {
		if (epoch.wrong)
			epoch.phase = OVER;
		switch (epoch.phase) {
		case READS_FIRST:
			if (plan->reads_first && go_over())
				return;
			break;
		case WORKS:
			while (epoch.issued < plan->requests && epoch.out < DEPTH)
				issue();
			if (epoch.out)
				return;
			break;
		case READS_LAST:
			if (plan->reads_last && go_over())
				return;
			break;
		case SETTLES:
			return;
		case READS_SETTLED:
			if (go_over())
				return;
			break;
		case OVER:
			if (!epoch.out && !epoch.ending) {
				epoch.ending = true;
				epoch.turn.run = close_all;
				loop_send(epoch.loop, &epoch.turn);
			}
			return;
		}
		next_phase();
	}
}

static void begin(struct loop_message *message)
{
	(void)message;
	epoch.queue = disk_queue_open(epoch.disk, epoch.loop, DEPTH, 1);
	if (!epoch.queue)
		abort();
	epoch.queue->ios.settled = pump;
	pump(&epoch.queue->ios);
}

static void stuck(struct loop_timer *timer)
{
	(void)timer;
	wrong("%u requests did not come back, or its own work did not end", epoch.out);
	loop_stop(epoch.loop);
}

enum epoch_result epoch_run(const struct scene *scene, struct world *world, struct model *model,
			    const struct epoch_plan *plan, char *why)
{
	struct loop_config config = { .name = "crash", .engine = LOOP_THREADS, .cpu = -1 };
	struct error err = { 0 };

	world_enter(world);
	world_begin(world);
	epoch = (struct epoch){
		.scene = scene,
		.world = world,
		.model = model,
		.plan = plan,
		.why = why,
		.sector = UINT32_MAX,
		.begin.run = begin,
		.turn.run = turned,
		.stop.done.run = ended,
		.chance = chance_seed(plan->seed),
	};
	epoch.disk = disk_open("crash", &scene->config, &scene->stack, NULL, &err);
	if (!epoch.disk) {
		snprintf(why, 600, "%s", err.text);
		return EPOCH_REFUSED;
	}
	if (epoch.disk->size < (uint64_t)scene->sectors * SECTOR) {
		snprintf(why, 600, "the disk has only %llu bytes",
			 (unsigned long long)epoch.disk->size);
		disk_close(epoch.disk);
		return EPOCH_WRONG;
	}
	epoch.loop = loop_create(&config, NULL);
	if (!epoch.loop)
		abort();
	epoch.stop.loop = epoch.loop;
	loop_timer_init(&epoch.watchdog, stuck);
	loop_timer_set(epoch.loop, &epoch.watchdog, loop_now(epoch.loop) + PATIENCE);
	disk_start(epoch.disk, epoch.loop);
	loop_send(epoch.loop, &epoch.begin);
	if (loop_run(epoch.loop, NULL))
		abort();
	loop_destroy(epoch.loop);
	if (!epoch.closed)
		return EPOCH_WRONG; /* something is still inside: it cannot be closed */
	disk_close(epoch.disk);
	return epoch.wrong ? EPOCH_WRONG : EPOCH_GOOD;
}
