/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hostile_ring_test.c - a guest that lies in its rings
 *
 * One test for each lie, on split and on packed rings where both can tell it. A lie starts from the
 * pieces of a good read and spoils them; what it returns is how many pieces to put in the ring, or
 * 0 if it has put them there itself.
 */
#include "hostile.h"

#include <stdio.h>

#define INDIRECT FEATURE(VIRTIO_RING_F_INDIRECT_DESC)

enum rings { SPLIT = 1, PACKED = 2, BOTH = 3 };

typedef unsigned lie_fn(struct virtq *queue, struct piece *piece);

struct lie {
	const char *name;
	lie_fn *tell;
	enum rings rings;
	enum outcome outcome;
	uint64_t features;
};

/* ---- addresses and lengths ---- */

static unsigned data_outside_memory(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[1].address = 0xdead00000000ull;
	return 3;
}

static unsigned header_outside_memory(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[0].address = 0xdead00000000ull;
	return 3;
}

static unsigned status_outside_memory(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[2].address = 0xdead00000000ull;
	return 3;
}

static unsigned address_wraps_around(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[1].address = UINT64_MAX - 99;
	return 3;
}

static unsigned buffer_crosses_end_of_region(struct virtq *queue, struct piece *piece)
{
	const struct region *data = &queue->driver->region[2];

	piece[1].address = data->guest + data->size - 100;
	return 3;
}

static unsigned length_of_4_gib(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[1].length = UINT32_MAX;
	return 3;
}

/* The same good memory again and again: more data than the disk has. */
static unsigned more_data_than_disk(struct virtq *queue, struct piece *piece)
{
	struct piece many[62];
	const struct region *data = &queue->driver->region[2];

	many[0] = piece[0];
	for (unsigned i = 1; i < 61; i++)
		many[i] = (struct piece){ .address = data->guest,
					  .length = (uint32_t)data->size,
					  .flags = VRING_DESC_F_WRITE | VRING_DESC_F_NEXT };
	many[61] = piece[2];
	virtq_raw_chain(queue, many, 62);
	return 0;
}

static unsigned zero_length_buffer(struct virtq *queue, struct piece *piece)
{
	struct piece four[4] = { piece[0], piece[1], piece[1], piece[2] };

	four[1].length = 0;
	virtq_raw_chain(queue, four, 4);
	return 0;
}

static unsigned zero_length_header(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[0].length = 0;
	return 3;
}

static unsigned short_header(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[0].length = 8;
	return 3;
}

static unsigned data_of_odd_length(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[1].length = 100;
	return 3;
}

/* ---- directions and order ---- */

static unsigned read_into_read_only_buffer(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[1].flags = VRING_DESC_F_NEXT;
	return 3;
}

static unsigned write_from_write_only_buffer(struct virtq *queue, struct piece *piece)
{
	(void)piece;
	queue->slot[0].header->type = VIRTIO_BLK_T_OUT;
	return 3;
}

static unsigned no_status_byte(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[0].flags = 0;
	return 1;
}

static unsigned status_in_read_only_memory(struct virtq *queue, struct piece *piece)
{
	queue->slot[0].header->type = VIRTIO_BLK_T_OUT;
	piece[1].flags = VRING_DESC_F_NEXT;
	piece[2].flags = 0;
	return 3;
}

static unsigned writable_before_readable(struct virtq *queue, struct piece *piece)
{
	struct piece header = piece[0];

	(void)queue;
	piece[0] = piece[1];
	piece[1] = header;
	return 3;
}

/* ---- chains ---- */

static unsigned chain_loop(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[1].next = 1;
	return 3;
}

static unsigned chain_without_end(struct virtq *queue, struct piece *piece)
{
	static struct piece many[1024];

	for (unsigned i = 0; i < queue->size; i++) {
		many[i] = piece[i ? 1 : 0];
		many[i].flags |= VRING_DESC_F_NEXT;
	}
	virtq_raw_chain(queue, many, queue->size);
	return 0;
}

static unsigned next_out_of_table(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	piece[0].next = 0xfff0;
	return 3;
}

static unsigned head_out_of_table(struct virtq *queue, struct piece *piece)
{
	(void)piece;
	queue->avail->ring[queue->avail_next++ & (queue->size - 1)] = queue->size;
	split_publish(queue);
	virtq_kick(queue);
	return 0;
}

static unsigned available_index_jumps(struct virtq *queue, struct piece *piece)
{
	(void)piece;
	queue->avail_next += queue->size + 1;
	split_publish(queue);
	virtq_kick(queue);
	return 0;
}

static unsigned available_index_goes_back(struct virtq *queue, struct piece *piece)
{
	(void)piece;
	queue->avail_next -= 1;
	split_publish(queue);
	virtq_kick(queue);
	return 0;
}

/* The same head twice at once: its descriptors are in use. */
static unsigned head_twice(struct virtq *queue, struct piece *piece)
{
	queue->avail->ring[queue->avail_next++ & (queue->size - 1)] = 0;
	virtq_raw_chain(queue, piece, 3);
	return 0;
}

/* ---- indirect tables ---- */

static void write_table(struct virtq *queue, const struct piece *piece, unsigned count)
{
	struct slot *slot = &queue->slot[0];

	for (unsigned i = 0; i < count; i++)
		slot->piece[i] = piece[i];
	slot->pieces = (uint16_t)count;
	virtq_format_pieces(queue, 0);
}

static unsigned indirect(struct virtq *queue, struct piece *piece, uint32_t length)
{
	write_table(queue, piece, 3);
	piece[0] = (struct piece){ .address = queue->slot[0].table_guest,
				   .length = length,
				   .flags = VRING_DESC_F_INDIRECT };
	return 1;
}

static unsigned table_not_of_whole_descriptors(struct virtq *queue, struct piece *piece)
{
	return indirect(queue, piece, 3 * 16 + 8);
}

static unsigned table_of_no_length(struct virtq *queue, struct piece *piece)
{
	return indirect(queue, piece, 0);
}

static unsigned table_of_giant_length(struct virtq *queue, struct piece *piece)
{
	return indirect(queue, piece, 0xfffffff0u);
}

static unsigned table_outside_memory(struct virtq *queue, struct piece *piece)
{
	unsigned count = indirect(queue, piece, 3 * 16);

	piece[0].address = 0xdead00000000ull;
	return count;
}

/* A table may lie anywhere: nothing says that it is aligned (virtio 1.2, 2.7.5.3). */
static unsigned table_at_an_odd_address(struct virtq *queue, struct piece *piece)
{
	enum { ODD = 8192 + 1 };
	unsigned count = indirect(queue, piece, 3 * 16);

	memcpy(queue->slot[0].data + ODD, queue->slot[0].table, 3 * 16);
	piece[0].address = queue->slot[0].data_guest + ODD;
	return count;
}

/* Header in the table, data and status in a table it points to: all would be well, but for the
 * rule. */
static unsigned table_in_a_table(struct virtq *queue, struct piece *piece)
{
	enum { INNER = 4 }; /* where the inner one begins in the slot's table */
	struct slot *slot = &queue->slot[0];
	struct piece all[INNER + 2] = {
		piece[0],
		{ .address = slot->table_guest + INNER * sizeof(struct vring_desc),
		  .length = 2 * sizeof(struct vring_desc),
		  .flags = VRING_DESC_F_INDIRECT },
	};

	all[INNER] = piece[1];
	all[INNER + 1] = piece[2];
	write_table(queue, all, INNER + 2);
	if (!queue->packed) {
		struct vring_desc *table = slot->table;
		table[1].flags = VRING_DESC_F_INDIRECT;
		table[INNER].next = 1;
		table[INNER + 1].flags = VRING_DESC_F_WRITE;
	}
	piece[0] = (struct piece){ .address = slot->table_guest,
				   .length = 2 * sizeof(struct vring_desc),
				   .flags = VRING_DESC_F_INDIRECT };
	return 1;
}

static unsigned indirect_and_next(struct virtq *queue, struct piece *piece)
{
	struct piece status = piece[2];

	indirect(queue, piece, 3 * 16);
	piece[0].flags |= VRING_DESC_F_NEXT;
	piece[1] = status;
	return 2;
}

static unsigned indirect_not_negotiated(struct virtq *queue, struct piece *piece)
{
	piece[0] = (struct piece){ .address = queue->slot[0].header_guest,
				   .length = 3 * 16,
				   .flags = VRING_DESC_F_INDIRECT };
	return 1;
}

static unsigned loop_in_a_table(struct virtq *queue, struct piece *piece)
{
	unsigned count = indirect(queue, piece, 3 * 16);
	struct vring_desc *table = queue->slot[0].table;

	table[1].next = 0;
	return count;
}

static unsigned next_out_of_indirect_table(struct virtq *queue, struct piece *piece)
{
	unsigned count = indirect(queue, piece, 3 * 16);
	struct vring_desc *table = queue->slot[0].table;

	table[1].next = 1000;
	return count;
}

/* ---- packed rings only ---- */

/* The head says the chain goes on, but what follows was never written. */
static unsigned chain_into_the_void(struct virtq *queue, struct piece *piece)
{
	(void)queue;
	(void)piece;
	return 1;
}

/* Any id is the driver's own business, whatever the device would like to index with it. */
static unsigned giant_buffer_id(struct virtq *queue, struct piece *piece)
{
	uint16_t at = queue->avail_next;
	uint16_t flags = (queue->avail_wrap ? 1 << VRING_PACKED_DESC_F_AVAIL
					    : 1 << VRING_PACKED_DESC_F_USED);

	for (unsigned i = 0; i < 3; i++)
		queue->ring[at + i] = (struct vring_packed_desc){ .addr = piece[i].address,
								  .len = piece[i].length,
								  .id = 0xffff };
	queue->ring[at + 2].flags = flags | piece[2].flags;
	queue->ring[at + 1].flags = flags | piece[1].flags;
	__atomic_store_n(&queue->ring[at].flags, flags | piece[0].flags, __ATOMIC_RELEASE);
	virtq_kick(queue);
	return 0;
}

/* All entries available, then available again in the next round before anything was used, and so
 * on. */
static unsigned wrap_counter_races(struct virtq *queue, struct piece *piece)
{
	int64_t end = clock_ms() + 1000;

	write_table(queue, piece, 3);
	/* Until the device has seen it: a fast enough liar hides all he does. */
	for (unsigned round = 0;
	     round < 2000 || (*queue->slot[0].status == 0xff && clock_ms() < end); round++) {
		uint16_t flags = round % 2 ? 1 << VRING_PACKED_DESC_F_USED
					   : 1 << VRING_PACKED_DESC_F_AVAIL;
		for (unsigned i = 0; i < queue->size; i++) {
			queue->ring[i].addr = queue->slot[0].table_guest;
			queue->ring[i].len = 3 * 16;
			queue->ring[i].id = (uint16_t)i;
			__atomic_store_n(&queue->ring[i].flags, flags | VRING_DESC_F_INDIRECT,
					 __ATOMIC_RELEASE);
		}
		virtq_kick(queue);
	}
	return 0;
}

/* ---- no sense at all ---- */

static unsigned garbage_in_the_ring(struct virtq *queue, struct piece *piece)
{
	uint8_t *ring = queue->driver->region[queue->driver->rings_region].host;
	size_t bytes = queue->packed ? packed_ring_bytes(queue->size)
				     : split_ring_bytes(queue->size);
	uint64_t state = 12345;

	(void)piece;
	for (unsigned round = 0; round < 300; round++) {
		for (unsigned i = 0; i < 64; i++) {
			state = state * 6364136223846793005ull + 1442695040888963407ull;
			ring[(state >> 33) % bytes] = (uint8_t)(state >> 56);
		}
		virtq_kick(queue);
	}
	/* So that it is no matter of luck. */
	if (queue->packed)
		chain_without_end(queue, piece);
	else
		available_index_jumps(queue, piece);
	return 0;
}

static const struct lie lies[] = {
	{ "data outside memory", data_outside_memory, BOTH, BREAKS, 0 },
	{ "header outside memory", header_outside_memory, BOTH, BREAKS, 0 },
	{ "status outside memory", status_outside_memory, BOTH, BREAKS, 0 },
	{ "address wraps around", address_wraps_around, BOTH, BREAKS, 0 },
	{ "buffer crosses the end of a region", buffer_crosses_end_of_region, BOTH, BREAKS, 0 },
	{ "length of 4 GiB", length_of_4_gib, BOTH, BREAKS, 0 },
	{ "more data than the disk has", more_data_than_disk, BOTH, REFUSED, 0 },
	{ "zero-length buffer", zero_length_buffer, BOTH, SETTLED, 0 },
	{ "zero-length header", zero_length_header, BOTH, REFUSED, 0 },
	{ "short header", short_header, BOTH, REFUSED, 0 },
	{ "data of odd length", data_of_odd_length, BOTH, FAILS, 0 },
	{ "read into a read-only buffer", read_into_read_only_buffer, BOTH, REFUSED, 0 },
	{ "write from a write-only buffer", write_from_write_only_buffer, BOTH, REFUSED, 0 },
	{ "no status byte", no_status_byte, BOTH, BREAKS, 0 },
	{ "status in read-only memory", status_in_read_only_memory, BOTH, BREAKS, 0 },
	{ "writable before readable", writable_before_readable, BOTH, BREAKS, 0 },
	{ "chain loop", chain_loop, SPLIT, BREAKS, 0 },
	{ "chain without end", chain_without_end, BOTH, BREAKS, 0 },
	{ "next out of the table", next_out_of_table, SPLIT, BREAKS, 0 },
	{ "head out of the table", head_out_of_table, SPLIT, BREAKS, 0 },
	{ "available index jumps", available_index_jumps, SPLIT, BREAKS, 0 },
	{ "available index goes back", available_index_goes_back, SPLIT, BREAKS, 0 },
	{ "the same head twice", head_twice, SPLIT, SETTLED, 0 },
	{ "table not of whole descriptors", table_not_of_whole_descriptors, BOTH, BREAKS,
	  INDIRECT },
	{ "table of no length", table_of_no_length, BOTH, BREAKS, INDIRECT },
	{ "table of giant length", table_of_giant_length, BOTH, BREAKS, INDIRECT },
	{ "table outside memory", table_outside_memory, BOTH, BREAKS, INDIRECT },
	{ "table at an odd address", table_at_an_odd_address, BOTH, SERVED, INDIRECT },
	{ "table in a table", table_in_a_table, BOTH, BREAKS, INDIRECT },
	{ "INDIRECT and NEXT", indirect_and_next, BOTH, BREAKS, INDIRECT },
	{ "INDIRECT not negotiated", indirect_not_negotiated, BOTH, BREAKS, 0 },
	{ "loop in a table", loop_in_a_table, SPLIT, BREAKS, INDIRECT },
	{ "next out of an indirect table", next_out_of_indirect_table, SPLIT, BREAKS, INDIRECT },
	{ "chain into the void", chain_into_the_void, PACKED, BREAKS, 0 },
	{ "giant buffer id", giant_buffer_id, PACKED, SETTLED, 0 },
	{ "wrap counter races", wrap_counter_races, PACKED, SETTLED, INDIRECT },
	{ "garbage in the ring", garbage_in_the_ring, BOTH, BREAKS, INDIRECT },
};

enum { LIES = sizeof(lies) / sizeof(lies[0]) };

struct telling {
	char name[80];
	const struct lie *lie;
	bool packed;
};

static void tell(void **state)
{
	const struct telling *telling = *state;
	const struct lie *lie = telling->lie;
	struct piece piece[3];
	struct virtq *queue =
		liar_attach(lie->features | (telling->packed ? FEATURE(VIRTIO_F_RING_PACKED) : 0));

	liar_good_read(queue, piece);
	unsigned count = lie->tell(queue, piece);
	if (count)
		virtq_raw_chain(queue, piece, count);
	expect_outcome(queue, lie->outcome);
	if (lie->tell == read_into_read_only_buffer)
		for (unsigned i = 0; i < 4096; i++)
			assert_int_equal(queue->slot[0].data[i], 0x5a);
	expect_others_go_on();
	expect_recovery(false);
}

int main(void)
{
	static struct telling tellings[2 * LIES];
	static struct CMUnitTest tests[2 * LIES];
	size_t count = 0;

	for (unsigned i = 0; i < LIES; i++) {
		for (unsigned packed = 0; packed < 2; packed++) {
			if (!(lies[i].rings & (packed ? PACKED : SPLIT)))
				continue;
			struct telling *telling = &tellings[count];
			telling->lie = &lies[i];
			telling->packed = packed;
			snprintf(telling->name, sizeof(telling->name), "%s: %s",
				 packed ? "packed" : "split", lies[i].name);
			tests[count++] = (struct CMUnitTest){ .name = telling->name,
							      .test_func = tell,
							      .setup_func = hostile_start,
							      .teardown_func = hostile_stop,
							      .initial_state = telling };
		}
	}
	return _cmocka_run_group_tests("lies in rings", tests, count, NULL, NULL);
}
