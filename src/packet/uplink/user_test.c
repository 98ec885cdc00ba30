/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * user_test.c - the uplink `user`, with this program as passt, and with passt itself
 *
 * As passt it is called with -f first, and does what FAKE_PASST says.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "packet/offload.h"
#include "packet/uplink/testing_uplink.h"
#include "packet/uplink/user.h"
#include "util/unix_socket.h"

static struct rig rig;
static struct rig_uplink uplink;
static struct rig_port *guest;
static char self[256], directory[] = "/tmp/penstock-user-XXXXXX", path[64];

/* --- passt, as far as a test needs it ------------------------------------------------------ */

static void note_pid(const char *file)
{
	FILE *to = fopen(file, "w");

	fprintf(to, "%d\n", getpid());
	fclose(to);
}

/* Sends every frame back to where it came from, until the other end is closed. */
static int echo(int fd)
{
	static uint8_t bytes[4 + 65535];
	uint8_t address[6];
	uint32_t length;

	for (;;) {
		if (recv(fd, bytes, 4, MSG_WAITALL) != 4)
			return 0;
		length = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 |
			 (uint32_t)bytes[2] << 8 | bytes[3];
		if (length > 65535 || recv(fd, bytes + 4, length, MSG_WAITALL) != (ssize_t)length)
			return 1;
		memcpy(address, bytes + 4, 6);
		memcpy(bytes + 4, bytes + 10, 6);
		memcpy(bytes + 10, address, 6);
		if (bytes[10] != 0xff && send(fd, bytes, 4 + length, MSG_NOSIGNAL) < 0)
			return 0;
	}
}

static int fake_passt(const char *what)
{
	if (!strcmp(what, "die")) {
		fprintf(stderr, "Failed to send 5 bytes to syslog\n");
		fprintf(stderr, "Failed to bind any port for '-t 80', exiting\n");
		return 1;
	}
	if (!strcmp(what, "garbage")) {
		char bytes[70];

		memset(bytes, 0x77, sizeof bytes);
		recv(USER_CHILD_FD, bytes, 64, MSG_WAITALL);
		return send(USER_CHILD_FD, "wwwwwwwwwwww", 12, 0) == 12 ? echo(USER_CHILD_FD) : 1;
	}
	if (!strncmp(what, "first:", 6)) { /* whose port another one has just left */
		what += 6;
		if (access(what, F_OK)) {
			note_pid(what);
			return fake_passt("die");
		}
	}
	note_pid(what); /* the rest is a file's name */
	fprintf(stderr, "it runs\n");
	return echo(USER_CHILD_FD);
}

static pid_t fake_pid(void)
{
	for (unsigned i = 0; i < 1000; i++) {
		FILE *from = fopen(path, "r");
		int pid = 0;

		if (from && fscanf(from, "%d", &pid) != 1)
			pid = 0;
		if (from)
			fclose(from);
		if (pid)
			return pid;
		usleep(5000);
	}
	return 0;
}

/* --- the uplink ---------------------------------------------------------------------------- */

static const char *const plain[] = { "program", self, NULL };

static bool begin(const char *what, const char *const *options, unsigned accepts)
{
	setenv("FAKE_PASST", what, 1);
	unlink(path);
	rig_begin(&rig, 2, NULL);
	guest = rig_plug(&rig, "guest", 1, accepts, NULL);
	uplink = (struct rig_uplink){ .rig = &rig, .kind = "user", .options = options };
	return rig_uplink(&uplink);
}

static void end(void)
{
	if (uplink.uplink)
		rig_uplink_end(&uplink);
	json_decref(uplink.report);
	rig_unplug(guest);
	rig_end(&rig);
}

static uint64_t drops(enum port_drop cause)
{
	return stats_read(&uplink.uplink->lane->stats.direction[PACKET_OUT].drops[cause]);
}

static void test_both_ways(void **state)
{
	pid_t pid;

	(void)state;
	assert_true(begin(path, plain, 0));
	assert_true(rig_uplink_await(&uplink, true, NULL));
	rig_send_one(guest, 9, 1);
	assert_true(rig_await_seen(guest, 1));
	assert_int_equal(guest->frame[0].length, 100);
	assert_int_equal(guest->frame[0].start[5], 1);
	assert_int_equal(guest->frame[0].start[11], 9);
	assert_int_equal(guest->frame[0].last, 99);
	assert_int_equal(guest->frame[0].offload.flags, VIRTIO_NET_HDR_F_DATA_VALID);
	pid = fake_pid();
	end();
	assert_int_equal(kill(pid, 0), -1); /* nothing is left behind */
	assert_int_equal(errno, ESRCH);
}

static void test_restart(void **state)
{
	pid_t first, pid;

	(void)state;
	assert_true(begin(path, plain, 0));
	assert_true(rig_uplink_await(&uplink, true, NULL));
	for (unsigned i = 0; i < 3; i++) {
		first = fake_pid();
		unlink(path);
		kill(first, SIGKILL);
		assert_true(rig_uplink_await(&uplink, false, "passt has ended by signal 9"));
		pid = fake_pid();
		assert_int_not_equal(pid, first);
		assert_true(rig_uplink_await(&uplink, true, NULL));
		rig_send_one(guest, 9, 1);
		assert_true(rig_await_seen(guest, i + 1));
	}
	assert_int_equal(json_integer_value(json_object_get(uplink.report, "connections")), 4);
	setenv("FAKE_PASST", "die", 1); /* and one that does not come up any more */
	kill(pid, SIGKILL);
	assert_true(rig_uplink_await(&uplink, false, "Failed to bind any port"));
	unlink(path);
	setenv("FAKE_PASST", path, 1);
	assert_true(rig_uplink_await(&uplink, true, NULL));
	pid = fake_pid();
	end();
	assert_int_equal(kill(pid, 0), -1);
}

/* The passt of one that was killed a moment ago still has the port. */
static void test_port_soon_free(void **state)
{
	char what[sizeof path + 6];

	(void)state;
	snprintf(what, sizeof what, "first:%s", path);
	assert_true(begin(what, plain, 0));
	assert_true(rig_uplink_await(&uplink, true, NULL));
	rig_send_one(guest, 9, 1);
	assert_true(rig_await_seen(guest, 1));
	end();
}

/* It is stopped while it waits to start passt again, and while that starts. */
static void test_end_while_down(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		assert_true(begin(path, plain, 0));
		assert_true(rig_uplink_await(&uplink, true, NULL));
		kill(fake_pid(), SIGKILL);
		usleep(i * 5000);
		end();
	}
}

/* When we die, however, it goes. */
static void test_orphan(void **state)
{
	pid_t child, pid;
	int status;

	(void)state;
	unlink(path);
	child = fork();
	if (!child) {
		execl(self, self, "orphan", path, NULL);
		_exit(1);
	}
	pid = fake_pid();
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
	for (unsigned i = 0; i < 1000 && !kill(pid, 0); i++) {
		char name[64], text[256] = "";
		FILE *stat;

		snprintf(name, sizeof name, "/proc/%d/stat", pid);
		stat = fopen(name, "r");
		if (stat && fgets(text, sizeof text, stat) && strstr(text, ") Z"))
			i = 1000; /* ended; whoever is our init does not wait for it */
		if (stat)
			fclose(stat);
		assert_true(i < 999 || strstr(text, ") Z"));
		usleep(5000);
	}
}

_Noreturn static void orphan(const char *file)
{
	static const char *const options[] = { "program", self, NULL };

	snprintf(path, sizeof path, "%s", file);
	begin(path, options, 0);
	for (;;)
		pause();
}

static void test_mistakes(void **state)
{
	static const struct {
		const char *name, *value, *text;
	} mistakes[] = {
		{ "forward", "http", "forward: 'http'" },
		{ "forward", "8080:80,", "forward: ''" },
		{ "forward", "0:80", "forward: '0:80'" },
		{ "forward", "65536", "forward: '65536'" },
		{ "forward", "tcp:1.2.3:80", "forward: 'tcp:1.2.3:80'" },
		{ "forward", "[::1:80", "forward: '[::1:80'" },
		{ "forward", "1000-1010:80", "as many ports" },
		{ "forward", "80:90:100", "forward: '80:90:100'" },
		{ "guest", "52:54:00:12:34", "guest: expected a MAC" },
		{ "address", "10.0.2.15/33", "address: '10.0.2.15/33'" },
		{ "address", "fd00::1/64", "address: 'fd00::1/64'" },
		{ "gateway", "there", "gateway: 'there'" },
		{ "dns", "some", "dns: 'some'" },
		{ "program", "/nonexistent/passt", "cannot run /nonexistent/passt: No such file" },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
		const char *const options[] = { mistakes[i].name, mistakes[i].value, NULL };

		assert_false(begin(path, options, 0));
		if (!strstr(uplink.err.text, mistakes[i].text))
			fail_msg("%s", uplink.err.text);
		end();
	}
	assert_false(begin("die", plain, 0));
	assert_string_equal(uplink.err.text,
			    "passt has ended: Failed to bind any port for '-t 80', exiting");
	end();
}

static void test_arguments(void **state)
{
	struct user_settings settings = { .forward =
						  (char *)"8080:80, udp:5353,tcp:127.0.0.1:22:22,"
							  "udp:[::1]:5000-5010,9000-9001:90-91",
					  .ipv4 = true,
					  .address = (char *)"10.0.2.15/24,fd00::15",
					  .gateway = (char *)"10.0.2.2",
					  .dns = (char *)"none",
					  .interface = (char *)"eth0",
					  .program = (char *)"passt" };
	static const char *const expected[] = {
		"passt",
		"-f",
		"-q",
		"-F",
		"3",
		"-m",
		"9000",
		"-4",
		"--no-map-gw",
		"-i",
		"eth0",
		"-a",
		"10.0.2.15",
		"-n",
		"24",
		"-a",
		"fd00::15",
		"-g",
		"10.0.2.2",
		"-D",
		"none",
		"-t",
		"8080-8080:80-80",
		"-u",
		"5353-5353:5353-5353",
		"-t",
		"127.0.0.1/22-22:22-22",
		"-u",
		"::1/5000-5010:5000-5010",
		"-t",
		"9000-9001:90-91",
	};
	struct user_arguments arguments;

	(void)state;
	assert_int_equal(user_arguments(&settings, 9000, &arguments, NULL), 0);
	assert_int_equal(arguments.count, sizeof expected / sizeof *expected);
	for (unsigned i = 0; i < arguments.count; i++)
		assert_string_equal(arguments.word[i], expected[i]);
	user_arguments_release(&arguments);
	settings = (struct user_settings){
		.ipv6 = true, .ipv4 = true, .loopback = true, .program = (char *)"passt"
	};
	assert_int_equal(user_arguments(&settings, 65535, &arguments, NULL), 0);
	assert_string_equal(arguments.word[6], "65520");
	assert_string_equal(arguments.word[7], "-u"); /* or TCP's would be forwarded */
	assert_string_equal(arguments.word[8], "none");
	assert_int_equal(arguments.count, 9);
	user_arguments_release(&arguments);
}

static void test_garbage(void **state)
{
	(void)state;
	assert_true(begin("garbage", plain, 0));
	assert_true(rig_uplink_await(&uplink, false, "passt sent a frame of 2004318071 bytes"));
	end();
}

/* What passt does not understand does not go there. */
static void test_admission(void **state)
{
	static const char *const only[] = { "program", self, "guest", "02:00:00:00:00:01", NULL };
	uint8_t frame[60];
	struct rig_send send = { .count = 1,
				 .frame = { { .bytes = frame, .length = sizeof frame } } };

	(void)state;
	assert_true(begin(path, only, 0));
	assert_true(rig_uplink_await(&uplink, true, NULL));
	rig_send_one(guest, 9, 2);
	rig_send_one(guest, 9, 1);
	assert_true(rig_await_seen(guest, 1));
	assert_int_equal(guest->frame[0].start[5], 1);
	assert_int_equal(drops(DROP_FILTER), 1);

	rig_frame(frame, sizeof frame, 9, 1, 0x800); /* 28 bytes of IP, and padding */
	memcpy(frame + 14, (uint8_t[]){ 0x45, 0, 0,  28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0,
					0,    1, 10, 0,  0, 9, 0, 1, 0,  2,  0, 8, 0,  0 },
	       28);
	send.port = guest;
	rig_send(&send);
	assert_true(rig_await_seen(guest, 2));
	assert_int_equal(guest->frame[1].length, 42);
	end();
}

/* TCP goes there as the guest sent it, unless it is longer than passt takes. */
static void test_large(void **state)
{
	static uint8_t frame[PACKET_MAX];
	static const uint8_t headers[] = {
		2,    0,    0,  0,  0, 9, 2,    0, 0,  0, 0, 1, 8,    0, /* Ethernet */
		0x45, 0,    0,  0,  0, 1, 0x40, 0, 64, 6, 0, 0, 10,   0,
		0,    1,    10, 0,  0, 9, /* IP */
		0x12, 0x34, 0,  80, 0, 0, 0,    1, 0,  0, 0, 1, 0x50, 0x18,
		1,    0,    0,  0,  0, 0 /* TCP */
	};
	struct rig_send send = { .count = 1, .frame = { { .bytes = frame } } };

	(void)state;
	assert_true(begin(path, plain, 0));
	assert_true(rig_uplink_await(&uplink, true, NULL));
	send.port = guest;
	memset(frame, 'x', sizeof frame);
	memcpy(frame, headers, sizeof headers);
	send.frame[0].offload = (struct packet_offload){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
							 .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
							 .gso_size = 1000,
							 .header_length = 54,
							 .csum_start = 34,
							 .csum_offset = 16 };
	send.frame[0].length = 65535;
	frame[16] = (65535 - 14) >> 8;
	frame[17] = (65535 - 14) & 0xff;
	rig_send(&send);
	assert_true(rig_await_seen(guest, 1));
	assert_int_equal(guest->frame[0].length, 65535);

	send.frame[0].length = 65536;
	frame[16] = (65536 - 14) >> 8;
	frame[17] = (65536 - 14) & 0xff;
	rig_send(&send);
	assert_true(rig_await_seen(guest, 1 + 66)); /* 65,482 bytes of payload */
	assert_int_equal(guest->frame[1].length, 1054);
	assert_int_equal(guest->frame[66].length, 54 + 482);
	end();
}

/* --- segments that become large packets ---------------------------------------------------- */

#define SEGMENTS 70u

struct segments {
	uint8_t bytes[SEGMENTS][1600];
	uint32_t length[SEGMENTS];
	unsigned cut; /* that came back so far */
};

/* A segment with right sums: @payload bytes from @seq on. */
static uint32_t segment(uint8_t *at, bool six, unsigned options, uint32_t seq, uint32_t payload,
			uint8_t flags, uint16_t id)
{
	static const uint8_t ethernet[] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9 };
	uint32_t l4 = six ? 54 : 34, tcp = 20 + options + payload;
	uint8_t rest[8] = { 0, 0, (uint8_t)(tcp >> 8), (uint8_t)tcp, 0, 0, 0, 6 };
	uint16_t sum;

	memset(at, 0, l4 + tcp);
	memcpy(at, ethernet, sizeof ethernet);
	if (six) {
		memcpy(at + 12,
		       (uint8_t[]){ 0x86, 0xdd, 0x60, 0, 0, 0, (uint8_t)(tcp >> 8), (uint8_t)tcp, 6,
				    64 },
		       10);
		at[37] = 1;
		at[53] = 2;
	} else {
		memcpy(at + 12,
		       (uint8_t[]){ 8,
				    0,
				    0x45,
				    0,
				    (uint8_t)((tcp + 20) >> 8),
				    (uint8_t)(tcp + 20),
				    (uint8_t)(id >> 8),
				    (uint8_t)id,
				    0,
				    0,
				    64,
				    6,
				    0,
				    0,
				    10,
				    0,
				    0,
				    1,
				    10,
				    0,
				    0,
				    9 },
		       22);
		sum = (uint16_t)~sum_bytes(at + 14, 20, 0);
		memcpy(at + 24, &sum, 2);
	}
	memcpy(at + l4,
	       (uint8_t[]){ 0, 80, 0x12, 0x34, (uint8_t)(seq >> 24), (uint8_t)(seq >> 16),
			    (uint8_t)(seq >> 8), (uint8_t)seq, 0, 0, 0, 7,
			    (uint8_t)((20 + options) << 2), flags, 1, 0 },
	       16);
	memset(at + l4 + 20, 1, options);
	for (uint32_t i = 0; i < payload; i++)
		at[l4 + 20 + options + i] = (uint8_t)(seq + i);
	sum = (uint16_t)sum_bytes(rest, sizeof rest,
				  six ? sum_bytes(at + 22, 32, 0) : sum_bytes(at + 26, 8, 0));
	sum = (uint16_t)~sum_bytes(at + l4, tcp, sum);
	memcpy(at + l4 + 16, &sum, 2);
	return l4 + tcp;
}

static void compare(void *data, struct packet_batch *batch)
{
	struct segments *segments = data;
	static uint8_t got[PACKET_MAX];
	unsigned i;

	for_each_packet (batch, i) {
		const struct packet *packet = batch->packet[i];
		unsigned n = segments->cut++;

		assert_true(n < SEGMENTS);
		assert_int_equal(packet->length, segments->length[n]);
		packet_copy_out(packet, 0, got, packet->length);
		assert_memory_equal(got, segments->bytes[n], packet->length);
	}
}

static void released(struct burst *burst)
{
	(void)burst;
}

static void merge_all(struct burst *burst, struct segments *segments, unsigned count)
{
	burst_begin(burst);
	for (unsigned i = 0; i < count; i++) {
		if (burst->count && user_merge(burst, segments->bytes[i], segments->length[i]))
			continue;
		*burst_vec(burst) = (struct iovec){ segments->bytes[i], segments->length[i] };
		assert_non_null(burst_add(burst, 1, 0, segments->length[i]));
	}
	user_merged(burst);
}

/* What was merged is cut into just what there was. */
static void test_merge(void **state)
{
	static struct segments segments;
	struct burst *burst = burst_create(released, NULL);

	(void)state;
	for (unsigned round = 0; round < 8; round++) {
		bool six = round & 1;
		unsigned options = round & 2 ? 12 : 0, full = round & 4 ? 40 : 1400;
		uint32_t seq = 0xfffff000, most = 65535 - (six ? 0 : 20) - 20 - options, last = 0;
		unsigned packets;

		for (unsigned i = 0; i < SEGMENTS; i++) {
			last = i == SEGMENTS - 1 ? 7 : full;
			segments.length[i] = segment(segments.bytes[i], six, options, seq, last,
						     i == SEGMENTS - 1 ? 0x18 : 0x10,
						     (uint16_t)(5 + i));
			seq += last;
		}
		merge_all(burst, &segments, SEGMENTS);
		packets = ((SEGMENTS - 1) * full + 7 + most - 1) / (most / full * full);
		assert_int_equal(burst->count, packets);
		segments.cut = 0;
		for (unsigned i = 0; i < burst->count; i++) {
			struct packet *packet = &burst->packets[i];

			assert_int_equal(packet->offload.gso_size, full);
			assert_int_equal(offload_check(packet), OFFLOAD_GOOD);
			assert_int_not_equal(packet->offload.gso_type, 0);
			assert_true(offload_fits(packet, six ? OFFLOAD_CSUM | OFFLOAD_TSO6
							     : OFFLOAD_CSUM | OFFLOAD_TSO4));
			offload_resolve(packet, 0, compare, &segments);
		}
		assert_int_equal(segments.cut, SEGMENTS);
	}
	burst_free(burst);
}

/* What does not go on where the last one ended stays what it is. */
static void test_not_merged(void **state)
{
	static struct segments segments;
	struct burst *burst = burst_create(released, NULL);
	static const struct {
		unsigned at;
		uint8_t change;
	} changes[] = { { 0, 1 },  { 11, 1 },    { 13, 6 },  { 14, 1 },    { 15, 4 }, { 20, 0x20 },
			{ 21, 1 }, { 22, 1 },    { 23, 17 }, { 29, 1 },    { 33, 1 }, { 35, 1 },
			{ 37, 1 }, { 41, 1 },    { 45, 1 },  { 46, 0x10 }, { 47, 1 }, { 47, 2 },
			{ 47, 4 }, { 47, 0x20 }, { 48, 1 },  { 53, 1 },    { 17, 1 } };

	(void)state;
	for (unsigned i = 0; i < 2; i++)
		segments.length[i] =
			segment(segments.bytes[i], false, 0, 1000 + 500 * i, 500, 0x10, 0);
	merge_all(burst, &segments, 2);
	assert_int_equal(burst->count, 1);
	for (unsigned i = 0; i < sizeof changes / sizeof *changes; i++) {
		segments.bytes[1][changes[i].at] ^= changes[i].change;
		merge_all(burst, &segments, 2);
		assert_int_equal(burst->count, 2);
		assert_int_equal(burst->packets[0].offload.gso_type, 0);
		segments.bytes[1][changes[i].at] ^= changes[i].change;
	}
	segments.length[1] = segment(segments.bytes[1], false, 0, 1500, 501, 0x10, 0); /* longer */
	merge_all(burst, &segments, 2);
	assert_int_equal(burst->count, 2);
	segments.length[1] = segment(segments.bytes[1], false, 0, 1500, 499, 0x10, 0);
	segments.length[2] = segment(segments.bytes[2], false, 0, 1999, 500, 0x10, 0);
	merge_all(burst, &segments, 3); /* a shorter one was the last */
	assert_int_equal(burst->count, 2);
	segments.length[1] = segment(segments.bytes[1], false, 0, 1500, 500, 0x18, 0);
	segments.length[2] = segment(segments.bytes[2], false, 0, 2000, 500, 0x10, 0);
	merge_all(burst, &segments, 3); /* so is one with PSH */
	assert_int_equal(burst->count, 2);
	segments.length[1] = segment(segments.bytes[1], false, 0, 1500, 0, 0x10, 0);
	merge_all(burst, &segments, 2); /* an acknowledgement alone */
	assert_int_equal(burst->count, 2);
	segments.length[1] = segment(segments.bytes[1], true, 0, 1500, 500, 0x10, 0);
	merge_all(burst, &segments, 2);
	assert_int_equal(burst->count, 2);
	memset(segments.bytes[1], 0, sizeof segments.bytes[1]);
	for (segments.length[1] = 14; segments.length[1] < 80; segments.length[1]++) {
		segments.bytes[1][12] = 8;
		segments.bytes[1][14] = 0x45;
		segments.bytes[1][23] = 6;
		merge_all(burst, &segments, 2);
		assert_int_equal(burst->count, 2);
	}
	burst_free(burst);
}

/* A passt of the user's own, which is not ours to start or end. */
static void test_socket(void **state)
{
	const char *const options[] = { "socket", path, NULL };
	int listener, fd;
	uint8_t bytes[64];

	(void)state;
	assert_true(begin("die", options, 0));
	assert_true(rig_uplink_await(&uplink, false, "No such file"));
	listener = unix_socket_listen(path, 0600, NULL);
	for (unsigned i = 0; i < 2; i++) {
		struct pollfd wait = { .fd = listener, .events = POLLIN };

		assert_int_equal(poll(&wait, 1, 5000), 1);
		fd = accept(listener, NULL, NULL);
		assert_true(rig_uplink_await(&uplink, true, NULL));
		assert_true(rig_read(fd, bytes, 64));
		assert_int_equal(bytes[3], 60);
		assert_int_equal(bytes[10], 0xff);
		close(fd);
		assert_true(rig_uplink_await(&uplink, false, "closed"));
	}
	close(listener);
	end();
}

/* The real one answers ARP, if there is one, and a network that it can use. */
static void test_passt(void **state)
{
	static const char *const options[] = { "address", "10.0.2.15/24", "gateway", "10.0.2.2",
					       "ipv6",    "false",        NULL };
	static const uint8_t who_has[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,  0, 0, 0,  0,
					   1,    8,    6,    0,    1,    8,    0,  6, 4, 0,  1,
					   2,    0,    0,    0,    0,    1,    10, 0, 2, 15, 0,
					   0,    0,    0,    0,    0,    10,   0,  2, 2 };
	struct rig_send send = { .count = 1,
				 .frame = { { .bytes = who_has, .length = sizeof who_has } } };

	(void)state;
	if (!begin(path, options, 0)) {
		print_message("%s\n", uplink.err.text);
		end();
		skip();
	}
	assert_true(rig_uplink_await(&uplink, true, NULL));
	send.port = guest;
	rig_send(&send);
	assert_true(rig_await_seen(guest, 1));
	assert_int_equal(guest->frame[0].start[13], 6);
	assert_int_equal(guest->frame[0].start[21], 2); /* a reply */
	assert_memory_equal(guest->frame[0].start + 28, who_has + 38, 4);
	end();
}

static int make_directory(void **state)
{
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	(void)state;
	if (n < 0 || !mkdtemp(directory))
		return -1;
	self[n] = 0;
	snprintf(path, sizeof path, "%s/passt", directory);
	return 0;
}

static int remove_directory(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(directory);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_ways),      cmocka_unit_test(test_restart),
		cmocka_unit_test(test_port_soon_free), cmocka_unit_test(test_end_while_down),
		cmocka_unit_test(test_orphan),         cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_arguments),      cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_admission),      cmocka_unit_test(test_large),
		cmocka_unit_test(test_merge),          cmocka_unit_test(test_not_merged),
		cmocka_unit_test(test_socket),         cmocka_unit_test(test_passt),
	};

	if (argc > 1 && !strcmp(argv[1], "-f"))
		return fake_passt(getenv("FAKE_PASST"));
	if (argc > 2 && !strcmp(argv[1], "orphan")) {
		ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

		self[n > 0 ? n : 0] = 0;
		orphan(argv[2]);
	}
	return cmocka_run_group_tests_name("packet/uplink/user", tests, make_directory,
					   remove_directory);
}
