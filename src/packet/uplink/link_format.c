/* SPDX-License-Identifier: BSD-3-Clause */
/* link_format.c - the protocol of links; see link_format.h */
#include "packet/uplink/link_format.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdbool.h>
#include <string.h>

#include "packet/offload.h"
#include "packet/packet.h"
#include "util/error.h"

static const uint8_t magic[8] = { 'P', 'N', 'S', 'T', 'L', 'I', 'N', 'K' };

/* Offloads have numbers of their own on the wire, which stay. */
static const struct {
	uint32_t wire;
	unsigned accepts;
} features[] = {
	{ 1 << 0, OFFLOAD_CSUM }, { 1 << 1, OFFLOAD_TSO4 }, { 1 << 2, OFFLOAD_TSO6 },
	{ 1 << 3, OFFLOAD_ECN },  { 1 << 4, OFFLOAD_USO4 }, { 1 << 5, OFFLOAD_USO6 },
};

struct wire_hello {
	uint8_t magic[8];
	uint32_t version;
	uint32_t features;
	uint32_t mtu;
	uint8_t reserved[12];
} __attribute__((packed));
_Static_assert(sizeof(struct wire_hello) == LINK_HELLO, "docs/link-format.md");

enum { FLAG_NEEDS_CSUM = 1, FLAG_DATA_VALID = 2, FLAG_TAGGED = 4, FLAGS_KNOWN = 7 };
/* virtio's (5.1.6); the last is newer than some headers. */
enum { GSO_NONE = 0, GSO_TCPV4 = 1, GSO_TCPV6 = 4, GSO_UDP_L4 = 5, GSO_ECN = 0x80 };

struct wire_header {
	uint32_t length;
	uint8_t flags;
	uint8_t gso_type;
	uint16_t gso_size;
	uint16_t header_length;
	uint16_t csum_start;
	uint16_t csum_offset;
	uint16_t tag;
} __attribute__((packed));
_Static_assert(sizeof(struct wire_header) == LINK_HEADER, "docs/link-format.md");

static bool gso_known(uint8_t type)
{
	type &= (uint8_t)~GSO_ECN;
	return type == GSO_NONE || type == GSO_TCPV4 || type == GSO_TCPV6 || type == GSO_UDP_L4;
}

void link_hello_write(const struct link_hello *hello, uint8_t *to)
{
	struct wire_hello wire = { .version = htole32(LINK_VERSION), .mtu = htole32(hello->mtu) };

	memcpy(wire.magic, magic, sizeof magic);
	for (unsigned i = 0; i < sizeof features / sizeof *features; i++)
		if (hello->accepts & features[i].accepts)
			wire.features |= htole32(features[i].wire);
	memcpy(to, &wire, sizeof wire);
}

int link_hello_read(const uint8_t *bytes, struct link_hello *hello, struct error *err)
{
	struct wire_hello wire;

	memcpy(&wire, bytes, sizeof wire);
	if (memcmp(wire.magic, magic, sizeof magic))
		return error_set(err, EPROTO, "the other side is no link of Penstock");
	if (le32toh(wire.version) != LINK_VERSION)
		return error_set(err, EPROTO,
				 "the other side speaks version %u of the protocol, this one %u",
				 le32toh(wire.version), LINK_VERSION);
	hello->mtu = le32toh(wire.mtu);
	hello->accepts = 0;
	for (unsigned i = 0; i < sizeof features / sizeof *features; i++)
		if (le32toh(wire.features) & features[i].wire)
			hello->accepts |= features[i].accepts;
	if (!(hello->accepts & OFFLOAD_CSUM))
		hello->accepts = 0;
	return 0;
}

int link_header_read(const uint8_t *header, uint32_t *length, struct error *err)
{
	struct wire_header wire;

	memcpy(&wire, header, sizeof wire);
	*length = le32toh(wire.length);
	if (*length < ETHERNET_HEADER || *length > PACKET_MAX)
		return error_set(err, EPROTO,
				 "the other side sent a frame of %u bytes: expected %u to %u",
				 *length, ETHERNET_HEADER, PACKET_MAX);
	if (wire.flags & ~FLAGS_KNOWN || !gso_known(wire.gso_type))
		return error_set(err, EPROTO,
				 "the other side sent a frame with flags 0x%02x and segmentation "
				 "0x%02x, which do not exist",
				 wire.flags, wire.gso_type);
	return 0;
}

void link_header_apply(const uint8_t *header, struct packet *packet)
{
	struct wire_header wire;

	memcpy(&wire, header, sizeof wire);
	packet->tagged = wire.flags & FLAG_TAGGED;
	packet->tag = packet->tagged ? le16toh(wire.tag) : 0;
	packet->offload = (struct packet_offload){
		.flags =
			(uint8_t)((wire.flags & FLAG_NEEDS_CSUM ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0) |
				  (wire.flags & FLAG_DATA_VALID ? VIRTIO_NET_HDR_F_DATA_VALID : 0)),
		.gso_type = wire.gso_type,
		.gso_size = le16toh(wire.gso_size),
		.header_length = le16toh(wire.header_length),
		.csum_start = le16toh(wire.csum_start),
		.csum_offset = le16toh(wire.csum_offset),
	};
}

void link_header_write(const struct packet *packet, uint32_t length, uint8_t *header)
{
	const struct packet_offload *offload = &packet->offload;
	struct wire_header wire = {
		.length = htole32(length),
		.gso_type = offload->gso_type,
		.gso_size = htole16(offload->gso_size),
		.header_length = htole16(offload->header_length),
		.csum_start = htole16(offload->csum_start),
		.csum_offset = htole16(offload->csum_offset),
		.tag = htole16(packet->tag),
	};

	if (offload->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		wire.flags |= FLAG_NEEDS_CSUM;
	if (offload->flags & VIRTIO_NET_HDR_F_DATA_VALID)
		wire.flags |= FLAG_DATA_VALID;
	if (packet->tagged)
		wire.flags |= FLAG_TAGGED;
	memcpy(header, &wire, sizeof wire);
}
