/* SPDX-License-Identifier: BSD-3-Clause */
/* impair_test.c - what becomes of packets on a bad network: which, when, in what order, how often
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/virtio_net.h>

#include "packet/offload.h"
#include "packet/testing.h"

#define LENGTH 64u /* all that a port of the rig notes of a frame */
#define NUMBER 20u /* where a frame has its number */
#define SECOND 1000000000ull

enum { LOSS, FULL };

/* Two guests on a switch; frames go from @a to @b, through the layers of @a. */
struct scene {
	struct rig rig;
	struct rig_port *a, *b;
};

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void begin(struct scene *scene, const char *const *layers)
{
	rig_begin(&scene->rig, 1, NULL);
	scene->a = rig_plug(&scene->rig, "a", 0, 0, NULL);
	scene->b = rig_plug(&scene->rig, "b", 0, OFFLOAD_CSUM | OFFLOAD_TSO4, NULL);
	rig_send_one(scene->b, 1, 2); /* its address is known from here on */
	assert_int_equal(rig_set_layers(scene->a, layers, NULL), 0);
}

static void end(struct scene *scene)
{
	rig_unplug(scene->a);
	rig_unplug(scene->b);
	rig_end(&scene->rig);
}

/* Sends frames number @first to @first + @count - 1, PACKET_BURST at a time. */
static void send_numbers(struct scene *scene, unsigned first, unsigned count)
{
	static uint8_t bytes[PACKET_BURST][LENGTH], before[PACKET_BURST][LENGTH];
	struct rig_send send = { .port = scene->a };

	for (unsigned i = 0; i < count; i++) {
		uint8_t *frame = bytes[send.count];

		rig_frame(frame, LENGTH, 2, 1, 0x88b5);
		frame[NUMBER] = (uint8_t)((first + i) >> 8);
		frame[NUMBER + 1] = (uint8_t)(first + i);
		send.frame[send.count].bytes = frame;
		send.frame[send.count++].length = LENGTH;
		if (send.count == PACKET_BURST || i == count - 1) {
			memcpy(before, bytes, sizeof before);
			rig_send(&send);
			send.count = 0;
			/* A guest's memory is read, and never written. */
			assert_memory_equal(before, bytes, sizeof before);
		}
	}
}

struct looking {
	const struct rig_port *port;
	unsigned seen;
};

static void look(void *data)
{
	struct looking *looking = data;

	looking->seen = looking->port->seen;
}

/* Frames that have arrived. */
static unsigned seen(struct scene *scene)
{
	struct looking looking = { scene->b, 0 };

	rig_settle(&scene->rig);
	rig_do(scene->rig.loops[0], look, &looking);
	return looking.seen;
}

/* Waits until @count have arrived, and a little longer for more; how many. */
static unsigned wait_for(struct scene *scene, unsigned count)
{
	uint64_t limit = now() + 10 * SECOND;

	while (seen(scene) < count && now() < limit)
		usleep(1000);
	usleep(2000);
	return seen(scene);
}

static unsigned number(const struct scene *scene, unsigned i)
{
	const uint8_t *start = scene->b->frame[i].start;

	return (unsigned)start[NUMBER] << 8 | start[NUMBER + 1];
}

static uint64_t drops(const struct scene *scene, enum packet_direction direction, unsigned cause)
{
	const struct layer_place *place = scene->a->port->layers[0]->places[0];

	return stats_read(&place->stats.direction[direction].drops[cause]);
}

/* --- which -------------------------------------------------------------------------- */

#define MANY 640u

/* Bit i of @arrived: frame i was not lost. */
static void lose(const char *seed, uint8_t arrived[MANY])
{
	const char *const layers[] = { "impair", "loss", "30%", "seed", seed, NULL, NULL };
	struct scene scene;
	unsigned count;

	memset(arrived, 0, MANY);
	begin(&scene, layers);
	send_numbers(&scene, 0, MANY);
	count = seen(&scene);
	assert_in_range(count, MANY * 6 / 10, MANY * 8 / 10);
	assert_int_equal(drops(&scene, PACKET_IN, LOSS), MANY - count);
	assert_int_equal(drops(&scene, PACKET_OUT, LOSS), 0);
	for (unsigned i = 0; i < count; i++)
		arrived[number(&scene, i)] = 1;
	end(&scene);
}

static void test_loss(void **state)
{
	uint8_t once[MANY], again[MANY], other[MANY];

	(void)state;
	lose("7", once);
	lose("7", again);
	lose("8", other);
	assert_memory_equal(once, again, MANY);
	assert_memory_not_equal(once, other, MANY);
}

/* Only what the layer is there for. */
static void test_direction(void **state)
{
	static const char *const out[] = { "impair", "loss", "1", "direction", "out", NULL, NULL };
	static const char *const both[] = { "impair", "loss", "1", NULL, NULL };
	struct scene scene;
	unsigned before;

	(void)state;
	begin(&scene, out);
	before = scene.a->seen;
	send_numbers(&scene, 0, 10);
	assert_int_equal(seen(&scene), 10);
	rig_send_one(scene.b, 1, 2);
	assert_int_equal(scene.a->seen, before);
	assert_int_equal(drops(&scene, PACKET_OUT, LOSS), 1);
	assert_int_equal(rig_set_layers(scene.a, both, NULL), 0);
	send_numbers(&scene, 0, 10);
	rig_send_one(scene.b, 1, 2);
	assert_int_equal(seen(&scene), 10);
	assert_int_equal(scene.a->seen, before);
	end(&scene);
}

/* --- when --------------------------------------------------------------------------- */

static void assert_in_order(const struct scene *scene, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(number(scene, i), i);
}

static void test_delay(void **state)
{
	static const char *const layers[] = { "impair", "delay", "50ms", "jitter",
					      "30ms",   NULL,    NULL };
	struct scene scene;
	uint64_t began;

	(void)state;
	begin(&scene, layers);
	began = now();
	send_numbers(&scene, 0, 200);
	if (now() - began < SECOND / 40) /* a machine that is busy says nothing */
		assert_int_equal(seen(&scene), 0);
	assert_int_equal(wait_for(&scene, 200), 200);
	assert_true(now() - began >= SECOND / 20);
	assert_in_order(&scene, 200);
	end(&scene);
}

static void test_reorder(void **state)
{
	static const char *const layers[] = { "impair",        "delay", "1ms", "reorder", "20%",
					      "reorder-delay", "50ms",  NULL,  NULL };
	unsigned turned = 0, last = 0;
	uint8_t arrived[200] = { 0 };
	struct scene scene;

	(void)state;
	begin(&scene, layers);
	send_numbers(&scene, 0, 200);
	assert_int_equal(wait_for(&scene, 200), 200);
	for (unsigned i = 0; i < 200; i++) {
		unsigned n = number(&scene, i);

		assert_true(n < 200 && !arrived[n]);
		arrived[n] = 1;
		if (n < last)
			turned++;
		else
			last = n;
	}
	assert_in_range(turned, 10, 80);
	end(&scene);
}

/* --- how often, and how whole -------------------------------------------------------- */

static void test_duplicate(void **state)
{
	static const char *const layers[] = { "impair", "duplicate", "1", NULL, NULL };
	struct scene scene;
	unsigned times[100] = { 0 };

	(void)state;
	begin(&scene, layers);
	send_numbers(&scene, 0, 100);
	assert_int_equal(wait_for(&scene, 200), 200);
	for (unsigned i = 0; i < 200; i++)
		times[number(&scene, i)]++;
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(times[i], 2);
	end(&scene);
}

static unsigned differing_bits(const uint8_t *a, const uint8_t *b, size_t length)
{
	unsigned bits = 0;

	for (size_t i = 0; i < length; i++)
		bits += (unsigned)__builtin_popcount(a[i] ^ b[i]);
	return bits;
}

static void test_corrupt(void **state)
{
	static const char *const layers[] = { "impair", "corrupt", "1", NULL, NULL };
	struct scene scene;
	uint8_t sent[LENGTH], places[LENGTH] = { 0 };
	unsigned different = 0;

	(void)state;
	begin(&scene, layers);
	send_numbers(&scene, 0, 300);
	assert_int_equal(wait_for(&scene, 300), 300);
	for (unsigned i = 0; i < 300; i++) {
		const uint8_t *start = scene.b->frame[i].start;

		/* They are in order. */
		rig_frame(sent, LENGTH, 2, 1, 0x88b5);
		sent[NUMBER] = (uint8_t)(i >> 8);
		sent[NUMBER + 1] = (uint8_t)i;
		assert_int_equal(differing_bits(sent, start, LENGTH), 1);
		assert_memory_equal(sent, start, ETHERNET_HEADER);
		for (unsigned b = 0; b < LENGTH; b++)
			places[b] |= sent[b] != start[b];
	}
	for (unsigned b = 0; b < LENGTH; b++)
		different += places[b];
	assert_true(different > 40);
	end(&scene);
}

/* Those that are not damaged stay behind those that are. */
static void test_corrupt_some(void **state)
{
	static const char *const layers[] = { "impair", "corrupt", "10%", NULL, NULL };
	unsigned damaged = 0;
	struct scene scene;
	uint8_t sent[LENGTH];

	(void)state;
	begin(&scene, layers);
	send_numbers(&scene, 0, 300);
	assert_int_equal(wait_for(&scene, 300), 300);
	for (unsigned i = 0; i < 300; i++) {
		unsigned bits;

		rig_frame(sent, LENGTH, 2, 1, 0x88b5);
		sent[NUMBER] = (uint8_t)(i >> 8);
		sent[NUMBER + 1] = (uint8_t)i;
		bits = differing_bits(sent, scene.b->frame[i].start, LENGTH);
		assert_in_range(bits, 0, 1);
		damaged += bits;
	}
	assert_in_range(damaged, 10, 60);
	end(&scene);
}

/* An IPv4 frame of @length bytes with a sum that is left out, behind a pseudo header's. */
static void ip_frame(uint8_t *frame, uint16_t length, uint8_t protocol, unsigned sum_at)
{
	uint16_t ip_length = htobe16((uint16_t)(length - ETHERNET_HEADER)), sum;
	uint16_t l4_length = htobe16((uint16_t)(length - 34));

	rig_frame(frame, length, 2, 1, 0x0800);
	memset(frame + 14, 0, 20);
	frame[14] = 0x45;
	memcpy(frame + 16, &ip_length, 2);
	frame[22] = 64;
	frame[23] = protocol;
	frame[26] = frame[30] = 10;
	frame[29] = 1;
	frame[33] = 2;
	sum = (uint16_t)~sum_bytes(frame + 14, 20, 0);
	memcpy(frame + 24, &sum, 2);
	if (protocol == 6)
		frame[46] = 5 << 4;
	else
		memcpy(frame + 38, &l4_length, 2);
	sum = (uint16_t)sum_bytes((uint8_t[]){ 0, protocol }, 2, sum_bytes(frame + 26, 8, 0));
	sum = (uint16_t)sum_bytes(&l4_length, 2, sum);
	memcpy(frame + 34 + sum_at, &sum, 2);
}

/* True if its header's sum is right, and that of the layer above. */
static bool is_whole(const struct rig_frame *frame)
{
	const uint8_t *ip = frame->start + ETHERNET_HEADER;
	uint16_t length = htobe16((uint16_t)(frame->length - 34));
	uint32_t sum;

	if (sum_bytes(ip, 20, 0) != 0xffff)
		return false;
	sum = sum_bytes((uint8_t[]){ 0, ip[9] }, 2, sum_bytes(ip + 12, 8, 0));
	sum = sum_bytes(&length, 2, sum);
	return sum_bytes(ip + 20, frame->length - 34, sum) == 0xffff;
}

/* A receiver finds the damage, though the sum was still to be computed. */
static void test_corrupt_unsummed(void **state)
{
	static const char *const damaging[] = { "impair", "corrupt", "1", NULL, NULL };
	static const char *const late[] = { "impair", "delay", "1ms", NULL, NULL };
	uint8_t bytes[LENGTH];
	struct rig_send send = {
		.count = 1,
		.frame = { { .bytes = bytes,
			     .length = LENGTH,
			     .offload = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					  .csum_start = 34,
					  .csum_offset = 6 } } },
	};
	struct scene scene;

	(void)state;
	ip_frame(bytes, LENGTH, 17, 6);
	begin(&scene, damaging);
	send.port = scene.a;
	for (unsigned i = 0; i < 100; i++)
		rig_send(&send);
	assert_int_equal(wait_for(&scene, 100), 100);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(scene.b->frame[i].offload.flags, 0);
		assert_false(is_whole(&scene.b->frame[i]));
	}
	/* And what is only late keeps what is left to be done. */
	assert_int_equal(rig_set_layers(scene.a, late, NULL), 0);
	rig_send(&send);
	assert_int_equal(wait_for(&scene, 101), 101);
	assert_int_equal(scene.b->frame[100].offload.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_int_equal(scene.b->frame[100].offload.csum_start, 34);
	end(&scene);
}

/* Of the segments of a large packet one is damaged, any of them. */
static void test_corrupt_large(void **state)
{
	static const char *const layers[] = { "impair", "corrupt", "1", NULL, NULL };
	uint8_t bytes[54 + 40];
	struct rig_send send = {
		.count = 1,
		.frame = { { .bytes = bytes,
			     .length = sizeof bytes,
			     .offload = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					  .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
					  .gso_size = 10,
					  .header_length = 54,
					  .csum_start = 34,
					  .csum_offset = 16 } } },
	};
	unsigned which[4] = { 0 };
	struct scene scene;

	(void)state;
	ip_frame(bytes, sizeof bytes, 6, 16);
	begin(&scene, layers);
	send.port = scene.a;
	for (unsigned i = 0; i < 100; i++)
		rig_send(&send);
	assert_int_equal(wait_for(&scene, 400), 400);
	for (unsigned i = 0; i < 100; i++) {
		unsigned damaged = 0;

		for (unsigned s = 0; s < 4; s++) {
			const struct rig_frame *frame = &scene.b->frame[i * 4 + s];

			assert_int_equal(frame->length, LENGTH);
			assert_int_equal(frame->offload.flags | frame->offload.gso_type, 0);
			if (!is_whole(frame)) {
				which[s]++;
				damaged++;
			}
		}
		assert_int_equal(damaged, 1);
	}
	for (unsigned s = 0; s < 4; s++)
		assert_true(which[s] > 5);
	end(&scene);
}

/* --- changed, and gone --------------------------------------------------------------- */

static void test_change(void **state)
{
	static const char *const late[] = { "impair", "delay", "1h", NULL, NULL };
	static const char *const sooner[] = { "impair", "delay", "1ms", NULL, NULL };
	static const char *const at_once[] = { "impair", NULL, NULL };
	static const char *const none[] = { NULL };
	struct scene scene;

	(void)state;
	begin(&scene, late);
	send_numbers(&scene, 0, 100);
	assert_int_equal(seen(&scene), 0);
	/* What waits need not wait longer than the new options say, and stays in front. */
	assert_int_equal(rig_set_layers(scene.a, sooner, NULL), 0);
	send_numbers(&scene, 100, 100);
	assert_int_equal(wait_for(&scene, 200), 200);
	assert_int_equal(rig_set_layers(scene.a, late, NULL), 0);
	send_numbers(&scene, 200, 100);
	assert_int_equal(rig_set_layers(scene.a, at_once, NULL), 0);
	send_numbers(&scene, 300, 100);
	assert_int_equal(wait_for(&scene, 400), 400);
	assert_int_equal(rig_set_layers(scene.a, late, NULL), 0);
	send_numbers(&scene, 400, 100);
	assert_int_equal(seen(&scene), 400);
	/* A layer that goes leaves nothing behind. */
	assert_int_equal(rig_set_layers(scene.a, none, NULL), 0);
	send_numbers(&scene, 500, 100);
	assert_int_equal(seen(&scene), 600);
	assert_in_order(&scene, 600);
	end(&scene);
}

/* What was to be overtaken and now is not is in its old place again. */
static void test_change_reorder(void **state)
{
	static const char *const late[] = { "impair",        "delay", "1s", "reorder", "50%",
					    "reorder-delay", "1h",    NULL, NULL };
	static const char *const sooner[] = { "impair", "reorder-delay", "0ms", NULL, NULL };
	struct scene scene;

	(void)state;
	begin(&scene, late);
	send_numbers(&scene, 0, 200);
	assert_int_equal(rig_set_layers(scene.a, sooner, NULL), 0);
	assert_int_equal(wait_for(&scene, 200), 200);
	assert_in_order(&scene, 200);
	end(&scene);
}

static void test_limit(void **state)
{
	static const char *const late[] = { "impair", "delay", "1h", "limit", "100", NULL, NULL };
	static const char *const none[] = { NULL };
	struct scene scene;

	(void)state;
	begin(&scene, late);
	send_numbers(&scene, 0, 128);
	assert_int_equal(drops(&scene, PACKET_IN, FULL), 28);
	assert_int_equal(rig_set_layers(scene.a, none, NULL), 0);
	assert_int_equal(seen(&scene), 100);
	assert_in_order(&scene, 100);
	/* A port that goes while packets are held. */
	assert_int_equal(rig_set_layers(scene.a, late, NULL), 0);
	send_numbers(&scene, 0, 10);
	end(&scene);
}

/* However much is held, and was held: what the switch itself needs of the pool is there. */
static void test_pool(void **state)
{
	static const char *const late[] = { "impair", "delay", "1h", NULL, NULL };
	static const char *const none[] = { NULL };
	static uint8_t large[65000];
	struct rig_send send = { .count = PACKET_BURST };
	struct scene scene;
	struct rig_port *c;
	uint64_t held;

	(void)state;
	rig_frame(large, sizeof large, 2, 1, 0x88b5);
	for (unsigned i = 0; i < PACKET_BURST; i++) {
		send.frame[i].bytes = large;
		send.frame[i].length = sizeof large;
	}
	begin(&scene, late);
	c = rig_plug(&scene.rig, "c", 0, 0, NULL);
	send.port = scene.a;
	for (unsigned i = 0; i < 20; i++)
		rig_send(&send);
	held = 20 * PACKET_BURST - drops(&scene, PACKET_IN, FULL);
	assert_in_range(held, 100, 20 * PACKET_BURST - 1);
	rig_send_one(scene.b, 0xff, 2); /* to both others */
	assert_int_equal(c->seen, 1);
	assert_int_equal(rig_set_layers(scene.a, none, NULL), 0);
	assert_int_equal(seen(&scene), held);
	/* Small ones where there were large ones. */
	assert_int_equal(rig_set_layers(scene.a, late, NULL), 0);
	send_numbers(&scene, 0, 1000);
	assert_int_equal(drops(&scene, PACKET_IN, FULL), 0);
	assert_int_equal(rig_set_layers(scene.a, none, NULL), 0);
	assert_int_equal(seen(&scene), held + 1000);
	rig_unplug(c);
	end(&scene);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_loss),           cmocka_unit_test(test_direction),
		cmocka_unit_test(test_delay),          cmocka_unit_test(test_reorder),
		cmocka_unit_test(test_duplicate),      cmocka_unit_test(test_corrupt),
		cmocka_unit_test(test_corrupt_some),   cmocka_unit_test(test_corrupt_unsummed),
		cmocka_unit_test(test_corrupt_large),  cmocka_unit_test(test_change),
		cmocka_unit_test(test_change_reorder), cmocka_unit_test(test_limit),
		cmocka_unit_test(test_pool),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
