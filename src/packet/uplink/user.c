/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * user.c - an uplink to the host's network without any privilege: passt(1)
 *
 * passt is a process that ends the guest's TCP connections and makes them again with the host's
 * sockets, and the same for UDP and ping; it answers ARP, DHCP, NDP and DHCPv6. We speak to it as
 * QEMU does ("stream"): four bytes of length, big-endian, and the frame.
 *
 * What of passt (Debian 12: 2023_03_09) this depends on, as read in its source:
 *
 *   - It looks at no checksum of what it gets. Data of TCP is written to a socket whatever its
 *     segment's length is, so large packets go there uncut (tap.c, tcp.c: tcp_data_from_tap()). But
 * a frame of more than 65,535 bytes is ignored, and so is one whose length is not just that of its
 *     IP packet: padding of short frames is left out.
 *   - What it sends was summed by itself, from its memory to ours: nothing can have happened to it,
 *     and no guest need sum it again.
 *   - When a read ends inside a frame it reads once more, and waits there; if that does not bring
 * all the rest it loses its place in the stream. stream.c sees to it that this cannot happen: a
 *     frame is stored by the kernel in one piece, or in two.
 *   - It serves one guest: it answers to the address (MAC and IP) from which it last saw a packet.
 *   - Until then it sends to 00:00:00:00:00:00; our first frame, which nobody answers, comes from
 *     the broadcast address, so that connections to forwarded ports find a guest that is silent.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "packet/frame.h"
#include "packet/offload.h"
#include "packet/uplink/stream_uplink.h"
#include "packet/uplink/user.h"
#include "util/log.h"
#include "util/unix_socket.h"

#define PASST_FRAME 65535u /* longest frame that it takes */
#define SHORT_FRAME 64u    /* up to this length a frame may be padded */
/* To start the first one while a port is in use, each 50 ms: by that of a penstock that was killed
 * a moment ago, perhaps, which ends by itself, but not at once. */
#define ATTEMPTS 40u

static const struct option options[] = {
	{ .name = "forward",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct user_settings, forward),
	  .help = "Ports of the host that lead to the guest: a list of "
		  "[tcp:|udp:][ADDRESS:]PORT[:GUEST-PORT], separated by commas, where PORT may be a "
		  "range (8000-8010) and ADDRESS is one of the host's (an IPv6 address in "
		  "brackets). Without ADDRESS they are open on all addresses of the host." },
	{ .name = "guest",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct user_settings, guest),
	  .help = "MAC address of the only NIC whose packets go to passt. Needed if there are more "
		  "on the switch: passt serves one guest." },
	{ .name = "ipv4",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct user_settings, ipv4),
	  .fallback = "true",
	  .help = "Whether there is IPv4, if the host has it." },
	{ .name = "ipv6",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct user_settings, ipv6),
	  .fallback = "true",
	  .help = "Whether there is IPv6, if the host has it." },
	{ .name = "address",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct user_settings, address),
	  .help = "Address that the guest gets by DHCP and DHCPv6: an IPv4 address with the length "
		  "of its prefix, an IPv6 address, or both, as in \"10.0.2.15/24,fd00::15\". "
		  "Without it, those of the host." },
	{ .name = "gateway",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct user_settings, gateway),
	  .help = "Address of the guest's router: IPv4, IPv6, or both. Without it, that of the "
		  "host's." },
	{ .name = "dns",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct user_settings, dns),
	  .help = "Name servers that the guest is told, separated by commas, or none. Without it, "
		  "those of the host." },
	{ .name = "interface",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct user_settings, interface),
	  .help = "Interface of the host from which addresses and routes are taken. Without it, the "
		  "one with the default route." },
	{ .name = "host-loopback",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct user_settings, loopback),
	  .fallback = "true",
	  .help = "Whether connections of the guest to the gateway's address reach services on the "
		  "host's loopback address." },
	{ .name = "merge",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct user_settings, merge),
	  .fallback = "true",
	  .help = "Whether TCP segments that come together are given to the guest as one large packet, "
		  "if it takes such." },
	{ .name = "program",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct user_settings, program),
	  .fallback = "passt",
	  .help = "The program: a path, or a name that is looked for in PATH." },
	{ .name = "socket",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct user_settings, socket),
	  .help = "Path of the UNIX socket of a passt that runs already; none is started then, and "
		  "the other options (but guest and merge) are its own business." },
	{ 0 },
};

struct user {
	struct stream_uplink base; /* first */
	struct user_arguments arguments;
	struct user_child child;
	bool has_guest;
	/* Home. */
	uint8_t guest[6]; /* the only one that is served, or that was seen last */
	bool seen, warned;
};

static int user_check(const void *data, struct error *err)
{
	const struct user_settings *settings = data;
	struct user_arguments arguments;
	uint8_t mac[6];
	int ret;

	if (settings->guest && mac_parse(settings->guest, mac))
		return error_set(err, EINVAL,
				 "guest: expected a MAC address such as "
				 "52:54:00:12:34:56");
	if (!settings->ipv4 && !settings->ipv6)
		return error_set(err, EINVAL, "ipv4: expected it or ipv6 to be true");
	ret = user_arguments(settings, PASST_FRAME, &arguments, err);
	if (!ret)
		user_arguments_release(&arguments);
	return ret;
}

/* --- connections: the control thread ----------------------------------------------------- */

/* A frame that says nothing (802's EtherType for experiments), from the broadcast address. */
static bool introduce(int fd)
{
	uint8_t bytes[4 + 60] = { 0 };

	bytes[3] = 60;
	memset(bytes + 4, 0xff, 12);
	bytes[4 + 12] = 0x88;
	bytes[4 + 13] = 0xb5;
	return send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) == (ssize_t)sizeof bytes;
}

static int dial(struct stream_uplink *u, struct error *err)
{
	const struct user_settings *settings = u->uplink.settings;
	struct user *user = (struct user *)u;
	int fd = settings->socket ? unix_socket_dial(settings->socket, err)
				  : user_child_start(&user->child, &user->arguments, err);

	if (fd == -EAGAIN)
		return error_set(err, EBUSY, "socket %s: too many wait for it", settings->socket);
	if (fd >= 0 && !introduce(fd)) {
		close(fd);
		fd = settings->socket ? 0 : user_child_gone(&user->child, err);
		return fd ? fd : error_set(err, EPIPE, "passt does not listen");
	}
	return fd;
}

static void over(struct stream_uplink *u, char *why, size_t size)
{
	const struct user_settings *settings = u->uplink.settings;
	struct user *user = (struct user *)u;
	struct error err;

	if (!settings->socket && user_child_gone(&user->child, &err))
		snprintf(why, size, "%s", err.text);
}

/* --- the protocol: home ------------------------------------------------------------------ */

static int read_header(const uint8_t *header, uint32_t *length, struct error *err)
{
	uint32_t bytes;

	memcpy(&bytes, header, sizeof bytes);
	*length = ntohl(bytes);
	if (*length < ETHERNET_HEADER || *length > PACKET_MAX)
		return error_set(err, EPROTO, "passt sent a frame of %u bytes: expected %u to %u",
				 *length, ETHERNET_HEADER, PACKET_MAX);
	return 0;
}

static void received(const uint8_t *header, struct packet *packet)
{
	(void)header;
	packet->offload.flags = VIRTIO_NET_HDR_F_DATA_VALID;
}

static void write_header(const struct packet *packet, uint32_t length, uint8_t *header)
{
	uint32_t bytes = htonl(length);

	(void)packet;
	memcpy(header, &bytes, sizeof bytes);
}

static uint32_t admit(struct stream *stream, struct packet *packet)
{
	struct user *user = container_of(stream, struct user, base.stream);
	const uint8_t *source = packet_ethernet(packet)->source;

	if (packet->tagged || packet->length > PASST_FRAME)
		return 0;
	if (memcmp(source, user->guest, sizeof user->guest)) {
		if (user->has_guest)
			return 0;
		if (user->seen && !user->warned)
			log_warn("uplink %s: several NICs send to passt, which serves one: see "
				 "'guest'",
				 user->base.uplink.name);
		user->warned |= user->seen;
		user->seen = true;
		memcpy(user->guest, source, sizeof user->guest);
	}
	if (packet->length > SHORT_FRAME)
		return packet->length;
	if (!packet->frame.parsed)
		frame_parse(packet);
	return packet->frame.version && packet->frame.end < packet->length ? packet->frame.end
									   : packet->length;
}

static const struct stream_framing framing = {
	.header = 4,
	.read = read_header,
	.merge = user_merge,
	.merged = user_merged,
	.received = received,
	.write = write_header,
	.admit = admit,
};

static const struct stream_framing framing_unmerged = {
	.header = 4,
	.read = read_header,
	.received = received,
	.write = write_header,
	.admit = admit,
};

static unsigned accepts(struct stream_uplink *u)
{
	(void)u;
	return OFFLOAD_CSUM | OFFLOAD_ANY_TCP;
}

static void send_cut(void *data, struct packet_batch *batch)
{
	stream_send(data, batch);
}

/* A large packet may be longer than passt takes, with a header that is longer than most. */
static void user_transmit(struct lane *lane, struct packet_batch *batch)
{
	struct user *user = lane->endpoint;
	unsigned i;

	for_each_packet (batch, i) {
		struct packet *packet = batch->packet[i];

		if (packet->length <= PASST_FRAME || !packet->offload.gso_type)
			continue;
		if (offload_resolve(packet, OFFLOAD_CSUM, send_cut, &user->base.stream))
			batch_take(batch, i);
		else
			lane_drop(lane, PACKET_OUT, DROP_OFFLOAD, batch, i);
	}
	stream_send(&user->base.stream, batch);
}

static const struct stream_uplink_ops ops = {
	.dial = dial,
	.over = over,
	.accepts = accepts,
	.framing = &framing,
};

/* --- life -------------------------------------------------------------------------------- */

static void user_close(struct uplink *uplink)
{
	struct user *user = (struct user *)uplink;

	stream_uplink_close(&user->base);
	user_child_end(&user->child);
	user_arguments_release(&user->arguments);
}

/* The first one must come up, so that a mistake in the configuration is found at once. */
static int start_first(struct user *user, struct error *err)
{
	static const struct timespec pause = { .tv_nsec = 50000000 };

	for (unsigned attempt = 1;; attempt++) {
		int fd = dial(&user->base, err);
		int ret = fd < 0 ? fd : user_child_await(&user->child, fd, err);

		if (!ret) {
			user->base.fd = fd;
			return 0;
		}
		if (fd >= 0)
			close(fd);
		if (ret != -EADDRINUSE || attempt == ATTEMPTS)
			return ret;
		user_child_end(&user->child);
		nanosleep(&pause, NULL);
	}
}

static int user_open(struct uplink *uplink, struct port_facts *facts, struct error *err)
{
	struct user *user = (struct user *)uplink;
	const struct user_settings *settings = uplink->settings;
	int ret;

	stream_uplink_init(&user->base, &ops);
	user->base.stream.patient = true; /* passt repeats a whole window if one packet is lost */
	if (!settings->merge)
		user->base.stream.framing = &framing_unmerged;
	user_child_init(&user->child, uplink->name, uplink->control);
	user->has_guest = settings->guest && !mac_parse(settings->guest, user->guest);
	if (settings->socket)
		return 0;
	ret = user_arguments(settings, facts->mtu, &user->arguments, err);
	if (ret)
		return ret;
	ret = start_first(user, err);
	if (ret)
		user_close(uplink);
	return ret;
}

const struct uplink_ops user_uplink = {
	.name = "user",
	.summary = "the host's network by passt, without privileges; port forwards, IPv4 and IPv6",
	.description =
		"Connects one guest with the world the way a program of this user is connected: "
		"passt(1), which is started and watched, makes the guest's TCP connections, UDP "
		"flows and pings with sockets of the host. No root, no bridge, no tap. It gives "
		"the guest an address by DHCP, DHCPv6 and router advertisements: the host's own, "
		"unless 'address' says otherwise. Services on the host's loopback address are "
		"reached at the address of the gateway; ports of the guest can be opened on the "
		"host by 'forward'.\n\n"
		"passt serves one guest. If several are on the switch, 'guest' says which; or "
		"each gets a switch and an uplink of its own.\n\n"
		"Large TCP packets of a guest go to passt as they are, and without checksums. "
		"The port's 'mtu' is what the guest is told (at most 65520): with it, and a NIC "
		"that allows it, packets to the guest are large as well.\n\n"
		"If passt ends it is started again, after a pause that grows up to seconds while it "
		"does not hold; connections that it had are lost. It ends with the daemon, "
		"however that ends. Started by root it becomes nobody.",
	.example = "switches:\n"
		   "  lan: {}\n"
		   "uplinks:\n"
		   "  inet:\n"
		   "    switch: lan\n"
		   "    user: {forward: \"tcp:127.0.0.1:8080:80,udp:5353\"}\n"
		   "nics:\n"
		   "  web0: {switch: lan}\n"
		   "vms:\n"
		   "  web:\n"
		   "    - {virtio-net: web0, socket: ./web-net.sock}\n",
	.settings_size = sizeof(struct user_settings),
	.options = options,
	.check = user_check,
	.size = sizeof(struct user),
	.open = user_open,
	.start = stream_uplink_start,
	.stop = stream_uplink_stop,
	.close = user_close,
	.port = { .kind = "user", .transmit = user_transmit, .report = stream_uplink_report },
};
