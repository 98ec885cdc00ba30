/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_filter_test.c - filters say of packets in pieces what libpcap says of them in one piece;
 * those that are wrong are refused, and none keeps us long
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pcap/pcap.h>
#include <unistd.h>

#include "packet/layer/capture_filter.h"
#include "packet/layer/capture_testing.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_filter),
		cmocka_unit_test(test_filter_goes_round),
		CAPTURE_TEST(test_filter_is_wrong),
	};

	return cmocka_run_group_tests_name("capture filter", tests, NULL, NULL);
}
