/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_test.c - what is captured is what passed, by libpcap's own reading: all of it, with the
 * sums that senders left to be done, while layers change, on several loops
 */
#include <unistd.h>

#include <linux/virtio_net.h>

#include "packet/layer/capture_sum.h"
#include "packet/layer/capture_testing.h"

/* --- sums ---------------------------------------------------------------------------- */

static void test_sums(void **state)
{
	static uint8_t frame[70000];

	(void)state;
	for (unsigned turn = 0; turn < 64; turn++) {
		unsigned version = turn & 1 ? 4 : 6;
		uint8_t protocol = turn & 2 ? 6 : 17;
		uint32_t l3 = version == 4 ? 20 : 40, where = protocol == 6 ? 16 : 6;
		uint32_t length = ip_frame(frame, version, protocol, 80, turn * 997);
		bool large = turn & 4;
		uint32_t l4 = length - 14 - l3;
		uint8_t last[8] = { 0, 0, (uint8_t)(l4 >> 8), (uint8_t)l4, 0, 0, 0, protocol };
		uint16_t partial = (uint16_t)sum_bytes(last, 8,
						       version == 4 ? sum_bytes(frame + 26, 8, 0)
								    : sum_bytes(frame + 22, 32, 0));

		if (large)
			partial = (uint16_t)turn; /* of some length or other */
		memcpy(frame + 14 + l3 + where, &partial, 2);
		assert_true(capture_sum(frame, length, 14 + l3, where, large));
		assert_int_equal(whole_sum(frame, length, version, protocol), 0xffff);
	}
	assert_false(capture_sum(frame, 60, 59, 0, false));
	assert_false(capture_sum(frame, 60, 70, 6, true));
	assert_false(capture_sum(frame, 60, 2, 6, true));
	assert_true(capture_sum(frame, 60, 14, 16, true)); /* no IP behind it: only the rest */
}

/* --- what is written ------------------------------------------------------------------ */

/* True if @text stands somewhere in the file. */
static bool holds(const char *path, const char *text)
{
	static char bytes[4 << 20];
	FILE *file = fopen(path, "r");
	size_t length = fread(bytes, 1, sizeof bytes, file);

	fclose(file);
	return memmem(bytes, length, text, strlen(text));
}

static void test_written(void **state)
{
	static uint8_t tagged[300], large[9000];
	struct rig_send send = { .port = b, .count = 2 };
	const char *file = path_of("a.pcapng"), *tags = path_of("b.pcapng");

	(void)state;
	layers_are(a, LAYERS("count", NULL, "capture", "file", file, NULL));
	send_many(300, 1500);
	/* with a tag, and one whose sum was left to us: from b to a */
	rig_unplug(b);
	b = rig_plug(&rig, "b", 1, 0, ((const char *const[]){ "trunk", "1-10", NULL }));
	layers_are(b, LAYERS("capture", "file", tags, NULL));
	send.port = b;
	rig_frame(tagged, sizeof tagged, 0xff, 2, 0x8100);
	tagged[14] = 0x60;
	tagged[15] = 1;
	send.frame[0].bytes = tagged;
	send.frame[0].length = sizeof tagged;
	send.frame[1].bytes = large;
	send.frame[1].length = ip_frame(large, 4, 6, 80, 8000);
	memset(large, 0xff, 6);
	send.frame[1].offload = (struct packet_offload){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
							 .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
							 .gso_size = 1448,
							 .header_length = 54,
							 .csum_start = 34,
							 .csum_offset = 16 };
	rig_send(&send);
	layers_are(a, LAYERS("count", NULL));
	assert_int_equal(read_file(file), 302);
	for (unsigned i = 0; i < 300; i++) {
		assert_int_equal(seen.length[i], 1500);
		assert_int_equal(seen.captured[i], 1500);
		assert_int_equal(seen.start[i][20], i % PACKET_BURST);
		assert_int_equal(seen.start[i][63], 63);
	}
	assert_int_equal(seen.length[300], sizeof tagged - 4); /* a takes none */
	assert_int_equal(seen.length[301], 14 + 20 + 20 + 8000);
	assert_int_equal(seen.sum[301], 0xffff);
	assert_true(holds(file, "a large packet, to be cut into segments of 1448 bytes; the sum "));
	layers_are(b, LAYERS("count", NULL));
	assert_int_equal(read_file(tags), 2);
	assert_int_equal(seen.length[0], sizeof tagged);
	assert_memory_equal(seen.start[0], tagged, 64);
	assert_int_equal(seen.sum[1], 0xffff);
}

/* Sums that are not wanted, or cannot be had of a part, stay as they are, and are spoken of. */
static void test_sums_left(void **state)
{
	static uint8_t frame[1000];
	const char *file = path_of("left"), *cut = path_of("cut");
	struct rig_send send = { .port = a, .count = 1 };

	(void)state;
	send.frame[0].bytes = frame;
	send.frame[0].length = ip_frame(frame, 4, 6, 80, 500);
	send.frame[0].offload = (struct packet_offload){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
							 .csum_start = 34,
							 .csum_offset = 16 };
	layers_are(a, LAYERS("capture", "file", file, "sums", "false", NULL, "capture", "file", cut,
			     "snap-length", "100", NULL));
	rig_send(&send);
	layers_are(a, LAYERS("count", NULL));
	assert_int_equal(read_file(file), 1);
	assert_int_not_equal(seen.sum[0], 0xffff);
	assert_memory_equal(seen.start[0], frame, 64);
	assert_true(holds(file, "the sum has been left out by the sender"));
	assert_int_equal(read_file(cut), 1);
	assert_memory_equal(seen.start[0], frame, 64);
	assert_true(holds(cut, "the sum has been left out by the sender"));
}

static void test_direction_and_length(void **state)
{
	(void)state;
	layers_are(a,
		   LAYERS("capture", "file", path_of("in"), "direction", "in", "snap-length", "64",
			  NULL, "capture", "file", path_of("out"), "direction", "out", NULL));
	send_many(10, 1000);
	rig_send_one(b, 1, 2);
	layers_are(a, LAYERS("count", NULL));
	assert_int_equal(read_file(path_of("in")), 10);
	assert_int_equal(seen.length[9], 1000);
	assert_int_equal(seen.captured[9], 64);
	assert_int_equal(read_file(path_of("out")), 1);
	assert_int_equal(seen.length[0], 100);
}

/* --- changes while packets flow ------------------------------------------------------- */

static atomic_bool enough;
static atomic_uint flowed;

static struct loop_message again;

static void flow_now(struct loop_message *message)
{
	static uint8_t frames[2][200];
	struct rig_send send = { .port = a, .count = 2 };

	if (atomic_load(&enough))
		return;
	for (unsigned i = 0; i < 2; i++) {
		send.frame[i].bytes = frames[i];
		send.frame[i].length = ip_frame(frames[i], 4, 17, (uint16_t)(80 + i), 100);
		frames[i][5] = 1; /* to itself: it goes no further than the switch */
	}
	rig_send_now(&send);
	atomic_fetch_add(&flowed, 1);
	usleep(20);
	loop_send(a->lane->loop, message);
}

static void flow(bool begin)
{
	atomic_store(&enough, !begin);
	if (begin) {
		again.run = flow_now;
		loop_send(a->lane->loop, &again);
	} else {
		rig_settle(&rig);
	}
}

static void flow_for(unsigned count)
{
	unsigned until = atomic_load(&flowed) + count;

	while (atomic_load(&flowed) < until)
		usleep(100);
}

static void test_changed_in_flow(void **state)
{
	static const char *const which[] = { "udp port 80", "udp port 81", "ip", "tcp" };
	const char *file = path_of("f.pcapng");
	unsigned even = 0, odd = 0;

	(void)state;
	layers_are(a, LAYERS("capture", "file", file, "filter", "udp port 80", NULL));
	flow(true);
	for (unsigned turn = 0; turn < 40; turn++) {
		if (turn % 3)
			layers_are(a, LAYERS("capture", "file", file, "filter", which[turn % 4],
					     "snap-length", turn & 1 ? "100" : "256K", NULL));
		else
			layers_are(a, LAYERS("count", NULL, "capture", "file", file, "filter",
					     which[turn % 4], NULL));
		flow_for(3);
	}
	layers_are(a, LAYERS("capture", "file", file, "filter", "udp port 81", NULL));
	flow_for(10);
	layers_are(a, LAYERS("count", NULL));
	flow_for(10);
	flow(false);
	assert_true(read_file(file) > 40);
	for (unsigned i = 0; i < seen.count; i++)
		*(seen.start[i][37] & 1 ? &odd : &even) += 1;
	assert_true(even > 5);
	assert_true(odd > 10);
}

/* A loop that has packets while the layer comes and goes as a whole. */
static void test_comes_and_goes_in_flow(void **state)
{
	(void)state;
	flow(true);
	for (unsigned turn = 0; turn < 30; turn++) {
		layers_are(a, LAYERS("capture", "file", path_of(turn & 1 ? "g" : "h"), NULL));
		flow_for(2);
		if (turn % 5 == 4)
			layers_are(a, LAYERS("count", NULL));
	}
	layers_are(a, LAYERS("count", NULL));
	flow(false);
	assert_true(read_file(path_of("g")) > 15);
	assert_true(read_file(path_of("h")) > 15);
}

/* --- both loops ----------------------------------------------------------------------- */

/* What comes in on two loops at once stands in one file, nearly in the order of time. */
static void test_two_loops(void **state)
{
	const char *file = path_of("two");
	struct rig_port *c = rig_plug(&rig, "c", 1, 0, NULL);

	(void)state;
	layers_are(a, LAYERS("capture", "file", file, NULL));
	layers_are(c, LAYERS("capture", "file", path_of("other"), NULL));
	flow(true);
	for (unsigned i = 0; i < 200; i++)
		rig_send_one(c, 0xff, 3); /* out at a, on a's loop */
	flow(false);
	layers_are(a, LAYERS("count", NULL));
	assert_true(read_whole(file) > 200);
	assert_true(seen.disorder < 50);
	layers_are(c, LAYERS("count", NULL));
	assert_int_equal(read_file(path_of("other")), 200);
	rig_unplug(c);
}

/* A port that goes takes its captures with it. */
static void test_port_goes(void **state)
{
	const char *file = path_of("gone");

	(void)state;
	layers_are(a, LAYERS("capture", "file", file, NULL));
	send_many(10, 100);
	rig_unplug(a);
	assert_int_equal(read_file(file), 10);
	a = rig_plug(&rig, "a", 0, 0, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sums),        CAPTURE_TEST(test_written),
		CAPTURE_TEST(test_sums_left),       CAPTURE_TEST(test_direction_and_length),
		CAPTURE_TEST(test_changed_in_flow), CAPTURE_TEST(test_comes_and_goes_in_flow),
		CAPTURE_TEST(test_two_loops),       CAPTURE_TEST(test_port_goes),
	};

	return cmocka_run_group_tests_name("capture", tests, NULL, NULL);
}
