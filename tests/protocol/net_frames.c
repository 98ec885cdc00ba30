/* SPDX-License-Identifier: BSD-3-Clause */
/* net_frames.c - frames built and looked at; see net_frames.h */
#include "net_frames.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

enum { TPID = 0x8100, TYPE_IPV4 = 0x0800, TYPE_IPV6 = 0x86dd, TCP_ACK_PSH = 0x18 };

const uint8_t mac_broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

void mac_make(uint8_t mac[6], unsigned number)
{
	const uint8_t made[6] = { 0x02,
				  0x50,
				  (uint8_t)(number >> 24),
				  (uint8_t)(number >> 16),
				  (uint8_t)(number >> 8),
				  (uint8_t)number };

	memcpy(mac, made, 6);
}

static void put16(uint8_t *to, unsigned value)
{
	to[0] = (uint8_t)(value >> 8);
	to[1] = (uint8_t)value;
}

static void put32(uint8_t *to, uint32_t value)
{
	put16(to, value >> 16);
	put16(to + 2, value & 0xffff);
}

static unsigned get16(const uint8_t *from)
{
	return (unsigned)from[0] << 8 | from[1];
}

static uint32_t get32(const uint8_t *from)
{
	return (uint32_t)get16(from) << 16 | get16(from + 2);
}

/* Random bytes, of which every frame is a part: a test of all lengths makes gigabytes of them. */
static const uint8_t *pattern(void)
{
	static uint8_t bytes[2 * 65536];
	uint64_t state = 0x9e3779b97f4a7c15ull;

	for (size_t at = 0; !bytes[0] && at < sizeof(bytes); at += sizeof(state)) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		memcpy(bytes + sizeof(bytes) - sizeof(state) - at, &state, sizeof(state));
	}
	return bytes;
}

void frame_make(uint8_t *frame, const uint8_t to[6], const uint8_t from[6], uint32_t length,
		uint64_t number)
{
	uint32_t room = length - ETHERNET;

	memcpy(frame, to, 6);
	memcpy(frame + 6, from, 6);
	put16(frame + 12, TYPE_TEST);
	memcpy(frame + ETHERNET, pattern() + number * 2654435761u % 65536, room);
	memcpy(frame + ETHERNET, &number, room < sizeof(number) ? room : sizeof(number));
}

uint64_t frame_number(const uint8_t *frame)
{
	uint64_t number;

	memcpy(&number, frame + ETHERNET, sizeof(number));
	return number;
}

/* ---- sums (RFC 1071), the plain way: 16 bits after another ---- */

static uint32_t add_words(const uint8_t *bytes, uint32_t count, uint32_t sum)
{
	for (uint32_t i = 0; i + 1 < count; i += 2) {
		sum += get16(bytes + i);
		sum = (sum & 0xffff) + (sum >> 16);
	}
	if (count & 1)
		sum += (uint32_t)bytes[count - 1] << 8;
	return (sum & 0xffff) + (sum >> 16);
}

/* Of the addresses in an IP header, the protocol and the length of layer 4. */
static uint32_t pseudo_sum(const uint8_t *ip, unsigned version, uint8_t protocol, uint32_t length)
{
	uint32_t sum = version == 4 ? add_words(ip + 12, 8, 0) : add_words(ip + 8, 32, 0);

	sum += protocol + (length & 0xffff) + (length >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* ---- built ---- */

static uint32_t make_ethernet(uint8_t *frame, const struct ip_packet *packet)
{
	uint32_t at = 12;

	memcpy(frame, packet->to, 6);
	memcpy(frame + 6, packet->from, 6);
	if (packet->vlan) {
		put16(frame + at, TPID);
		put16(frame + at + 2, packet->vlan);
		at += 4;
	}
	put16(frame + at, packet->version == 4 ? TYPE_IPV4 : TYPE_IPV6);
	return at + 2;
}

static uint32_t make_ip(uint8_t *ip, const struct ip_packet *packet, uint8_t protocol,
			uint32_t length)
{
	uint32_t extension = packet->extension ? 8 : 0;

	if (packet->version == 4) {
		static const uint8_t addresses[8] = { 10, 9, 0, 1, 10, 9, 0, 2 };
		memset(ip, 0, 20);
		ip[0] = 0x45;
		put16(ip + 2, 20 + length);
		put16(ip + 4, 0x1234);
		put16(ip + 6, 0x4000);
		ip[8] = 64;
		ip[9] = protocol;
		memcpy(ip + 12, addresses, 8);
		put16(ip + 10, ~add_words(ip, 20, 0) & 0xffff);
		return 20;
	}
	memset(ip, 0, 40 + extension);
	ip[0] = 0x60;
	put16(ip + 4, length + extension);
	ip[6] = extension ? 0 : protocol;
	ip[7] = 64;
	ip[8] = ip[24] = 0xfd;
	ip[23] = 1;
	ip[39] = 2;
	if (extension) {
		ip[40] = protocol;
		ip[42] = 1; /* PadN of 4 */
		ip[43] = 4;
	}
	return 40 + extension;
}

static uint32_t make_layer4(uint8_t *to, const struct ip_packet *packet)
{
	if (!packet->tcp) {
		put16(to, 40000 + (packet->sequence & 0xfff));
		put16(to + 2, 5000);
		put16(to + 4, 8 + packet->payload);
		put16(to + 6, 0);
		return 8;
	}
	uint32_t header = 20 + packet->tcp_options;
	memset(to, 0, header);
	put16(to, 40000);
	put16(to + 2, 5001);
	put32(to + 4, packet->sequence);
	put32(to + 8, 0x01020304);
	to[12] = (uint8_t)(header / 4 << 4);
	to[13] = packet->tcp_flags ? packet->tcp_flags : TCP_ACK_PSH;
	put16(to + 14, 0xfff0);
	memset(to + 20, 1, packet->tcp_options);
	return header;
}

/* Where the parts are. */
struct built {
	uint32_t ip, layer4, payload, length;
	uint8_t protocol;
};

static struct built build(uint8_t *frame, const struct ip_packet *packet)
{
	struct built b = { .protocol = packet->tcp ? IPPROTO_TCP : IPPROTO_UDP };
	uint32_t header = packet->tcp ? 20u + packet->tcp_options : 8u;

	b.ip = make_ethernet(frame, packet);
	b.layer4 = b.ip + make_ip(frame + b.ip, packet, b.protocol, header + packet->payload);
	b.payload = b.layer4 + make_layer4(frame + b.layer4, packet);
	b.length = b.payload + packet->payload;
	for (uint32_t i = 0; i < packet->payload; i++)
		frame[b.payload + i] = ip_byte(packet->seed, i);
	return b;
}

static uint32_t sum_offset(bool tcp)
{
	return tcp ? 16 : 6;
}

uint32_t ip_make(uint8_t *frame, const struct ip_packet *packet, struct virtio_net_hdr_v1 *header)
{
	struct built b = build(frame, packet);
	uint32_t length = b.length - b.layer4;
	uint32_t sum = pseudo_sum(frame + b.ip, packet->version, b.protocol, length);

	sum = ~add_words(frame + b.layer4, length, sum) & 0xffff;
	put16(frame + b.layer4 + sum_offset(packet->tcp), sum || packet->tcp ? sum : 0xffff);
	if (header)
		memset(header, 0, sizeof(*header));
	return b.length;
}

uint32_t ip_make_partial(uint8_t *frame, const struct ip_packet *packet, uint16_t gso_size,
			 struct virtio_net_hdr_v1 *header)
{
	struct built b = build(frame, packet);
	uint32_t length = b.length - b.layer4;

	put16(frame + b.layer4 + sum_offset(packet->tcp),
	      pseudo_sum(frame + b.ip, packet->version, b.protocol, length));
	memset(header, 0, sizeof(*header));
	header->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	header->csum_start = (uint16_t)b.layer4;
	header->csum_offset = (uint16_t)sum_offset(packet->tcp);
	if (gso_size) {
		header->gso_type = !packet->tcp           ? NET_GSO_UDP_L4
				   : packet->version == 4 ? VIRTIO_NET_HDR_GSO_TCPV4
							  : VIRTIO_NET_HDR_GSO_TCPV6;
		header->gso_size = gso_size;
		header->hdr_len = (uint16_t)b.payload;
	}
	return b.length;
}

/* ---- looked at ---- */

static const char *check_ip(const uint8_t *ip, uint32_t room, struct ip_found *found,
			    uint8_t *protocol, uint32_t *header, uint32_t *length)
{
	if (found->version == 4) {
		if (room < 20 || ip[0] != 0x45)
			return "the IPv4 header is not one";
		if (add_words(ip, 20, 0) != 0xffff)
			return "the sum of the IPv4 header is wrong";
		if (get16(ip + 2) < 20 || get16(ip + 2) > room)
			return "the IPv4 packet is longer than the frame";
		*header = 20;
		*length = get16(ip + 2) - 20;
		*protocol = ip[9];
		found->id = (uint16_t)get16(ip + 4);
		return NULL;
	}
	if (room < 40 || ip[0] >> 4 != 6)
		return "the IPv6 header is not one";
	if (get16(ip + 4) > room - 40)
		return "the IPv6 packet is longer than the frame";
	*header = 40;
	*protocol = ip[6];
	if (!*protocol) {
		*protocol = ip[40];
		*header = 48;
	}
	*length = get16(ip + 4) - (*header - 40);
	return NULL;
}

const char *ip_check(const uint8_t *frame, uint32_t length, bool partial, struct ip_found *found)
{
	uint32_t at = 12, header, rest, header4;
	uint8_t protocol;

	memset(found, 0, sizeof(*found));
	if (length < 42)
		return "the frame is short";
	if (get16(frame + at) == TPID) {
		found->tagged = true;
		found->vlan = get16(frame + at + 2) & 0xfff;
		at += 4;
	}
	unsigned type = get16(frame + at);
	if (type != TYPE_IPV4 && type != TYPE_IPV6)
		return "the frame is not of IP";
	found->version = type == TYPE_IPV4 ? 4 : 6;
	const uint8_t *ip = frame + at + 2;
	const char *wrong = check_ip(ip, length - at - 2, found, &protocol, &header, &rest);
	if (wrong)
		return wrong;
	const uint8_t *layer4 = ip + header;
	found->tcp = protocol == IPPROTO_TCP;
	if (!found->tcp && protocol != IPPROTO_UDP)
		return "neither TCP nor UDP";
	header4 = found->tcp ? (layer4[12] >> 4) * 4u : 8;
	if (rest < header4 || header4 < 8)
		return "the packet has no room for its layer 4 header";
	if (!found->tcp && get16(layer4 + 4) != rest)
		return "UDP's length is wrong";
	uint32_t pseudo = pseudo_sum(ip, found->version, protocol, rest);
	if (partial && get16(layer4 + sum_offset(found->tcp)) != pseudo)
		return "the sum left to do does not hold the pseudo header's";
	if (!partial && add_words(layer4, rest, pseudo) != 0xffff)
		return "the sum of layer 4 is wrong";
	found->sequence = found->tcp ? get32(layer4 + 4) : get16(layer4);
	found->tcp_flags = found->tcp ? layer4[13] : 0;
	found->payload = rest - header4;
	found->bytes = layer4 + header4;
	return NULL;
}
