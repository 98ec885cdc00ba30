/* SPDX-License-Identifier: BSD-3-Clause */
/* capture_testing.c - two ports, files, and what libpcap reads in them; see capture_testing.h */
#include <dirent.h>
#include <pcap/pcap.h>
#include <unistd.h>

#include "packet/layer/capture_testing.h"

struct rig rig;
struct rig_port *a, *b;
char directory[100];
struct seen seen;

char *path_of(const char *name)
{
	static char path[4][500];
	static unsigned turn;

	turn = (turn + 1) % 4;
	snprintf(path[turn], sizeof path[turn], "%s/%s", directory, name);
	return path[turn];
}

int set_up(void **state)
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

int tear_down(void **state)
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

void layers_are(struct rig_port *port, const char *const *text)
{
	struct error err = { 0 };

	if (rig_set_layers(port, text, &err))
		fail_msg("%s", err.text);
}

/* --- sending ------------------------------------------------------------------------- */

/* @count frames of @length bytes, numbered in byte 20. */
void send_many(unsigned count, uint32_t length)
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
uint32_t ip_frame(uint8_t *frame, unsigned version, uint8_t protocol, uint16_t port,
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

/* --- reading ------------------------------------------------------------------------- */

/* The sum over pseudo header and all: 0xffff if it is right. */
uint32_t whole_sum(const uint8_t *frame, uint32_t length, unsigned version, uint8_t protocol)
{
	uint32_t l3 = version == 4 ? 20 : 40, l4 = length - 14 - l3;
	uint8_t last[8] = { 0, 0, (uint8_t)(l4 >> 8), (uint8_t)l4, 0, 0, 0, protocol };
	uint32_t sum = version == 4 ? sum_bytes(frame + 26, 8, 0) : sum_bytes(frame + 22, 32, 0);

	return sum_bytes(frame + 14 + l3, l4, sum_bytes(last, 8, sum));
}

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

unsigned read_whole(const char *path)
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

unsigned read_file(const char *path)
{
	unsigned count = read_whole(path);

	assert_int_equal(seen.disorder, 0);
	return count;
}

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

struct asked ask(const char *name)
{
	struct asked asked = { .name = name };

	rig_do(rig.control, ask_now, &asked);
	return asked;
}

void await(const char *name, json_int_t wanted)
{
	for (unsigned i = 0; i < 10000 && ask(name).number != wanted; i++)
		usleep(1000);
	assert_int_equal(ask(name).number, wanted);
}
