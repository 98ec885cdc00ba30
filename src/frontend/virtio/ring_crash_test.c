/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ring_crash_test.c - a device that is killed between any two of its instructions, and the
 * successor that recovers from what it left
 *
 * The ring formats are compiled into this program without sanitizers, as they are shipped.
 * Each of their operations runs with the processor's trap flag set, so that SIGTRAP comes after
 * every instruction; the handler compares the memory that outlives a process (ring and inflight
 * region) with what it was. Whenever a store has changed it, that memory is copied, as a
 * SIGKILL at this instant would leave it, and a successor is started on the copy. Checked is,
 * from the driver's side:
 *
 *   - what the successor pops is exactly what the driver made available and was not shown as
 *     used, each chain once, in the order in which it was made available;
 *   - the driver is shown each chain once, with the length that belongs to it, and nothing else;
 *   - ring and region go on to work: everything is completed, then a second round of requests.
 *
 * The driver lives while the device dies. So it takes used buffers and adds new ones between any
 * two instructions, and between a crash and the recovery. From time to time the device
 * really dies where it stands, and the next generation, recovery included, is stepped in the
 * same way: so recoveries are interrupted too.
 *
 * A device that gives chains back in order does without an inflight region: then the ring itself
 * must tell a successor where to go on. (Packed: with chains of one descriptor, as they all are of
 * a driver that uses indirect ones.)
 *
 * SEED repeats a run, STEPS makes it longer.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "frontend/virtio/virtqueue.h"

#define ENTRIES  16 /* of the largest ring */
#define SEGMENTS 3  /* of the longest chain */
#define STEPS    50000u

/* Everything that the device shares with the driver and with its successor. */
struct arena {
	/* The device stores only here. */
	_Alignas(64) unsigned char descriptors[ENTRIES * 16];
	_Alignas(64) unsigned char driver[64];
	_Alignas(64) unsigned char device[192];
	_Alignas(64) unsigned char inflight[64 + ENTRIES * 32];
	/* The driver's tables of indirect descriptors, one for each chain. */
	_Alignas(64) union {
		struct vring_desc split;
		struct vring_packed_desc packed;
	} table[ENTRIES][SEGMENTS];
};
#define STORED offsetof(struct arena, table)

/* --- chance ------------------------------------------------------------------------- */

static uint64_t seed, state;

static unsigned chance(unsigned n)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (unsigned)((state * 0x2545f4914f6cdd1dull >> 33) % n);
}

/* --- failure ------------------------------------------------------------------------ */

static char failure[400];

static void __attribute__((format(printf, 1, 2))) wrong(const char *format, ...)
{
	va_list args;

	if (*failure)
		return;
	va_start(args, format);
	vsnprintf(failure, sizeof failure, format, args);
	va_end(args);
}

/* --- what the rings want of virtqueue.c ------------------------------------------------ */

/* The arena that the device under way works on. */
static struct arena *arena_now;

int virtqueue_break(struct virtqueue *vq, const char *format, ...)
{
	char reason[200];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof reason, format, args);
	va_end(args);
	vq->broken = true;
	wrong("the device broke: %s", reason);
	return -EINVAL;
}

/* Addresses are not looked up: what the driver wrote comes back as it is. */
int chain_add(struct virtqueue *vq, struct chain *chain, const struct descriptor *d,
	      struct iovec *vec, unsigned room)
{
	unsigned n = chain->readable + chain->writable;

	if (n == room)
		return virtqueue_break(vq, "a chain of more than %u segments", room);
	vec[n] = (struct iovec){ (void *)(uintptr_t)d->address, d->length };
	if (d->writable) {
		chain->writable++;
		chain->write_bytes += d->length;
	} else {
		chain->readable++;
	}
	return 0;
}

const void *chain_table(struct virtqueue *vq, uint64_t address, uint32_t length, unsigned *entries)
{
	if (address >= ENTRIES || length % sizeof(struct vring_desc) ||
	    length > SEGMENTS * sizeof(struct vring_desc)) {
		virtqueue_break(vq, "an indirect table at %#" PRIx64, address);
		return NULL;
	}
	*entries = length / sizeof(struct vring_desc);
	return arena_now->table[address];
}

/* --- the driver --------------------------------------------------------------------- */

/* A request, by the id under which it is in the ring. */
struct request {
	bool out;
	uint64_t number; /* in the order of being made available, from 1 */
	uint16_t slots;
	unsigned segments;
	uint16_t taken[SEGMENTS]; /* split: its descriptors */
};

struct driver {
	struct arena *a;
	bool packed, indirect, in_order;
	uint16_t size, free, next_avail, next_used;
	bool avail_wrap, used_wrap;
	bool busy[ENTRIES]; /* split: descriptors */
	struct request request[ENTRIES];
	unsigned out;
	uint64_t numbers;
};

/* What segment @i of request @number looks like, and the length that completes it. */
static uint64_t address_of(uint64_t number, unsigned i)
{
	return number << 8 | (i + 1);
}

static uint32_t length_of(uint64_t number, unsigned i)
{
	return (uint32_t)(number * 3 + i) & 0xffff;
}

static uint32_t written_of(uint64_t number)
{
	return number % 5 ? (uint32_t)(number * 2654435761u) >> 3 : 0;
}

/*
 * Of a packed ring that is used in order some chains are completed together with the next one, as
 * the buffers of one frame are: all of them are filled, and the driver sees all of them or none.
 */
static bool is_grouped(bool packed, bool in_order, uint64_t number)
{
	return packed && in_order && number % 7 == 3;
}

/* By chain id: the living device has pushed it together with the next one. */
static bool with_next[ENTRIES];
static struct driver driver;

static struct vring_desc segment(const struct request *r, unsigned i)
{
	return (struct vring_desc){
		.addr = address_of(r->number, i),
		.len = length_of(r->number, i),
		.flags = i ? VRING_DESC_F_WRITE : 0,
	};
}

static void add_split(struct driver *d, struct request *r, bool indirect)
{
	struct vring_desc *table = (void *)d->a->descriptors;
	struct vring_avail *avail = (void *)d->a->driver;
	unsigned n = 0;

	for (unsigned at = chance(d->size); n < r->slots; at = (at + 1) % d->size) {
		if (d->busy[at])
			continue;
		d->busy[at] = true;
		r->taken[n++] = (uint16_t)at;
	}
	d->request[r->taken[0]] = *r;
	if (indirect) {
		uint16_t id = r->taken[0];

		for (unsigned i = 0; i < r->segments; i++) {
			struct vring_desc *at = &d->a->table[id][i].split;

			*at = segment(r, i);
			if (i + 1 < r->segments) {
				at->flags |= VRING_DESC_F_NEXT;
				at->next = (uint16_t)(i + 1);
			}
		}
		table[id] = (struct vring_desc){ .addr = id,
						 .len = (uint32_t)(r->segments * sizeof *table),
						 .flags = VRING_DESC_F_INDIRECT };
	} else {
		for (unsigned i = 0; i < r->segments; i++) {
			table[r->taken[i]] = segment(r, i);
			if (i + 1 < r->segments) {
				table[r->taken[i]].flags |= VRING_DESC_F_NEXT;
				table[r->taken[i]].next = r->taken[i + 1];
			}
		}
	}
	avail->ring[d->next_avail++ % d->size] = r->taken[0];
	avail->idx = d->next_avail;
}

static void add_packed(struct driver *d, struct request *r, bool indirect)
{
	struct vring_packed_desc *ring = (void *)d->a->descriptors, *head = &ring[d->next_avail];
	uint16_t head_flags = 0, id = (uint16_t)chance(d->size);

	while (d->request[id].out)
		id = (uint16_t)((id + 1) % d->size);
	d->request[id] = *r;
	for (unsigned i = 0; indirect && i < r->segments; i++) {
		struct vring_desc s = segment(r, i);

		d->a->table[id][i].packed = (struct vring_packed_desc){ .addr = s.addr,
									.len = s.len,
									.flags = s.flags };
	}
	for (unsigned i = 0; i < r->slots; i++) {
		struct vring_packed_desc *at = &ring[d->next_avail];
		struct vring_desc s = segment(r, i);
		uint16_t flags = (uint16_t)(d->avail_wrap ? 1u << VRING_PACKED_DESC_F_AVAIL
							  : 1u << VRING_PACKED_DESC_F_USED);

		if (indirect)
			s = (struct vring_desc){ .addr = id,
						 .len = (uint32_t)(r->segments * sizeof s),
						 .flags = VRING_DESC_F_INDIRECT };
		flags |= s.flags | (i + 1 < r->slots ? VRING_DESC_F_NEXT : 0);
		at->addr = s.addr;
		at->len = s.len;
		at->id = i + 1 < r->slots ? 0xdead : id; /* only the last one's counts */
		if (i)
			at->flags = flags;
		else
			head_flags = flags;
		if (++d->next_avail == d->size) {
			d->next_avail = 0;
			d->avail_wrap = !d->avail_wrap;
		}
	}
	head->flags = head_flags;
}

static void driver_add(struct driver *d)
{
	struct request r = { .out = true };
	bool indirect = d->indirect && (d->in_order || chance(3) == 0);

	if (!d->free)
		return;
	r.segments = d->in_order && d->packed && !indirect ? 1 : 1 + chance(SEGMENTS);
	if (!indirect && r.segments > d->free)
		r.segments = d->free;
	r.slots = indirect ? 1 : (uint16_t)r.segments;
	r.number = ++d->numbers;
	d->free -= r.slots;
	d->out++;
	if (d->packed)
		add_packed(d, &r, indirect);
	else
		add_split(d, &r, indirect);
}

static bool see_one(struct driver *d, uint32_t id, uint32_t length)
{
	struct request *r = id < d->size ? &d->request[id] : NULL;

	if (!r || !r->out) {
		wrong("the driver was shown %u as used, which is not in flight", id);
		return false;
	}
	uint32_t wanted = written_of(r->number);

	if (is_grouped(d->packed, d->in_order, r->number)) {
		wanted = 0;
		for (unsigned i = 1; i < r->segments; i++)
			wanted += length_of(r->number, i);
	}
	if (length != wanted) {
		wrong("the driver was shown %u (request %" PRIu64 ") with %u bytes, not %u", id,
		      r->number, length, wanted);
		return false;
	}
	r->out = false;
	d->free += r->slots;
	d->out--;
	return true;
}

/* Takes everything that is shown as used. */
static void driver_see(struct driver *d)
{
	const struct vring_used *used = (void *)d->a->device;
	const struct vring_packed_desc *ring = (void *)d->a->descriptors;

	while (!d->packed && d->next_used != used->idx && !*failure) {
		const struct vring_used_elem *e = &used->ring[d->next_used % d->size];

		if (!see_one(d, e->id, e->len))
			return;
		for (unsigned i = 0; i < d->request[e->id].slots; i++)
			d->busy[d->request[e->id].taken[i]] = false;
		d->next_used++;
	}
	bool incomplete = false;
	while (d->packed && !*failure) {
		const struct vring_packed_desc *e = &ring[d->next_used];
		bool avail = e->flags >> VRING_PACKED_DESC_F_AVAIL & 1;
		bool used_bit = e->flags >> VRING_PACKED_DESC_F_USED & 1;

		if (avail != d->used_wrap || used_bit != d->used_wrap)
			break;
		if (!see_one(d, e->id, e->len))
			return;
		incomplete = d == &driver && with_next[e->id];
		d->next_used = (uint16_t)(d->next_used + d->request[e->id].slots);
		if (d->next_used >= d->size) {
			d->next_used -= d->size;
			d->used_wrap = !d->used_wrap;
		}
	}
	if (incomplete)
		wrong("the driver was shown a part of what belongs together");
}

/* --- stepping ----------------------------------------------------------------------- */

/* The trap flag, set and cleared; the red zone is the caller's. */
#ifdef __x86_64__
static inline __attribute__((always_inline)) void step(void)
{
	__asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; orl $0x100, (%%rsp); popfq;"
			 "lea 128(%%rsp), %%rsp" ::
				 : "memory", "cc");
}

static inline __attribute__((always_inline)) void step_no_more(void)
{
	__asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; andl $~0x100, (%%rsp); popfq;"
			 "lea 128(%%rsp), %%rsp" ::
				 : "memory", "cc");
}
#define CAN_STEP 1
#else
static void step(void) {}
static void step_no_more(void) {}
#define CAN_STEP 0
#endif

/* --- the device --------------------------------------------------------------------- */

/* A process's own part of a device: all that a crash takes away. */
struct device {
	struct virtqueue vq;
	struct pushed batch[ENTRIES];
	struct again again[ENTRIES];
	unsigned char links[ENTRIES * sizeof *((struct virtqueue *)0)->links];
	struct chain popped[ENTRIES];
	uint64_t number[ENTRIES]; /* of the popped */
	unsigned count;
	bool stepped;
};

#define STEPPED(dev, call)                                                                         \
	do {                                                                                       \
		if ((dev)->stepped)                                                                \
			step();                                                                    \
		call;                                                                              \
		step_no_more();                                                                    \
	} while (0)

static void device_init(struct device *dev, struct arena *a, const struct driver *d, uint32_t base)
{
	memset(dev, 0, sizeof *dev);
	if (d == &driver)
		memset(with_next, 0, sizeof with_next);
	dev->vq.ring = d->packed ? &packed_ring_ops : &split_ring_ops;
	dev->vq.size = d->size;
	dev->vq.indirect = d->indirect;
	dev->vq.in_order = d->in_order;
	dev->vq.batch = dev->batch;
	dev->vq.again = dev->again;
	dev->vq.links = (void *)dev->links;
	dev->vq.setup = (struct virtqueue_setup){
		.size = d->size,
		.descriptors = a->descriptors,
		.driver = a->driver,
		.device = a->device,
		.inflight = d->in_order ? NULL : a->inflight,
		.base = base,
	};
	arena_now = a;
}

static bool device_pop(struct device *dev)
{
	struct chain chain;
	struct iovec vec[SEGMENTS];
	uint64_t number;
	int ret;

	STEPPED(dev, ret = dev->vq.ring->pop(&dev->vq, &chain, vec, SEGMENTS));
	if (ret <= 0)
		return false;
	number = (uint64_t)(uintptr_t)vec[0].iov_base >> 8;
	for (unsigned i = 0; i < (unsigned)chain.readable + chain.writable; i++)
		if ((uint64_t)(uintptr_t)vec[i].iov_base != address_of(number, i) ||
		    vec[i].iov_len != length_of(number, i) || (i > 0) != (i >= chain.readable))
			wrong("segment %u of request %" PRIu64 " was popped as %p, %zu bytes", i,
			      number, vec[i].iov_base, vec[i].iov_len);
	if (dev->count == dev->vq.size) {
		wrong("more chains were popped than the ring holds");
		return false;
	}
	dev->popped[dev->count] = chain;
	dev->number[dev->count++] = number;
	return true;
}

static void device_push(struct device *dev)
{
	unsigned i = dev->vq.in_order ? 0 : chance(dev->count);

	struct chain *chain = &dev->popped[i];
	bool grouped =
		is_grouped(dev->vq.ring == &packed_ring_ops, dev->vq.in_order, dev->number[i]);

	chain->more = grouped && dev->count > 1;
	bool more = chain->more;
	if (dev->stepped)
		with_next[chain->id] = more;
	STEPPED(dev, dev->vq.ring->push(&dev->vq, chain,
					grouped ? (uint32_t)chain->write_bytes
						: written_of(dev->number[i])));
	dev->count--;
	memmove(&dev->popped[i], &dev->popped[i + 1], (dev->count - i) * sizeof *dev->popped);
	memmove(&dev->number[i], &dev->number[i + 1], (dev->count - i) * sizeof *dev->number);
	if (more)
		device_push(dev);
}

/* --- a successor, on a copy --------------------------------------------------------- */

static uint32_t clean_base; /* of the last start that was told the truth by the VMM */

/* What the VMM tells a successor: QEMU reads the used index, and knows no better for packed. */
static uint32_t base_after_crash(const struct driver *d)
{
	return d->packed ? clean_base : ((const struct vring_used *)d->a->device)->idx;
}

/* Pops all there is: exactly what is out, in order. */
static void pop_all(struct device *dev, const struct driver *d)
{
	uint64_t last = dev->count ? dev->number[dev->count - 1] : 0;

	while (device_pop(dev)) {
		uint64_t number = dev->number[dev->count - 1];
		unsigned id = dev->popped[dev->count - 1].id;

		if (id >= d->size || !d->request[id].out || d->request[id].number != number)
			wrong("request %" PRIu64 " was popped as %u, which is not in flight",
			      number, id);
		else if (d->packed && d->request[id].slots != dev->popped[dev->count - 1].slots)
			wrong("request %" PRIu64 " was popped with %u slots, not %u", number,
			      dev->popped[dev->count - 1].slots, d->request[id].slots);
		else if (number <= last)
			wrong("request %" PRIu64 " was popped after %" PRIu64, number, last);
		last = number;
		if (*failure)
			return;
	}
	if (!*failure && dev->count != d->out)
		wrong("%u requests are out, and %u were popped", d->out, dev->count);
}

static void push_all(struct device *dev, struct driver *d)
{
	while (dev->count && !*failure) {
		device_push(dev);
		driver_see(d);
		if (dev->count && chance(2))
			continue;
		dev->vq.ring->publish(&dev->vq);
		driver_see(d);
	}
	if (!*failure && d->out)
		wrong("%u requests never came back", d->out);
}

static void check_successor(const struct arena *left, const struct driver *living)
{
	static struct arena copy;
	static struct driver d;
	static struct device dev;
	struct arena *before = arena_now;
	uint32_t base;

	copy = *left;
	d = *living;
	d.a = &copy;
	base = base_after_crash(&d);
	if (chance(2))
		driver_see(&d);
	for (unsigned n = chance(3) ? 0 : chance(d.size + 1u); n; n--)
		driver_add(&d);
	device_init(&dev, &copy, &d, base);
	dev.vq.ring->start(&dev.vq);
	driver_see(&d);
	for (unsigned round = 0; round < 2 && !*failure; round++) {
		pop_all(&dev, &d);
		push_all(&dev, &d);
		for (unsigned n = 1 + chance(d.size); n; n--)
			driver_add(&d);
	}
	arena_now = before;
}

extern char __executable_start[];

/* --- the device that is killed ------------------------------------------------------- */

static struct arena live, seen;
static struct device device;
static sigjmp_buf killed;
static uint64_t steps, stores, deaths;
static ptrdiff_t at; /* of the last instruction, for addr2line */

/* After each instruction of the device. */
static void stepped(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	at = (char *)info->si_addr - __executable_start;
	steps++;
	if (memcmp(&live, &seen, STORED)) {
		stores++;
		check_successor(&live, &driver);
		seen = live;
	}
	if (chance(30) == 0) {
		if (chance(2))
			driver_see(&driver);
		else
			driver_add(&driver);
		seen = live;
	}
	if (*failure || chance(1000) == 0)
		siglongjmp(killed, 1);
}

/* One thing that the device does, stepped. */
static void device_acts(void)
{
	if (device.count && chance(2))
		device_push(&device);
	else if (device.vq.pending && chance(3) == 0)
		STEPPED(&device, device.vq.ring->publish(&device.vq));
	else if (device.count + device.vq.pending < device.vq.size)
		device_pop(&device);
}

/* A stop that the VMM knows of: all is completed, and it learns where to begin. */
static void stop_cleanly(void)
{
	while (device.vq.again_next < device.vq.again_count && !*failure)
		device_pop(&device);
	while (device.count && !*failure)
		device_push(&device);
	if (device.vq.pending)
		device.vq.ring->publish(&device.vq);
	clean_base = device.vq.ring->base(&device.vq);
	((struct inflight_header *)live.inflight)->version = 0;
}

/* From a start to a death or to a clean stop. */
static void live_once(uint32_t base)
{
	device_init(&device, &live, &driver, base);
	seen = live;
	if (sigsetjmp(killed, 1)) {
		deaths++;
		return;
	}
	device.stepped = true;
	STEPPED(&device, device.vq.ring->start(&device.vq));
	for (unsigned acts = chance(400); acts && !*failure; acts--) {
		device_acts();
		if (chance(4) == 0)
			driver_add(&driver);
		if (chance(8) == 0)
			driver_see(&driver);
		seen = live;
	}
	device.stepped = false;
	stop_cleanly();
}

/* --- tests -------------------------------------------------------------------------- */

static void run(bool packed, uint16_t size, bool indirect, bool in_order, uint64_t limit)
{
	struct sigaction action = { .sa_sigaction = stepped, .sa_flags = SA_SIGINFO }, old;

	memset(&live, 0, sizeof live);
	driver = (struct driver){
		.a = &live,
		.packed = packed,
		.indirect = indirect,
		.in_order = in_order,
		.size = size,
		.free = size,
		.avail_wrap = true,
		.used_wrap = true,
	};
	clean_base = packed ? 0x80008000 : 0;
	*failure = 0;
	sigaction(SIGTRAP, &action, &old);
	for (limit += steps; steps < limit && !*failure;)
		live_once(base_after_crash(&driver));
	sigaction(SIGTRAP, &old, NULL);
	if (*failure)
		fail_msg("%s ring of %u%s%s, seed %" PRIu64 ", before the instruction at %#tx: %s",
			 packed ? "packed" : "split", size, indirect ? ", indirect" : "",
			 in_order ? ", in order" : "", seed, at, failure);
}

static void run_all(bool packed, bool in_order, const uint16_t *size, unsigned sizes)
{
	const char *text = getenv("STEPS");
	uint64_t limit = text ? strtoull(text, NULL, 10) : STEPS;

	if (!CAN_STEP)
		skip();
	steps = stores = deaths = 0;
	for (unsigned i = 0; i < sizes; i++) {
		run(packed, size[i], false, in_order, limit);
		run(packed, size[i], true, in_order, limit);
	}
	print_message("# %" PRIu64 " instructions, %" PRIu64 " stores recovered from, %" PRIu64
		      " deaths\n",
		      steps, stores, deaths);
	assert_true(stores > 100 && deaths > 10);
}

static void split(void **unused)
{
	static const uint16_t size[] = { 1, 2, 4, 8, 16 };

	(void)unused;
	run_all(false, false, size, sizeof size / sizeof *size);
}

static void packed(void **unused)
{
	static const uint16_t size[] = { 2, 3, 4, 5, 8, 16, 1 };

	(void)unused;
	run_all(true, false, size, sizeof size / sizeof *size);
}

static void split_in_order(void **unused)
{
	static const uint16_t size[] = { 1, 2, 4, 8, 16 };

	(void)unused;
	run_all(false, true, size, sizeof size / sizeof *size);
}

static void packed_in_order(void **unused)
{
	static const uint16_t size[] = { 2, 3, 4, 5, 8, 16, 1 };

	(void)unused;
	run_all(true, true, size, sizeof size / sizeof *size);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(split),
		cmocka_unit_test(packed),
		cmocka_unit_test(split_in_order),
		cmocka_unit_test(packed_in_order),
	};
	const char *text = getenv("SEED");

	seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
	state = seed * 0x9e3779b97f4a7c15ull | 1;
	print_message("# SEED=%" PRIu64 "\n", seed);
	return cmocka_run_group_tests_name("ring_crash", tests, NULL, NULL);
}
