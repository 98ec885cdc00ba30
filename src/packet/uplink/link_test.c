/* SPDX-License-Identifier: BSD-3-Clause */
/* link_test.c - the uplink `link`, with a test as the other daemon */
#include <errno.h>
#include <linux/virtio_net.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include "packet/offload.h"
#include "packet/uplink/link_format.h"
#include "packet/uplink/stream_queue.h"
#include "packet/uplink/testing_uplink.h"
#include "util/unix_socket.h"

#define ALL_OFFLOADS 0x3fu

static struct rig rig;
static struct rig_uplink uplink;
static struct rig_port *guest;
static atomic_bool no_memory; /* for what waits for a socket */
static char directory[] = "/tmp/penstock-link-XXXXXX", path[64];

void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
	if (length == STREAM_QUEUE && atomic_load(&no_memory)) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}

/* --- a daemon ----------------------------------------------------------------------------- */

static void begin(const char *role, unsigned accepts)
{
	static const char *options[] = { NULL, path, NULL };

	options[0] = role;
	rig_begin(&rig, 2, NULL);
	guest = rig_plug(&rig, "guest", 1, accepts, NULL);
	uplink = (struct rig_uplink){ .rig = &rig, .kind = "link", .options = options };
	assert_true(rig_uplink(&uplink));
}

static void end(void)
{
	rig_uplink_end(&uplink);
	json_decref(uplink.report);
	rig_unplug(guest);
	rig_end(&rig);
}

/* --- the other side ------------------------------------------------------------------------ */

static int say_hello(int fd, unsigned accepts)
{
	const struct link_hello mine = { .accepts = accepts, .mtu = 65535 };
	struct link_hello theirs;
	uint8_t bytes[LINK_HELLO];
	struct error err = { 0 };

	link_hello_write(&mine, bytes);
	assert_int_equal(send(fd, bytes, sizeof bytes, 0), sizeof bytes);
	assert_true(rig_read(fd, bytes, sizeof bytes));
	assert_int_equal(link_hello_read(bytes, &theirs, &err), 0);
	assert_int_equal(theirs.accepts, ALL_OFFLOADS);
	assert_int_equal(theirs.mtu, 65535);
	return fd;
}

static int join(unsigned accepts)
{
	int fd = unix_socket_connect(path, NULL);

	assert_true(fd >= 0);
	say_hello(fd, accepts);
	assert_true(rig_uplink_await(&uplink, true, NULL));
	return fd;
}

/* Header and frame of @length bytes at @to; the bytes of both. */
static size_t record(uint8_t *to, uint32_t length, uint8_t destination, uint8_t source)
{
	struct packet packet = { 0 };

	link_header_write(&packet, length, to);
	rig_frame(to + LINK_HEADER, length, destination, source, 0x88b5);
	return LINK_HEADER + length;
}

static void send_record(int fd, uint32_t length, uint8_t destination, uint8_t source)
{
	static uint8_t bytes[LINK_HEADER + PACKET_MAX];
	size_t count = record(bytes, length, destination, source);

	assert_int_equal(send(fd, bytes, count, 0), count);
}

/* --- tests --------------------------------------------------------------------------------- */

static void test_both_ways(void **state)
{
	uint8_t bytes[LINK_HEADER + 100];
	struct stat st;
	int fd;

	(void)state;
	begin("listen", 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_true(rig_uplink_await(&uplink, false, "has not connected yet"));
	rig_send_one(guest, 9, 1);
	assert_int_equal(rig_drops(guest, PACKET_IN, DROP_DOWN), 0);
	assert_int_equal(stats_read(&uplink.uplink->port->lanes[1]
					     ->stats.direction[PACKET_OUT]
					     .drops[DROP_DOWN]),
			 1);
	fd = join(0);
	send_record(fd, 100, 1, 9);
	assert_true(rig_await_seen(guest, 1));
	assert_int_equal(guest->frame[0].length, 100);
	assert_int_equal(guest->frame[0].last, 99);
	assert_false(guest->frame[0].tagged);
	rig_send_one(guest, 9, 1);
	assert_true(rig_read(fd, bytes, sizeof bytes));
	assert_int_equal(bytes[0], 100);
	assert_int_equal(bytes[LINK_HEADER + 5], 9);
	assert_int_equal(bytes[LINK_HEADER + 99], 99);
	close(fd);
	end();
	assert_int_equal(stat(path, &st), -1);
}

/* Frames of all sizes, in pieces as they may come from a socket. */
static void test_pieces(void **state)
{
	static uint8_t bytes[4 << 20];
	uint32_t lengths[300], count = 0;
	size_t total = 0, sent = 0;
	unsigned seed = 1;
	int fd;

	(void)state;
	begin("listen", 0);
	fd = join(0);
	while (count < 300) {
		uint32_t length = count % 7 == 0 ? PACKET_MAX - (uint32_t)rand_r(&seed) % 9000
						 : 14 + (uint32_t)rand_r(&seed) % 2000;

		lengths[count++] = length;
		total += record(bytes + total, length, 1, 9);
	}
	while (sent < total) {
		size_t piece = 1 + (size_t)rand_r(&seed) % (sent % 3 ? 50 : 90000);

		if (piece > total - sent)
			piece = total - sent;
		assert_int_equal(send(fd, bytes + sent, piece, 0), piece);
		sent += piece;
	}
	assert_true(rig_await_seen(guest, count));
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(guest->frame[i].length, lengths[i]);
		if (lengths[i] > 14)
			assert_int_equal(guest->frame[i].last, (uint8_t)(lengths[i] - 1));
	}
	close(fd);
	end();
}

/* A TCP packet of @payload bytes that nobody has summed or cut. */
static uint32_t large_tcp(uint8_t *frame, uint32_t payload, struct packet_offload *offload)
{
	static const uint8_t headers[] = {
		2,    0,    0,  0,  0, 9, 2,    0, 0,  0, 0, 1, 8,    0, /* Ethernet */
		0x45, 0,    0,  0,  0, 1, 0x40, 0, 64, 6, 0, 0, 10,   0,
		0,    1,    10, 0,  0, 9, /* IP */
		0x12, 0x34, 0,  80, 0, 0, 0,    1, 0,  0, 0, 1, 0x50, 0x18,
		1,    0,    0,  0,  0, 0 /* TCP */
	};
	uint32_t length = (uint32_t)sizeof headers + payload;

	memset(frame, 'x', length);
	memcpy(frame, headers, sizeof headers);
	frame[16] = (uint8_t)((length - 14) >> 8);
	frame[17] = (uint8_t)(length - 14);
	*offload = (struct packet_offload){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					    .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
					    .gso_size = 1000,
					    .header_length = 54,
					    .csum_start = 34,
					    .csum_offset = 16 };
	return length;
}

static void test_offloads(void **state)
{
	static uint8_t frame[60000], bytes[LINK_HEADER + sizeof frame];
	struct rig_send send = { .count = 1 };
	struct packet packet = { .head = frame };
	uint32_t length = large_tcp(frame, 50000, &packet.offload), got;
	struct error err = { 0 };
	int fd;

	(void)state;
	begin("listen", ALL_OFFLOADS);
	fd = join(ALL_OFFLOADS);
	send.port = guest;
	send.frame[0].bytes = frame;
	send.frame[0].length = length;
	send.frame[0].offload = packet.offload;
	rig_send(&send); /* as it is */
	assert_true(rig_read(fd, bytes, LINK_HEADER + length));
	assert_int_equal(link_header_read(bytes, &got, &err), 0);
	assert_int_equal(got, length);
	link_header_apply(bytes, &packet);
	assert_memory_equal(&packet.offload, &send.frame[0].offload, sizeof packet.offload);
	assert_memory_equal(bytes + LINK_HEADER, frame, length);

	memcpy(bytes + LINK_HEADER, (uint8_t[]){ 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9 }, 12);
	assert_int_equal(write(fd, bytes, LINK_HEADER + length), LINK_HEADER + length);
	assert_true(rig_await_seen(guest, 1)); /* and back */
	assert_int_equal(guest->frame[0].length, length);
	assert_memory_equal(&guest->frame[0].offload, &packet.offload, sizeof packet.offload);
	close(fd);

	assert_true(rig_uplink_await(&uplink, false, "closed"));
	fd = join(0); /* one that takes none */
	rig_send(&send);
	for (unsigned i = 0; i < 50; i++) {
		assert_true(rig_read(fd, bytes, LINK_HEADER + 1054));
		assert_int_equal(link_header_read(bytes, &got, &err), 0);
		assert_int_equal(got, 1054);
		link_header_apply(bytes, &packet);
		assert_int_equal(packet.offload.flags, 0);
	}
	close(fd);
	end();
}

static void test_tag(void **state)
{
	static const char *const trunk[] = { "trunk", "20", NULL };
	struct packet packet = { .tagged = true, .tag = 0x6014 };
	uint8_t bytes[LINK_HEADER + 100];
	struct rig_port *other;
	int fd;

	(void)state;
	begin("listen", 0);
	other = rig_plug(&rig, "other", 0, 0, trunk);
	fd = join(0);
	record(bytes, 100, 0xff, 9);
	link_header_write(&packet, 100, bytes);
	assert_int_equal(send(fd, bytes, sizeof bytes, 0), sizeof bytes);
	send_record(fd, 100, 0xff, 9);
	assert_true(rig_await_seen(guest, 1)); /* the uplink's port has no VLAN 20 */
	assert_int_equal(
		stats_read(&uplink.uplink->lane->stats.direction[PACKET_IN].drops[DROP_VLAN]), 1);
	assert_true(rig_await_seen(other, 1));
	assert_false(other->frame[0].tagged);
	close(fd);
	rig_unplug(other);
	end();
}

/* A peer that does not read: what is queued is bounded, and comes when it reads again. */
static void test_slow_peer(void **state)
{
	static uint8_t frames[PACKET_BURST][1500], bytes[LINK_HEADER + sizeof *frames];
	struct rig_send send = { .count = PACKET_BURST };
	const struct lane_stats *stats;
	uint64_t sent, turns = 0;
	struct rig_port *other; /* on the uplink's own loop */
	int fd;

	(void)state;
	begin("listen", 0);
	fd = join(0);
	other = rig_plug(&rig, "other", 0, 0, NULL);
	send.port = other;
	for (unsigned i = 0; i < PACKET_BURST; i++) {
		rig_frame(frames[i], sizeof *frames, 9, 3, 0x88b5);
		send.frame[i].bytes = frames[i];
		send.frame[i].length = sizeof *frames;
	}
	/* A broadcast first, so that 9 is not flooded to the guest as well. */
	send_record(fd, 100, 0xff, 9);
	assert_true(rig_await_seen(other, 1));
	stats = &uplink.uplink->lane->stats;
	while (!stats_read(&stats->direction[PACKET_OUT].drops[DROP_NO_BUFFER])) {
		for (unsigned i = 0; i < PACKET_BURST; i++) {
			frames[i][20] = (uint8_t)(turns * PACKET_BURST + i);
			frames[i][21] = (uint8_t)((turns * PACKET_BURST + i) >> 8);
		}
		rig_send(&send);
		assert_true(++turns < 1000);
	}
	sent = stats_read(&stats->direction[PACKET_OUT].packets);
	assert_true(sent * sizeof *frames > STREAM_QUEUE - 100000);
	assert_true(sent * sizeof *frames < 4 * STREAM_QUEUE);
	for (uint64_t i = 0; i < sent; i++) {
		assert_true(rig_read(fd, bytes, sizeof bytes));
		assert_int_equal(bytes[0] | bytes[1] << 8, sizeof *frames);
		assert_int_equal(bytes[LINK_HEADER + 20] | bytes[LINK_HEADER + 21] << 8,
				 i & 0xffff);
		assert_int_equal(bytes[sizeof bytes - 1], (uint8_t)(sizeof *frames - 1));
	}
	for (unsigned i = 0; i < 1000; i++) {
		assert_true(rig_uplink_await(&uplink, true, NULL));
		if (!json_integer_value(json_object_get(uplink.report, "queued")))
			break;
		usleep(1000);
	}
	assert_int_equal(json_integer_value(json_object_get(uplink.report, "queued")), 0);
	send.count = 1; /* and on it goes */
	rig_send(&send);
	assert_true(rig_read(fd, bytes, sizeof bytes));
	close(fd);
	rig_unplug(other);
	end();
}

/* Large frames to a peer that reads in pieces: what the socket took in part goes on where it
 * stopped.
 */
static void send_in_parts(int fd)
{
	static uint8_t frame[65000], got[sizeof frame];
	struct rig_send send = { .port = guest, .count = 1 };
	unsigned sent = 0, more = 8; /* when it does not take all any more */

	send.frame[0].bytes = frame;
	send.frame[0].length = sizeof frame;
	while (more) {
		rig_frame(frame, sizeof frame, 9, 1, 0x88b5);
		frame[30] = (uint8_t)sent;
		frame[60000] = (uint8_t)sent;
		rig_send(&send);
		assert_true(++sent < 250);
		assert_true(rig_uplink_await(&uplink, true, NULL));
		if (json_integer_value(json_object_get(uplink.report, "queued")))
			more--;
	}
	for (unsigned i = 0; i < sent; i++) {
		uint8_t header[LINK_HEADER];

		assert_true(rig_read(fd, header, sizeof header));
		assert_int_equal(header[0] | header[1] << 8, sizeof frame);
		for (size_t at = 0; at < sizeof got; at += 1000)
			assert_true(rig_read(fd, got + at, 1000));
		assert_int_equal(got[30], i);
		assert_int_equal(got[60000], i);
		got[30] = frame[30];
		got[60000] = frame[60000];
		assert_memory_equal(got, frame, sizeof got);
	}
}

static void test_parts(void **state)
{
	int fd;

	(void)state;
	begin("listen", 0);
	fd = join(0);
	send_in_parts(fd);
	close(fd);
	end();
}

/* Memory is short: a frame that was begun is finished all the same, or there is no connection. */
static void test_no_memory(void **state)
{
	int fd;

	(void)state;
	begin("listen", 0);
	fd = join(0);
	atomic_store(&no_memory, true);
	send_in_parts(fd);
	close(fd);
	assert_true(rig_uplink_await(&uplink, false, "closed"));
	fd = unix_socket_connect(path, NULL);
	assert_true(fd >= 0);
	assert_true(rig_closed(fd));
	close(fd);
	assert_true(rig_uplink_await(&uplink, false, "out of memory"));
	atomic_store(&no_memory, false);
	fd = join(0);
	send_in_parts(fd);
	close(fd);
	end();
}

static void test_second_is_refused(void **state)
{
	int fd, second;

	(void)state;
	begin("listen", 0);
	fd = join(0);
	second = unix_socket_connect(path, NULL);
	assert_true(second >= 0);
	assert_true(rig_closed(second));
	close(second);
	send_record(fd, 100, 1, 9); /* the first goes on */
	assert_true(rig_await_seen(guest, 1));
	close(fd);
	assert_true(rig_uplink_await(&uplink, false, "closed"));
	fd = join(0); /* and then there is room */
	close(fd);
	end();
}

static void expect_end(int fd, const char *why)
{
	assert_true(rig_closed(fd));
	assert_true(rig_uplink_await(&uplink, false, why));
	close(fd);
}

static void test_hostile(void **state)
{
	uint8_t bytes[LINK_HEADER + 100];
	int fd;

	(void)state;
	begin("listen", 0);
	fd = unix_socket_connect(path, NULL);
	assert_int_equal(write(fd, "GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n", 35), 35);
	expect_end(fd, "no link of Penstock");

	fd = unix_socket_connect(path, NULL);
	link_hello_write(&(struct link_hello){ .mtu = 1500 }, bytes);
	bytes[8] = 2;
	assert_int_equal(write(fd, bytes, LINK_HELLO), LINK_HELLO);
	expect_end(fd, "version 2");

	fd = join(0);
	record(bytes, 100, 1, 9);
	bytes[0] = 13;
	assert_int_equal(write(fd, bytes, sizeof bytes), sizeof bytes);
	expect_end(fd, "a frame of 13 bytes");

	fd = join(0);
	send_record(fd, 100, 1, 9); /* what came before is good */
	memset(bytes, 0xff, sizeof bytes);
	assert_int_equal(write(fd, bytes, sizeof bytes), sizeof bytes);
	expect_end(fd, "a frame of 4294967295 bytes");
	assert_true(rig_await_seen(guest, 1));

	fd = join(0);
	record(bytes, 100, 1, 9);
	bytes[4] = 0x10;
	assert_int_equal(write(fd, bytes, sizeof bytes), sizeof bytes);
	expect_end(fd, "flags 0x10");

	fd = join(0);
	record(bytes, 100, 1, 9);
	bytes[5] = 2;
	assert_int_equal(write(fd, bytes, sizeof bytes), sizeof bytes);
	expect_end(fd, "segmentation 0x02");

	fd = join(0); /* offloads that make no sense drop a frame, no more */
	record(bytes, 100, 1, 9);
	bytes[4] = 1;
	bytes[10] = bytes[11] = 0xff;
	assert_int_equal(write(fd, bytes, sizeof bytes), sizeof bytes);
	send_record(fd, 100, 1, 9);
	assert_true(rig_await_seen(guest, 2));
	assert_int_equal(
		stats_read(&uplink.uplink->lane->stats.direction[PACKET_IN].drops[DROP_OFFLOAD]),
		1);
	close(fd);
	end();
}

static void test_silence(void **state)
{
	int fd;

	(void)state;
	begin("listen", 0);
	fd = unix_socket_connect(path, NULL);
	assert_true(fd >= 0);
	expect_end(fd, "does not say what it is");
	end();
}

static void test_connects_again(void **state)
{
	int listener, fd;

	(void)state;
	begin("connect", 0);
	assert_true(rig_uplink_await(&uplink, false, "No such file"));
	listener = unix_socket_listen(path, 0600, NULL);
	for (unsigned i = 0; i < 3; i++) {
		struct pollfd wait = { .fd = listener, .events = POLLIN };

		assert_int_equal(poll(&wait, 1, 5000), 1);
		fd = accept(listener, NULL, NULL);
		assert_true(fd >= 0);
		say_hello(fd, 0);
		assert_true(rig_uplink_await(&uplink, true, NULL));
		send_record(fd, 100, 1, 9);
		assert_true(rig_await_seen(guest, i + 1));
		close(fd);
		assert_true(rig_uplink_await(&uplink, false, "closed"));
	}
	close(listener);
	unlink(path);
	end();
}

static void test_mistakes(void **state)
{
	static const char *const none[] = { NULL };
	static const char *const both[] = { "listen", "/tmp/a", "connect", "/tmp/b", NULL };
	static const char *const nowhere[] = { "listen", "/nonexistent/a.sock", NULL };
	struct rig_uplink u = { .rig = &rig, .kind = "link", .options = none };

	(void)state;
	rig_begin(&rig, 1, NULL);
	assert_false(rig_uplink(&u));
	assert_non_null(strstr(u.err.text, "either 'listen' or 'connect'"));
	u.options = both;
	assert_false(rig_uplink(&u));
	u.options = nowhere;
	assert_false(rig_uplink(&u));
	assert_non_null(strstr(u.err.text, "/nonexistent/a.sock"));
	rig_end(&rig);
}

static int make_directory(void **state)
{
	(void)state;
	if (!mkdtemp(directory))
		return -1;
	snprintf(path, sizeof path, "%s/link.sock", directory);
	return 0;
}

static int remove_directory(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_ways),         cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_offloads),          cmocka_unit_test(test_tag),
		cmocka_unit_test(test_slow_peer),         cmocka_unit_test(test_parts),
		cmocka_unit_test(test_second_is_refused), cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_silence),           cmocka_unit_test(test_connects_again),
		cmocka_unit_test(test_mistakes),          cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests_name("packet/uplink/link", tests, make_directory,
					   remove_directory);
}
