/* SPDX-License-Identifier: BSD-3-Clause */
/* device.c - devices in memory, the back-end for them, and what a power cut leaves; see device.h */
#include "layer/crash/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"

static struct world *current;

/* --- worlds ------------------------------------------------------------------------------- */

static void *get(size_t bytes)
{
	void *memory = calloc(1, bytes ? bytes : 1);

	if (!memory)
		abort();
	return memory;
}

struct world *world_create(unsigned devices, const uint64_t *sizes, uint64_t seed)
{
	struct world *w = get(sizeof *w);

	w->devices = devices;
	w->chance = chance_seed(seed);
	for (unsigned i = 0; i < devices; i++) {
		w->device[i] = (struct device){ .size = sizes[i],
						.bytes = get(sizes[i]),
						.discards = chance_of(&w->chance, 2) };
		w->start[i] = get(sizes[i]);
	}
	return w;
}

static void forget(struct world *w)
{
	for (uint32_t i = 0; i < w->events; i++)
		free(w->log[i].data);
	w->events = 0;
	while (w->files) {
		struct host_file *file = w->files;

		w->files = file->next;
		free(file);
	}
}

void world_free(struct world *w)
{
	if (!w)
		return;
	forget(w);
	free(w->found);
	free(w->log);
	for (unsigned i = 0; i < w->devices; i++) {
		free(w->device[i].bytes);
		free(w->start[i]);
	}
	if (current == w)
		current = NULL;
	free(w);
}

void world_enter(struct world *w)
{
	current = w;
}

void world_begin(struct world *w)
{
	forget(w);
	host_put(w->found);
	for (unsigned i = 0; i < w->devices; i++)
		memcpy(w->start[i], w->device[i].bytes, w->device[i].size);
	/* So that the index 0 can mean none. */
	world_note(w, (struct event){ .kind = GUEST_FLUSH });
}

uint32_t world_note(struct world *w, struct event event)
{
	struct host_file *file = host_look(w->files);

	if (file && file != w->files) {
		file->next = w->files;
		w->files = file;
	}
	event.host = file;
	if (w->events == w->room) {
		w->room = w->room ? 2 * w->room : 256;
		w->log = realloc(w->log, w->room * sizeof *w->log);
		if (!w->log)
			abort();
	}
	w->log[w->events] = event;
	return w->events++;
}

/* --- the back-end ----------------------------------------------------------------------------- */

struct device_layer {
	struct layer layer;
	uint64_t number;
	struct device *device;
};

/* Requests that are not answered yet. */
struct device_queue {
	struct device_layer *layer;
	struct loop_message message;
	struct io *first;
	unsigned count;
	struct loop *loop;
};

/* of a frame: the event with which it came */
enum { NOTE_EVENT };

static int device_open(struct layer *layer, struct error *err)
{
	struct device_layer *l = (struct device_layer *)layer;

	if (!current || l->number >= current->devices)
		return error_set(err, ENODEV, "there is no device %u", (unsigned)l->number);
	l->device = &current->device[l->number];
	if (l->device->absent || l->device->dead)
		return error_set(err, ENOENT, "device %u is absent", (unsigned)l->number);
	return 0;
}

static void device_limits(struct layer *layer, struct limits *limits)
{
	const struct device_layer *l = (const struct device_layer *)layer;

	limits->size = l->device->size;
	limits->block_size = SECTOR;
	limits->physical_block_size = SECTOR;
	limits->discard = l->device->discards;
}

static void device_come(struct layer *layer, struct io *io)
{
	struct device_layer *l = (struct device_layer *)layer;
	struct device_queue *q = layer_queue_state(layer, io->queue);
	struct event event = { .kind = DEVICE_WRITE,
			       .device = (uint8_t)l->number,
			       .fua = io->flags & IO_FUA,
			       .sector = (uint32_t)(io->offset / SECTOR),
			       .count = (uint32_t)(io->length / SECTOR) };

	if (io->op == IO_FLUSH)
		event.kind = DEVICE_FLUSH;
	if (io->op == IO_WRITE) {
		event.data = get(io->length);
		io_data_copy_out(io->data, event.data, io->length);
	}
	if (io->op != IO_FLUSH && (io->length % SECTOR || io->offset % SECTOR ||
				   io->offset + io->length > l->device->size))
		abort(); /* a layer sent what its limits forbid */
	if (io->op != IO_READ && (io->op != IO_DISCARD || l->device->discards))
		io->frame[io->depth - 1].note[NOTE_EVENT] = world_note(current, event);
	current->active++;
	io->next = q->first;
	q->first = io;
	if (!q->count++)
		loop_send(q->loop, &q->message);
}

static void device_done(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, io->status);
}

static void device_submit(struct layer *layer, struct io *io)
{
	io_push(layer, io, device_done);
	device_come(layer, io);
}

/* Does @io, in which a device may die. */
static int device_do(struct device *d, struct io *io)
{
	uint32_t came = (uint32_t)io->frame[io->depth - 1].note[NOTE_EVENT];
	const struct event *event = &current->log[came];
	unsigned char *at = d->bytes + io->offset;

	if (d->dies_in && !--d->dies_in)
		d->dead = true;
	if (d->dead)
		return -EIO;
	switch (io->op) {
	case IO_READ:
		io_data_copy_in(io->data, at, io->length);
		return 0;
	case IO_WRITE:
		memcpy(at, event->data, io->length);
		break;
	case IO_DISCARD:
		if (!d->discards)
			return 0;
		/* fall through */
	case IO_ZEROES:
		memset(at, 0, io->length);
		break;
	default:
		world_note(current, (struct event){ .kind = DEVICE_FLUSHED,
						    .device = event->device,
						    .of = came });
		return 0;
	}
	world_note(current,
		   (struct event){ .kind = DEVICE_WRITTEN, .device = event->device, .of = came });
	return 0;
}

/* Some of those that wait, in any order. */
static void device_answer(struct loop_message *message)
{
	struct device_queue *q = container_of(message, struct device_queue, message);
	unsigned answers = 1 + (unsigned)chance_of(&current->chance, q->count);

	while (answers--) {
		struct io **at = &q->first, *io;

		for (uint64_t skip = chance_of(&current->chance, q->count); skip; skip--)
			at = &(*at)->next;
		io = *at;
		*at = io->next;
		q->count--;
		io_finish(io, device_do(q->layer->device, io));
	}
	if (q->count)
		loop_send(q->loop, &q->message);
}

static int device_queue_open(struct layer *layer, struct io_queue *queue)
{
	struct device_queue *q = layer_queue_state(layer, queue);

	q->layer = (struct device_layer *)layer;
	q->loop = queue->loop;
	q->message.run = device_answer;
	q->layer->device->queues++;
	return 0;
}

static void device_queue_close(struct layer *layer, struct io_queue *queue)
{
	struct device_queue *q = layer_queue_state(layer, queue);

	if (q->count)
		abort(); /* a queue was closed over requests that had not come back */
	q->layer->device->queues--;
}

static const struct option device_options[] = {
	{ .name = "device",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct device_layer, number),
	  .required = true },
	{ 0 },
};

const struct layer_ops device_ops = {
	.name = "device",
	.size = sizeof(struct device_layer),
	.options = device_options,
	.backend = true,
	.queue_state = sizeof(struct device_queue),
	.open = device_open,
	.limits = device_limits,
	.queue_open = device_queue_open,
	.queue_close = device_queue_close,
	.submit = device_submit,
};

/* --- cutting the power ------------------------------------------------------------------ */

void cut_begin(struct cut *cut, const struct world *world)
{
	*cut = (struct cut){ .world = world };
	for (unsigned i = 0; i < world->devices; i++) {
		cut->stable[i] = get(world->device[i].size);
		memcpy(cut->stable[i], world->start[i], world->device[i].size);
	}
}

void cut_end(struct cut *cut)
{
	for (unsigned i = 0; i < cut->world->devices; i++)
		free(cut->stable[i]);
	for (unsigned i = 0; i < cut->count; i++)
		free(cut->writes[i].gone);
	free(cut->writes);
}

static const struct event *event_of(const struct cut *cut, const struct uncertain *write)
{
	return &cut->world->log[write->event];
}

static void put_sector(unsigned char *image, const struct event *e, uint32_t i)
{
	unsigned char *at = image + (uint64_t)(e->sector + i) * SECTOR;

	if (e->data)
		memcpy(at, e->data + (uint64_t)i * SECTOR, SECTOR);
	else
		memset(at, 0, SECTOR);
}

static void make_stable(struct cut *cut, const struct uncertain *write)
{
	const struct event *e = event_of(cut, write);

	for (uint32_t i = 0; i < e->count; i++)
		if (!write->gone || !write->gone[i])
			put_sector(cut->stable[e->device], e, i);
}

static void drop(struct cut *cut, unsigned n)
{
	free(cut->writes[n].gone);
	cut->count--;
	memmove(&cut->writes[n], &cut->writes[n + 1], (cut->count - n) * sizeof *cut->writes);
}

/* What was completed before @e, which is stable, and lies under it, will never be seen. */
static void bury(struct cut *cut, const struct event *e, unsigned before)
{
	for (unsigned n = 0; n < before; n++) {
		struct uncertain *write = &cut->writes[n];
		const struct event *old = event_of(cut, write);

		if (!write->done || old->device != e->device)
			continue;
		for (uint32_t i = 0; i < old->count; i++) {
			if (old->sector + i < e->sector || old->sector + i >= e->sector + e->count)
				continue;
			if (!write->gone)
				write->gone = get(old->count);
			write->gone[i] = 1;
		}
	}
}

static void written(struct cut *cut, uint32_t came, uint32_t done)
{
	const struct event *e = &cut->world->log[came];
	struct uncertain write;
	unsigned n = 0, to = 0;

	while (cut->writes[n].event != came)
		n++;
	write = cut->writes[n];
	write.done = done;
	while (to < cut->count && cut->writes[to].done)
		to++;
	if (e->fua) {
		make_stable(cut, &write);
		bury(cut, e, to);
		drop(cut, n);
		return;
	}
	/* To the end of those that are completed. */
	memmove(&cut->writes[to + 1], &cut->writes[to], (n - to) * sizeof write);
	cut->writes[to] = write;
}

static void flushed(struct cut *cut, const struct event *flush)
{
	for (unsigned n = 0; n < cut->count;) {
		const struct uncertain *write = &cut->writes[n];

		if (event_of(cut, write)->device == flush->device && write->done &&
		    write->done < flush->of) {
			make_stable(cut, write);
			drop(cut, n);
		} else {
			n++;
		}
	}
}

void cut_follow(struct cut *cut, uint32_t event)
{
	for (; cut->at <= event; cut->at++) {
		const struct event *e = &cut->world->log[cut->at];

		switch (e->kind) {
		case DEVICE_WRITE:
			if (cut->count == cut->room) {
				cut->room = cut->room ? 2 * cut->room : 64;
				cut->writes = realloc(cut->writes, cut->room * sizeof *cut->writes);
				if (!cut->writes)
					abort();
			}
			cut->writes[cut->count++] = (struct uncertain){ .event = cut->at };
			break;
		case DEVICE_WRITTEN:
			written(cut, e->of, cut->at);
			break;
		case DEVICE_FLUSHED:
			flushed(cut, e);
			break;
		default:
			break;
		}
	}
}

void cut_draw(const struct cut *cut, enum cut_kind kind, struct chance *chance, struct fate *fates)
{
	static const unsigned shares[] = { 0, 10, 50, 90, 100 };
	/* How a cache writes itself out differs: often all or nothing, in order or at random. */
	unsigned kept = shares[chance_of(chance, 5)], torn = chance_of(chance, 2) ? 30 : 0;
	bool prefix = chance_of(chance, 3) == 0;
	uint64_t last = chance_of(chance, cut->count + 1);

	for (unsigned n = 0; n < cut->count; n++) {
		uint32_t sectors = event_of(cut, &cut->writes[n])->count;

		if (kind == KILL && cut->writes[n].done) {
			fates[n] = (struct fate){ KEPT, 0 };
			continue;
		}
		fates[n].kind = chance_of(chance, 100) < kept ? KEPT : LOST;
		if (prefix && kind == POWER)
			fates[n].kind = n < last ? KEPT : LOST;
		if (sectors > 1 && chance_of(chance, 100) < torn) {
			fates[n].kind = HEAD + (int)chance_of(chance, 3);
			fates[n].where = 1 + (uint32_t)chance_of(chance, sectors - 1);
		}
	}
}

static bool sector_kept(struct fate fate, uint32_t i)
{
	switch (fate.kind) {
	case LOST:
		return false;
	case KEPT:
		return true;
	case HEAD:
		return i < fate.where;
	case TAIL:
		return i >= fate.where;
	default:
		return (fate.where * 2654435761u ^ i * 40503u) >> 7 & 1;
	}
}

struct world *cut_world(const struct cut *cut, enum cut_kind kind, const struct fate *fates,
			uint64_t seed)
{
	uint64_t sizes[DEVICES_MAX];
	const struct host_file *host;
	struct world *w;

	for (unsigned i = 0; i < cut->world->devices; i++)
		sizes[i] = cut->world->device[i].size;
	w = world_create(cut->world->devices, sizes, seed);
	host = cut->at ? cut->world->log[cut->at - 1].host : NULL;
	if (kind == KILL && host) {
		w->found = get(sizeof *host + host->size);
		memcpy(w->found, host, sizeof *host + host->size);
	}
	for (unsigned i = 0; i < w->devices; i++) {
		w->device[i].discards = cut->world->device[i].discards;
		memcpy(w->device[i].bytes, cut->stable[i], sizes[i]);
	}
	for (unsigned n = 0; n < cut->count; n++) {
		const struct uncertain *write = &cut->writes[n];
		const struct event *e = event_of(cut, write);

		for (uint32_t i = 0; i < e->count; i++)
			if (sector_kept(fates[n], i) && !(write->gone && write->gone[i]))
				put_sector(w->device[e->device].bytes, e, i);
	}
	return w;
}
