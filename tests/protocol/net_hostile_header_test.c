/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_hostile_header_test.c - a guest whose frames have headers that lie
 *
 * What virtio asks for (sums, segments) of a frame that is not like that, and Ethernet, IP and TCP
 * that say of themselves what is not so; to a peer that takes packets as they are, and to one for
 * which they are cut. Then noise. See net_hostile.h for what has to come of it.
 */
#include "net_hostile.h"

enum { PAYLOAD = 5000, SEGMENT = 1000, IP = ETHERNET, L4 = ETHERNET + 20 };

/* Spoils a good request to cut TCP over IPv4. */
typedef void spoil_fn(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length);

static void unknown_type(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_type = 0x7f;
}

static void fragmentation(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_type = VIRTIO_NET_HDR_GSO_UDP;
}

static void other_version(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_type = VIRTIO_NET_HDR_GSO_TCPV6;
}

static void other_protocol(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_type = NET_GSO_UDP_L4;
}

static void all_bits(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	memset(header, 0xff, sizeof(*header));
}

static void segments_of_nothing(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_size = 0;
}

static void segments_of_a_byte(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_size = 1;
}

static void giant_segments(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_size = 0xffff;
}

static void cut_without_sum(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->flags = 0;
}

static void sum_behind_the_end(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_type = 0;
	header->csum_start = 0xfff0;
}

static void sum_starts_at_the_end(struct virtio_net_hdr_v1 *header, uint8_t *frame,
				  uint32_t *length)
{
	(void)frame;
	header->gso_type = 0;
	header->csum_start = (uint16_t)*length;
	header->csum_offset = 0;
}

static void sum_goes_behind_the_end(struct virtio_net_hdr_v1 *header, uint8_t *frame,
				    uint32_t *length)
{
	(void)frame;
	header->gso_type = 0;
	header->csum_offset = (uint16_t)(*length - header->csum_start - 1);
}

static void sum_wraps_around(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	(void)length;
	header->gso_type = 0;
	header->csum_start = 0xffff;
	header->csum_offset = 0xffff;
}

static void sum_in_the_ethernet_header(struct virtio_net_hdr_v1 *header, uint8_t *frame,
				       uint32_t *length)
{
	(void)frame;
	(void)length;
	header->csum_start = 0;
	header->csum_offset = 0;
}

static void sum_in_the_middle(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)frame;
	header->gso_type = 0;
	header->csum_start = (uint16_t)(*length / 2);
	header->csum_offset = 1;
}

static void headers_longer_than_frame(struct virtio_net_hdr_v1 *header, uint8_t *frame,
				      uint32_t *length)
{
	(void)frame;
	(void)length;
	header->hdr_len = 0xffff;
}

static void no_ip(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)length;
	frame[12] = 0x12;
}

static void frame_ends_in_ip(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)frame;
	*length = IP + 10;
}

static void frame_ends_in_tcp(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)frame;
	*length = L4 + 10;
}

static void frame_ends_behind_tcp(struct virtio_net_hdr_v1 *header, uint8_t *frame,
				  uint32_t *length)
{
	(void)header;
	(void)frame;
	*length = L4 + 20;
}

static void frame_of_ethernet_only(struct virtio_net_hdr_v1 *header, uint8_t *frame,
				   uint32_t *length)
{
	(void)header;
	(void)frame;
	*length = ETHERNET;
}

static void ip_without_length(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)length;
	frame[IP + 2] = frame[IP + 3] = 0;
}

static void ip_longer_than_frame(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)length;
	frame[IP + 2] = 0xff;
}

static void ip_header_of_60(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)length;
	frame[IP] = 0x4f;
}

static void ip_header_of_4(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)length;
	frame[IP] = 0x41;
}

static void ip_fragment(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)length;
	frame[IP + 6] = 0x20;
	frame[IP + 7] = 100;
}

static void tcp_without_header(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)length;
	frame[L4 + 12] = 0;
}

static void tcp_header_of_60(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	frame[L4 + 12] = 0xf0;
	*length = L4 + 30;
}

static void stack_of_tags(struct virtio_net_hdr_v1 *header, uint8_t *frame, uint32_t *length)
{
	(void)header;
	(void)length;
	for (unsigned i = 12; i < 400; i += 4) {
		frame[i] = 0x81;
		frame[i + 1] = frame[i + 2] = 0;
		frame[i + 3] = 1;
	}
}

static void ipv6_extensions_without_end(struct virtio_net_hdr_v1 *header, uint8_t *frame,
					uint32_t *length)
{
	header->gso_type = VIRTIO_NET_HDR_GSO_TCPV6;
	frame[12] = 0x86;
	frame[13] = 0xdd;
	memset(frame + IP, 0, *length - IP);
	frame[IP] = 0x60;
	frame[IP + 4] = 0x13;
}

static const struct {
	const char *name;
	spoil_fn *spoil;
} header_lies[] = {
#define LIE(name)                                                                                  \
	{                                                                                          \
#name, name                                                                        \
	}
	LIE(unknown_type),
	LIE(fragmentation),
	LIE(other_version),
	LIE(other_protocol),
	LIE(all_bits),
	LIE(segments_of_nothing),
	LIE(segments_of_a_byte),
	LIE(giant_segments),
	LIE(cut_without_sum),
	LIE(sum_behind_the_end),
	LIE(sum_starts_at_the_end),
	LIE(sum_goes_behind_the_end),
	LIE(sum_wraps_around),
	LIE(sum_in_the_ethernet_header),
	LIE(sum_in_the_middle),
	LIE(headers_longer_than_frame),
	LIE(no_ip),
	LIE(frame_ends_in_ip),
	LIE(frame_ends_in_tcp),
	LIE(frame_ends_behind_tcp),
	LIE(frame_of_ethernet_only),
	LIE(ip_without_length),
	LIE(ip_longer_than_frame),
	LIE(ip_header_of_60),
	LIE(ip_header_of_4),
	LIE(ip_fragment),
	LIE(tcp_without_header),
	LIE(tcp_header_of_60),
	LIE(stack_of_tags),
	LIE(ipv6_extensions_without_end),
};

/* To a peer that takes whole packets, and to one for which they are cut. */
static void headers_that_lie(void **state)
{
	struct net *liar;
	static uint8_t frame[NET_FRAME_MAX];

	liars_open("2");
	for (unsigned cut = 0; cut < 2; cut++) {
		lan_unplug(PEER);
		lan_plug(PEER, "peer",
			 (struct net_options){
				 .queue_size = 1024,
				 .decline = FEATURE(VIRTIO_NET_F_MQ) |
					    (cut ? FEATURE(VIRTIO_NET_F_GUEST_CSUM) |
							     FEATURE(VIRTIO_NET_F_GUEST_TSO4) |
							     FEATURE(VIRTIO_NET_F_GUEST_TSO6) |
							     FEATURE(VIRTIO_NET_F_GUEST_ECN) |
							     FEATURE(NET_F_GUEST_USO4) |
							     FEATURE(NET_F_GUEST_USO6)
						 : 0) });
		liar = liar_plug(liar_options(state));
		for (unsigned i = 0; i < sizeof(header_lies) / sizeof(*header_lies); i++) {
			struct ip_packet packet = { .version = 4, .tcp = true, .payload = PAYLOAD };
			struct virtio_net_hdr_v1 header;
			memcpy(packet.to, mac_peer, 6);
			memcpy(packet.from, mac_liar, 6);
			uint32_t length = ip_make_partial(frame, &packet, SEGMENT, &header);
			header_lies[i].spoil(&header, frame, &length);
			must_net(liar, net_send(liar, 0, &header, frame, length));
			must_net(liar, net_drain(liar, 0));
			peer_expect_sense(PAYLOAD + 1);
			print_message("# %s\n", header_lies[i].name);
			if (i % 8 == 7)
				liar_expect_works();
		}
		others_expect();
	}
}

/* Any bytes as a header, in front of any of some packets. */
static void headers_of_noise(void **state)
{
	uint64_t random = choose_seed();
	static uint8_t frame[NET_FRAME_MAX];
	struct net *liar;

	liars_open("1");
	liar = liar_plug(liar_options(state));
	for (unsigned i = 0; i < 4000; i++) {
		struct ip_packet packet = { .version = i & 1 ? 4 : 6,
					    .tcp = i & 2,
					    .payload = 600 + i % 64 };
		struct virtio_net_hdr_v1 header;
		uint8_t *bytes = (uint8_t *)&header;
		memcpy(packet.to, mac_peer, 6);
		memcpy(packet.from, mac_liar, 6);
		uint32_t length = ip_make_partial(frame, &packet, 100, &header);
		for (unsigned n = 0; n < 3; n++) {
			random = random * 6364136223846793005ull + 1442695040888963407ull;
			if (random >> 62)
				bytes[(random >> 40) % 10] = (uint8_t)(random >> 32);
			else
				frame[12 + (random >> 40) % 50] = (uint8_t)(random >> 32);
		}
		must_net(liar, net_send(liar, 0, &header, frame, length));
		if (i % 64 == 0)
			peer_expect_sense(100000);
	}
	must_net(liar, net_drain(liar, 0));
	peer_expect_sense(100000);
	liar_expect_works();
	others_expect();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RINGS(headers_that_lie),
		RINGS(headers_of_noise),
	};

	return cmocka_run_group_tests_name("hostile headers", tests, NULL, NULL);
}
