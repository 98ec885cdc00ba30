/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_test.c - what is captured is what passed, by libpcap's own reading; files that are
 * bounded, continued, and never others'; storage and readers that fail, while packets flow
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pcap/pcap.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <linux/virtio_net.h>

#include "packet/layer/capture.h"
#include "packet/layer/capture_filter.h"
#include "packet/layer/capture_sum.h"
#include "packet/testing.h"

static struct rig rig;
static struct rig_port *a, *b;
static char directory[100];

static char *path_of(const char *name)
{
	static char path[4][500];
	static unsigned turn;

	turn = (turn + 1) % 4;
	snprintf(path[turn], sizeof path[turn], "%s/%s", directory, name);
	return path[turn];
}

static int set_up(void **state)
{
	const char *temporary = getenv("TMPDIR");

	(void)state;
	snprintf(directory, sizeof directory, "%s/penstock-unit-XXXXXX",
		 temporary ? temporary : "/tmp");
	assert_non_null(mkdtemp(directory));
	rig_begin(&rig, 2, NULL);
	a = rig_plug(&rig, "a", 0, 0, NULL);
	b = rig_plug(&rig, "b", 1, 0, NULL);
	return 0;
}

static int tear_down(void **state)
{
	DIR *entries = opendir(directory);
	const struct dirent *entry;

	(void)state;
	rig_unplug(a);
	rig_unplug(b);
	rig_end(&rig);
	while ((entry = readdir(entries)))
		if (*entry->d_name != '.')
			unlink(path_of(entry->d_name));
	closedir(entries);
	assert_int_equal(rmdir(directory), 0);
	return 0;
}

#define LAYERS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void layers_are(struct rig_port *port, const char *const *text)
{
	struct error err = { 0 };

	if (rig_set_layers(port, text, &err))
		fail_msg("%s", err.text);
}

/* --- reading ------------------------------------------------------------------------- */

struct seen {
	unsigned count, disorder;
	uint64_t last;
	uint32_t length[5000], captured[5000];
	uint8_t start[5000][64];
	uint32_t sum[5000]; /* of TCP over IPv4 without tags: 0xffff is right */
};
static struct seen seen;

static uint32_t whole_sum(const uint8_t *frame, uint32_t length, unsigned version,
			  uint8_t protocol);

static void note(u_char *unused, const struct pcap_pkthdr *header, const u_char *bytes)
{
	uint64_t now = (uint64_t)header->ts.tv_sec * 1000000000 + (uint64_t)header->ts.tv_usec;

	(void)unused;
	assert_true(seen.count < 5000);
	seen.disorder += now < seen.last;
	seen.last = now;
	seen.length[seen.count] = header->len;
	seen.captured[seen.count] = header->caplen;
	if (header->caplen > 60 && bytes[12] == 8 && !bytes[13] && bytes[23] == 6)
		seen.sum[seen.count] = whole_sum(bytes, header->caplen, 4, 6);
	memcpy(seen.start[seen.count++], bytes, header->caplen < 64 ? header->caplen : 64);
}

/* All of a file, which must be whole; how many packets it has. */
static unsigned read_whole(const char *path)
{
	char error[PCAP_ERRBUF_SIZE];
	pcap_t *pcap =
		pcap_open_offline_with_tstamp_precision(path, PCAP_TSTAMP_PRECISION_NANO, error);

	seen = (struct seen){ 0 };
	if (!pcap)
		fail_msg("%s: %s", path, error);
	if (pcap_loop(pcap, -1, note, NULL))
		fail_msg("%s: %s", path, pcap_geterr(pcap));
	assert_int_equal(pcap_datalink(pcap), DLT_EN10MB);
	pcap_close(pcap);
	return seen.count;
}

/* The same, of what came in on one loop: in the order of time. */
static unsigned read_file(const char *path)
{
	unsigned count = read_whole(path);

	assert_int_equal(seen.disorder, 0);
	return count;
}

/* What the layer says of itself, by name. */
struct asked {
	const char *name;
	json_int_t number;
	char text[400];
};

static void ask_now(void *data)
{
	struct asked *asked = data;
	struct packet_layer *layer = a->port->layers[0];
	json_t *report = layer->ops->report(layer), *value = json_object_get(report, asked->name);

	asked->number = json_integer_value(value);
	snprintf(asked->text, sizeof asked->text, "%s",
		 json_is_string(value) ? json_string_value(value) : "");
	json_decref(report);
}

static struct asked ask(const char *name)
{
	struct asked asked = { .name = name };

	rig_do(rig.control, ask_now, &asked);
	return asked;
}

/* Waits until the writer has done @wanted of @name, 10 s at most. */
static void await(const char *name, json_int_t wanted)
{
	for (unsigned i = 0; i < 10000 && ask(name).number != wanted; i++)
		usleep(1000);
	assert_int_equal(ask(name).number, wanted);
}

/* --- sending ------------------------------------------------------------------------- */

/* @count frames of @length bytes, numbered in byte 20. */
static void send_many(unsigned count, uint32_t length)
{
	static uint8_t frames[PACKET_BURST][9000];

	while (count) {
		struct rig_send send = { .port = a,
					 .count = count < PACKET_BURST ? count : PACKET_BURST };

		for (unsigned i = 0; i < send.count; i++) {
			rig_frame(frames[i], length, 2, 1, 0x88b5);
			frames[i][20] = (uint8_t)i;
			send.frame[i].bytes = frames[i];
			send.frame[i].length = length;
		}
		rig_send(&send);
		if (b->seen > RIG_SEEN / 2)
			b->seen = 0;
		count -= send.count;
	}
}

/* An IPv4 or IPv6 frame with TCP or UDP in it, of @payload bytes. Returns its length. */
static uint32_t ip_frame(uint8_t *frame, unsigned version, uint8_t protocol, uint16_t port,
			 uint32_t payload)
{
	uint32_t l3 = version == 4 ? 20 : 40, l4 = protocol == 6 ? 20 : 8;
	uint32_t length = 14 + l3 + l4 + payload;

	rig_frame(frame, length, 2, 1, version == 4 ? 0x0800 : 0x86dd);
	memset(frame + 14, 0, l3 + l4);
	if (version == 4) {
		frame[14] = 0x45;
		frame[16] = (uint8_t)((length - 14) >> 8);
		frame[17] = (uint8_t)(length - 14);
		frame[22] = 64;
		frame[23] = protocol;
		memcpy(frame + 26, "\x0a\0\0\1\x0a\0\0\2", 8);
	} else {
		frame[14] = 0x60;
		frame[18] = (uint8_t)((length - 54) >> 8);
		frame[19] = (uint8_t)(length - 54);
		frame[20] = protocol;
		frame[21] = 64;
		frame[22] = 0xfd;
		frame[37] = 1;
		frame[38] = 0xfd;
		frame[53] = 2;
	}
	frame[14 + l3] = 4;
	frame[14 + l3 + 2] = (uint8_t)(port >> 8);
	frame[14 + l3 + 3] = (uint8_t)port;
	if (protocol == 6)
		frame[14 + l3 + 12] = 0x50;
	else {
		frame[14 + l3 + 4] = (uint8_t)((8 + payload) >> 8);
		frame[14 + l3 + 5] = (uint8_t)(8 + payload);
	}
	return length;
}

/* --- filters ------------------------------------------------------------------------- */

static const char *const filters[] = {
	"ip",
	"ip6",
	"arp",
	"tcp",
	"udp",
	"tcp port 80",
	"not tcp port 80",
	"src port 1024 or dst port 80",
	"portrange 80-90",
	"host 10.0.0.1 and udp",
	"net 10.0.0.0/24",
	"ip6 host fd00::1",
	"ether host 02:00:00:00:00:01",
	"ether broadcast or ether multicast",
	"vlan",
	"vlan 10",
	"vlan 10 and tcp",
	"vlan and vlan",
	"greater 100",
	"less 90",
	"len > 70 and len <= 200",
	"tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
	"tcp[20:4] = 0x47455420",
	"ip[6:2] & 0x1fff = 0",
	"ether[100:2] = 0x6465",
	"udp[8] / 3 = 14 or udp[9] % 7 = 2",
	"ip protochain 6",
	"ip6 protochain 17",
	"ether[12:2] ^ 0x800 = 0 and (ether[14] << 2) > 8",
	"icmp6 or icmp",
};

static void release(struct burst *unused)
{
	(void)unused;
}

/* The same packets through libpcap's own machine, which wants them in one piece. */
static void test_filter(void **unused)
{
	struct burst *burst = burst_create(release, NULL);
	pcap_t *pcap = pcap_open_dead(DLT_EN10MB, PACKET_MAX);
	unsigned matched = 0, others = 0;
	const uint16_t types[] = { htons(0x0800), htons(0x0806), htons(0x8100) };

	(void)unused;
	srand(7);
	for (unsigned f = 0; f < sizeof filters / sizeof *filters; f++) {
		struct capture_filter filter;
		struct bpf_program program;
		struct error err = { 0 };

		if (capture_filter_compile(&filter, filters[f], &err))
			fail_msg("%s", err.text);
		assert_int_equal(pcap_compile(pcap, &program, filters[f], 1, PCAP_NETMASK_UNKNOWN),
				 0);
		for (unsigned turn = 0; turn < 4000; turn++) {
			static uint8_t frame[2000], whole[2004];
			uint32_t length, kind = (uint32_t)rand() % 8, extra = 0;
			struct packet *packet;
			bool ours, theirs;

			if (kind < 6) {
				length = ip_frame(frame, kind & 1 ? 4 : 6, kind & 2 ? 6 : 17,
						  (uint16_t)(78 + rand() % 5),
						  (uint32_t)rand() % 300);
				if (length > 80 && !(rand() % 4))
					memcpy(frame + 54, "GET ", 4);
				if (kind & 1 && kind & 2)
					frame[47] = (uint8_t)rand(); /* TCP's flags */
				if (kind & 1 && !(rand() % 8))
					frame[23] = 1; /* ICMP */
				if (!(rand() % 4))
					frame[14 + rand() % (length - 14)] = (uint8_t)rand();
				if (!(rand() % 8))
					length = 14 + (uint32_t)rand() % (length - 14);
			} else {
				length = 14 + (uint32_t)rand() % 400;
				for (uint32_t i = 0; i < length; i++)
					frame[i] = (uint8_t)rand();
				if (kind == 7)
					memcpy(frame + 12, &types[rand() % 3], 2);
			}
			if (!(rand() % 10))
				memset(frame, 0xff, 6);
			burst_begin(burst);
			for (uint32_t at = 0, i = 0; at < length; i++) {
				uint32_t n = 1 + (uint32_t)rand() % 60;

				n = n < length - at ? n : length - at;
				burst_vec(burst)[i] = (struct iovec){ frame + at, n };
				at += n;
				extra = i + 1;
			}
			packet = burst_add(burst, extra, 0, length);
			assert_non_null(packet);
			if (rand() % 2 && packet->head_length > 20) {
				/* as if less had been looked at: the rest is in the body */
				packet->head_length = 14;
				packet->body = burst->vec;
				burst->vec[0] = (struct iovec){ frame + 14, length - 14 };
				packet->body_count = 1;
			}
			memcpy(whole, frame, length);
			if (rand() % 2) {
				packet->tagged = true;
				packet->tag = (uint16_t)(8 + rand() % 4);
				memcpy(whole + 12,
				       ((uint8_t[]){ 0x81, 0, (uint8_t)(packet->tag >> 8),
						     (uint8_t)packet->tag }),
				       4);
				memcpy(whole + 16, frame + 12, length - 12);
				length += 4;
			}
			ours = capture_filter_matches(&filter, packet);
			theirs = bpf_filter(program.bf_insns, whole, length, length);
			if (ours != theirs)
				fail_msg("'%s' of %u bytes%s: %d, libpcap %d", filters[f], length,
					 packet->tagged ? " with a tag" : "", ours, theirs);
			matched += ours;
			others += !ours;
		}
		if (!matched || !others)
			fail_msg("'%s' matched %u of 4000", filters[f], matched);
		matched = others = 0;
		pcap_freecode(&program);
		capture_filter_release(&filter);
	}
	pcap_close(pcap);
	burst_free(burst);
}

static void test_filter_is_wrong(void **state)
{
	struct error err = { 0 };

	(void)state;
	assert_int_equal(rig_set_layers(a,
					LAYERS("capture", "file", path_of("x"), "filter",
					       "tcp prt 80", NULL),
					&err),
			 -EINVAL);
	assert_non_null(strstr(err.text, "filter: 'tcp prt 80': "));
	assert_int_equal(access(path_of("x"), F_OK), -1);
}

/* Extension headers without end: the guest's, so it must not keep us long. */
static void test_filter_goes_round(void **state)
{
	static uint8_t frame[9000];
	struct burst *burst = burst_create(release, NULL);
	struct capture_filter filter;

	(void)state;
	ip_frame(frame, 6, 0, 0, 8000);
	memset(frame + 54, 0, sizeof frame - 54); /* hop-by-hop, 8 bytes each */
	burst_begin(burst);
	burst_vec(burst)[0] = (struct iovec){ frame, sizeof frame };
	assert_int_equal(capture_filter_compile(&filter, "ip6 protochain 6", NULL), 0);
	assert_false(capture_filter_matches(&filter, burst_add(burst, 1, 0, sizeof frame)));
	capture_filter_release(&filter);
	burst_free(burst);
}

/* --- sums ---------------------------------------------------------------------------- */

/* The sum over pseudo header and all: 0xffff if it is right. */
static uint32_t whole_sum(const uint8_t *frame, uint32_t length, unsigned version, uint8_t protocol)
{
	uint32_t l3 = version == 4 ? 20 : 40, l4 = length - 14 - l3;
	uint8_t last[8] = { 0, 0, (uint8_t)(l4 >> 8), (uint8_t)l4, 0, 0, 0, protocol };
	uint32_t sum = version == 4 ? sum_bytes(frame + 26, 8, 0) : sum_bytes(frame + 22, 32, 0);

	return sum_bytes(frame + 14 + l3, l4, sum_bytes(last, 8, sum));
}

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

/* --- files --------------------------------------------------------------------------- */

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

/* Files of the directory that have numbers: how many, and the highest. */
static unsigned numbered(unsigned *highest)
{
	DIR *entries = opendir(directory);
	const struct dirent *entry;
	unsigned count = 0, number;

	*highest = 0;
	while ((entry = readdir(entries))) {
		if (sscanf(entry->d_name, "ring-%u.pcapng", &number) != 1)
			continue;
		count++;
		if (number > *highest)
			*highest = number;
	}
	closedir(entries);
	return count;
}

static void write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void test_ring_of_files(void **state)
{
	const char *file = path_of("ring.pcapng");
	char name[400];
	struct error err = { 0 };
	unsigned highest, before;
	struct stat info;

	(void)state;
	write_text(path_of("ring-00003.pcapng"), "not ours");
	layers_are(a, LAYERS("capture", "file", file, "file-size", "64K", "files", "3", NULL));
	assert_int_equal(
		rig_set_layers(b, LAYERS("capture", "file", file, "file-size", "1M", NULL), &err),
		-EBUSY);
	assert_non_null(strstr(err.text, "another capture writes to ring-00004.pcapng"));
	send_many(640, 1000);
	await("packets", 640);
	assert_int_equal(numbered(&highest), 4); /* and the one that is not ours */
	assert_true(highest > 8);
	snprintf(name, sizeof name, "ring-%05u.pcapng", highest);
	assert_string_equal(ask("file").text, path_of(name));
	layers_are(a, LAYERS("count", NULL));
	for (unsigned i = highest - 2; i <= highest; i++) {
		snprintf(name, sizeof name, "%s/ring-%05u.pcapng", directory, i);
		assert_int_equal(stat(name, &info), 0);
		assert_true(info.st_size <= 65536 + 4096);
		assert_in_range(read_file(name), i < highest ? 50 : 1, 64);
	}
	/* another run goes on behind, and its bound counts these too */
	before = highest;
	layers_are(a, LAYERS("capture", "file", file, "file-size", "64K", "files", "3", NULL));
	send_many(5, 1000);
	layers_are(a, LAYERS("count", NULL));
	assert_int_equal(numbered(&highest), 4);
	assert_int_equal(highest, before + 1);
	/* fewer while it runs; then no bound at all */
	layers_are(a, LAYERS("capture", "file", file, "file-size", "64K", "files", "3", NULL));
	layers_are(a, LAYERS("capture", "file", file, "file-size", "64K", "files", "1", NULL));
	send_many(128, 1000);
	await("packets", 128);
	assert_int_equal(numbered(&highest), 2);
	before = highest;
	layers_are(a, LAYERS("capture", "file", file, "file-size", "0", "files", "1", NULL));
	send_many(640, 1000);
	await("packets", 768);
	assert_int_equal(numbered(&highest), 2);
	assert_int_equal(highest, before);
	layers_are(a, LAYERS("count", NULL));
	snprintf(name, sizeof name, "%s/ring-00003.pcapng", directory);
	assert_int_equal(stat(name, &info), 0);
	assert_int_equal(info.st_size, strlen("not ours"));
}

static void test_continued(void **state)
{
	const char *file = path_of("c.pcapng");
	struct error err = { 0 };
	struct stat info;
	int fd;

	(void)state;
	layers_are(a, LAYERS("capture", "file", file, NULL));
	send_many(3, 100);
	/* nobody else may write to it meanwhile */
	assert_int_equal(rig_set_layers(b, LAYERS("capture", "file", file, NULL), &err), -EBUSY);
	assert_non_null(strstr(err.text, "file: "));
	layers_are(a, LAYERS("count", NULL));
	assert_int_equal(read_file(file), 3);
	/* cut off in the middle of a block, as a crash leaves it */
	for (unsigned cut = 1; cut < 300; cut += 7) {
		assert_int_equal(stat(file, &info), 0);
		assert_int_equal(truncate(file, info.st_size - cut), 0);
		layers_are(a, LAYERS("capture", "file", file, NULL));
		send_many(2, 100);
		layers_are(a, LAYERS("count", NULL));
		assert_true(read_file(file) >= 2);
	}
	/* garbage behind a whole file */
	fd = open(file, O_WRONLY | O_APPEND);
	assert_int_equal(write(fd, "\0\0\0\0", 4), 4);
	close(fd);
	layers_are(a, LAYERS("capture", "file", file, NULL));
	send_many(2, 100);
	layers_are(a, LAYERS("count", NULL));
	assert_true(read_file(file) > 40);
}

static void test_not_ours(void **state)
{
	const char *file = path_of("letter");
	struct error err = { 0 };
	struct stat info;

	(void)state;
	write_text(file, "a letter that is longer than the mark of a capture file is, by far");
	assert_int_equal(rig_set_layers(a, LAYERS("capture", "file", file, NULL), &err), -EEXIST);
	assert_non_null(strstr(err.text, "no capture of penstock"));
	assert_int_equal(stat(file, &info), 0);
	assert_int_equal(info.st_size, 66);
	assert_int_equal(rig_set_layers(a, LAYERS("capture", "file", "/dev/full", NULL), &err),
			 -EINVAL);
	assert_non_null(strstr(err.text, "no regular file"));
	assert_int_equal(
		rig_set_layers(a, LAYERS("capture", "file", path_of("no/where"), NULL), &err),
		-ENOENT);
	assert_non_null(strstr(err.text, "file: "));
	assert_int_equal(rig_set_layers(a,
					LAYERS("capture", "file", path_of("no/where"), "file-size",
					       "1M", NULL),
					&err),
			 -ENOENT);
	assert_int_equal(rig_set_layers(a, LAYERS("capture", "file", "stream:4711", NULL), &err),
			 -ENOENT);
	assert_int_equal(
		rig_set_layers(a, LAYERS("capture", "file", path_of("s"), "file-size", "1K", NULL),
			       &err),
		-EINVAL);
	assert_non_null(strstr(err.text, "file-size: "));
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

/* --- what is slow, full or gone ------------------------------------------------------- */

struct stream {
	char name[CAPTURE_STREAM_NAME];
	uint64_t limit;
	int fd;
};

static void stream_now(void *data)
{
	struct stream *stream = data;

	assert_int_equal(capture_stream_create(stream->name, stream->limit, &stream->fd, NULL), 0);
}

/* Reads all there is into the file @path, to its end. */
static void save(int from, const char *path)
{
	int to = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	static char bytes[65536];
	ssize_t n;

	fcntl(from, F_SETFL, 0);
	while ((n = read(from, bytes, sizeof bytes)) > 0)
		assert_int_equal(write(to, bytes, (size_t)n), n);
	assert_int_equal(n, 0);
	close(to);
	close(from);
}

struct reader {
	pthread_t thread;
	int fd;
	const char *path;
};

static void *reader_run(void *data)
{
	const struct reader *reader = data;

	save(reader->fd, reader->path);
	return NULL;
}

static void reader_begin(struct reader *reader, int fd, const char *path)
{
	*reader = (struct reader){ .fd = fd, .path = path };
	assert_int_equal(pthread_create(&reader->thread, NULL, reader_run, reader), 0);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* A reader that does not read: the flow does not wait, and what was missed is counted. */
static void test_slow_reader(void **state)
{
	const char *path = path_of("slow");
	struct stream stream = { 0 };
	struct reader reader;
	struct asked missed;

	(void)state;
	rig_do(rig.control, stream_now, &stream);
	layers_are(a, LAYERS("capture", "file", stream.name, NULL));
	send_many(2000, 9000);
	missed = ask("missed");
	assert_true(missed.number > 500);
	assert_int_equal(stats_read(&b->lane->stats.direction[PACKET_OUT].packets), 2000);
	reader_begin(&reader, stream.fd, path);
	layers_are(a, LAYERS("count", NULL));
	pthread_join(reader.thread, NULL);
	assert_int_equal(read_file(path) + missed.number, 2000);
}

/* One that never reads does not keep a layer from going. */
static void test_no_reader(void **state)
{
	struct stream stream = { 0 };
	uint64_t began;

	(void)state;
	rig_do(rig.control, stream_now, &stream);
	layers_are(a, LAYERS("capture", "file", stream.name, NULL));
	send_many(2000, 9000);
	began = now_ms();
	layers_are(a, LAYERS("count", NULL));
	assert_true(now_ms() - began < 5000);
	close(stream.fd);
}

static void test_reader_goes(void **state)
{
	struct stream stream = { 0 };
	uint64_t began;

	(void)state;
	signal(SIGPIPE, SIG_DFL); /* it must not come */
	rig_do(rig.control, stream_now, &stream);
	layers_are(a, LAYERS("capture", "file", stream.name, NULL));
	send_many(100, 9000);
	close(stream.fd);
	send_many(2000, 9000);
	began = now_ms();
	layers_are(a, LAYERS("count", NULL));
	assert_true(now_ms() - began < 1000);
}

static void test_limit(void **state)
{
	const char *path = path_of("limit");
	struct stream stream = { .limit = 5 };
	struct reader reader;

	(void)state;
	rig_do(rig.control, stream_now, &stream);
	layers_are(a, LAYERS("capture", "file", stream.name, NULL));
	reader_begin(&reader, stream.fd, path);
	send_many(100, 200);
	pthread_join(reader.thread, NULL); /* it ends although the layer is there */
	assert_int_equal(read_file(path), 5);
	layers_are(a, LAYERS("count", NULL));
}

/* No room for files, then room again. */
static void test_disk_full(void **state)
{
	const char *file = path_of("full");
	struct rlimit limit, before;
	json_int_t written, missed;
	unsigned sent = 640;

	(void)state;
	getrlimit(RLIMIT_FSIZE, &before);
	limit = before;
	limit.rlim_cur = 100000;
	setrlimit(RLIMIT_FSIZE, &limit);
	layers_are(a, LAYERS("capture", "file", file, NULL));
	send_many(sent, 1000);
	for (unsigned i = 0; i < 5000 && !*ask("error").text; i++)
		usleep(1000);
	assert_non_null(strstr(ask("error").text, strerror(EFBIG)));
	setrlimit(RLIMIT_FSIZE, &before);
	for (unsigned i = 0; i < 500 && *ask("error").text; i++) {
		send_many(1, 1000);
		sent++;
		usleep(20000);
	}
	assert_string_equal(ask("error").text, "");
	for (unsigned i = 0; i < 5000; i++) {
		written = ask("packets").number;
		missed = ask("missed").number;
		if (written + missed == sent)
			break;
		usleep(1000);
	}
	assert_true(missed > 0);
	assert_int_equal(written + missed, sent);
	layers_are(a, LAYERS("count", NULL));
	assert_int_equal(read_file(file), written);
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_filter),
		cmocka_unit_test(test_filter_goes_round),
		cmocka_unit_test(test_sums),
		TEST(test_filter_is_wrong),
		TEST(test_written),
		TEST(test_sums_left),
		TEST(test_direction_and_length),
		TEST(test_ring_of_files),
		TEST(test_continued),
		TEST(test_not_ours),
		TEST(test_changed_in_flow),
		TEST(test_comes_and_goes_in_flow),
		TEST(test_slow_reader),
		TEST(test_no_reader),
		TEST(test_reader_goes),
		TEST(test_limit),
		TEST(test_disk_full),
		TEST(test_two_loops),
		TEST(test_port_goes),
	};

	return cmocka_run_group_tests_name("capture", tests, NULL, NULL);
}
