/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * packet.c - an uplink to an interface of the host: what arrives there comes into the
 * switch, and what goes out to the port is sent there (packet(7); Linux,
 * Documentation/networking/packet_mmap.rst)
 *
 * The kernel writes what it receives into a ring that we share with it, with a header in front of
 * each frame that says what is left to be done (vnet.h): a peer on the same machine (veth) sends
 * large and unsummed frames, and a network card joins segments into large ones. The bodies of our
 * packets lie in the ring; a frame is the kernel's again when its burst is released, in whatever
 * order.
 *
 * The ring is of version 2, of slots that hold the largest frame. Version 3 packs frames densely,
 * but gives a block only when it is full or its time is over, a millisecond at least: too
 * long for a guest that waits for an answer.
 *
 * We send with sendmmsg(), a batch a system call. A ring for sending would copy as much: what a
 * guest sends must be copied out of its memory in any case.
 *
 * When the interface goes down or away the socket says so once, to whoever asks it first. From then
 * on its name is looked for every second, and the socket bound anew.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <jansson.h>

#include "loop/loop.h"
#include "packet/offload.h"
#include "packet/uplink.h"
#include "packet/uplink/intake.h"
#include "packet/uplink/vnet.h"
#include "util/error.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

#define BURSTS 16u
/* What the kernel allocates at once, pages in a row if it can. */
#define BLOCK (1u << 20)
/* Of the ring: its own header, addresses, alignment, ours, and the largest frame. */
#define SLOT        ((unsigned)TPACKET_ALIGN(TPACKET2_HDRLEN + 64 + PACKET_MAX))
#define SEND_BUFFER (4 << 20)
#define RETRY       1000000000ull /* ns between looks for a lost interface */

static const char IS_DOWN[] = "the interface is down", WAS_REMOVED[] = "the interface was removed";

struct settings {
	char *interface;
	uint64_t ring; /* bytes */
	bool promiscuous;
};

struct packet_socket {
	struct uplink uplink;
	int fd;
	int index;       /* of the interface */
	uint32_t mtu;    /* its own, as of @looked */
	uint64_t looked; /* ns */
	uint8_t *ring;
	size_t ring_size;
	unsigned slots, next; /* the slot that the kernel fills next */
	unsigned held;        /* slots that bursts have */
	struct intake intake;
	struct loop_watch *watch;
	struct loop_poller poller;
	struct loop_timer retry;
	bool present; /* it is bound to an interface that is up */
	bool stopping;
	stats_counter missed; /* by the kernel: the ring was full */
	struct vnet_out out[PACKET_BURST];
	struct mmsghdr messages[PACKET_BURST];
	uint8_t which[PACKET_BURST]; /* packet of the batch */
	uint8_t bounce[PACKET_MAX + 4];
};

/* --- from the interface --------------------------------------------------------------- */

static struct tpacket2_hdr *slot(const struct packet_socket *ps, unsigned i)
{
	unsigned a_block = BLOCK / SLOT;

	return (struct tpacket2_hdr *)(void *)(ps->ring + (size_t)(i / a_block) * BLOCK +
					       (size_t)(i % a_block) * SLOT);
}

static bool filled(const struct packet_socket *ps)
{
	return ps->held < ps->slots &&
	       __atomic_load_n(&slot(ps, ps->next)->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER;
}

/* The kernel takes an 802.1Q tag out of the frame. One of another kind (802.1ad) is part of the
 * frame for us: there is room in front of the head. */
static void put_tag_back(struct packet *packet, const struct tpacket2_hdr *frame)
{
	bool customer = !(frame->tp_status & TP_STATUS_VLAN_TPID_VALID) ||
			frame->tp_vlan_tpid == ETHERTYPE_VLAN;

	if (customer) {
		packet->tagged = true;
		packet->tag = frame->tp_vlan_tci;
		return;
	}
	if (packet->head_length > PACKET_HEAD - 4)
		return;
	packet->head -= 4;
	memmove(packet->head, packet->head + 4, 12);
	packet->head[12] = (uint8_t)(frame->tp_vlan_tpid >> 8);
	packet->head[13] = (uint8_t)frame->tp_vlan_tpid;
	packet->head[14] = (uint8_t)(frame->tp_vlan_tci >> 8);
	packet->head[15] = (uint8_t)frame->tp_vlan_tci;
	packet->head_length += 4;
	packet->length += 4;
	if (packet->offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		packet->offload.csum_start += 4;
	if (packet->offload.gso_type)
		packet->offload.header_length += 4;
}

static void take_frame(struct packet_socket *ps, struct burst *burst)
{
	const struct tpacket2_hdr *frame = slot(ps, ps->next);
	uint8_t *at = (uint8_t *)(uintptr_t)frame + frame->tp_mac;
	struct virtio_net_hdr header;
	struct packet *packet = NULL;

	memcpy(&header, at - sizeof header, sizeof header);
	if (frame->tp_snaplen == frame->tp_len) {
		*burst_vec(burst) = (struct iovec){ at, frame->tp_snaplen };
		packet = burst_add(burst, 1, 0, frame->tp_snaplen);
	}
	if (!packet) {
		stats_add(&ps->uplink.lane->stats.direction[PACKET_IN].drops[DROP_MALFORMED], 1);
		return;
	}
	vnet_received(&header, packet);
	if (frame->tp_status & TP_STATUS_VLAN_VALID)
		put_tag_back(packet, frame);
}

static void lost(struct packet_socket *ps, const char *why)
{
	if (ps->present) {
		ps->present = false;
		lane_down(ps->uplink.lane);
	}
	uplink_plugged(&ps->uplink, false, why);
	loop_timer_set(ps->uplink.loop, &ps->retry, loop_now(ps->uplink.loop) + RETRY);
}

static bool socket_poll(struct loop_poller *poller)
{
	struct packet_socket *ps = container_of(poller, struct packet_socket, poller);
	struct intake_burst *one;

	if (!filled(ps))
		return false;
	one = intake_begin(&ps->intake);
	/* Without one: it goes on when one comes back. */
	if (!one)
		return false;
	one->first = ps->next;
	while (one->burst->count < PACKET_BURST && one->slots < PACKET_BURST && filled(ps)) {
		take_frame(ps, one->burst);
		/* Neither the kernel's nor new: it is not taken again before it has come back. */
		__atomic_store_n(&slot(ps, ps->next)->tp_status, TP_STATUS_COPY, __ATOMIC_RELAXED);
		one->slots++;
		ps->held++;
		ps->next = (ps->next + 1) % ps->slots;
	}
	/* What was in the ring when the interface went is dropped with it. */
	if (one->burst->count && ps->present)
		lane_receive(ps->uplink.lane, one->burst);
	burst_put(one->burst);
	return true;
}

/* What comes from now on makes the socket readable anew; so does the end of the interface, but
 * once. */
static bool socket_arm(struct loop_poller *poller)
{
	struct packet_socket *ps = container_of(poller, struct packet_socket, poller);
	int error = 0;
	socklen_t length = sizeof error;

	if (filled(ps))
		return ps->intake.free;
	if (!getsockopt(ps->fd, SOL_SOCKET, SO_ERROR, &error, &length) && error && ps->present)
		lost(ps, error == ENETDOWN ? IS_DOWN : WAS_REMOVED);
	return ps->intake.free && filled(ps);
}

static void readable(void *data)
{
	struct packet_socket *ps = data;

	loop_poller_wake(ps->uplink.loop, &ps->poller);
}

/* The slots of @one are the kernel's again. */
static void returned(struct intake *intake, struct intake_burst *one)
{
	struct packet_socket *ps = container_of(intake, struct packet_socket, intake);

	for (unsigned i = 0; i < one->slots; i++)
		__atomic_store_n(&slot(ps, (one->first + i) % ps->slots)->tp_status,
				 TP_STATUS_KERNEL, __ATOMIC_RELEASE);
	ps->held -= one->slots;
	if (ps->stopping) {
		if (!intake->busy)
			uplink_stopped(&ps->uplink);
	} else if (intake->busy == BURSTS - 1) {
		loop_poller_wake(ps->uplink.loop, &ps->poller);
	}
}

/* --- the interface ------------------------------------------------------------------- */

/* The interface by its name, as of now; its flags and MTU. 0 or -errno. */
static int look(int fd, const char *name, int *index, short *flags, uint32_t *mtu)
{
	struct ifreq request = { 0 };

	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	if (ioctl(fd, SIOCGIFINDEX, &request))
		return -errno;
	*index = request.ifr_ifindex;
	if (ioctl(fd, SIOCGIFFLAGS, &request))
		return -errno;
	*flags = request.ifr_flags;
	if (ioctl(fd, SIOCGIFMTU, &request))
		return -errno;
	*mtu = (uint32_t)request.ifr_mtu;
	return 0;
}

/* --- to the interface ----------------------------------------------------------------- */

static enum port_drop why(int error)
{
	switch (error) {
	case EAGAIN:
	case ENOBUFS:
	case ENOMEM:
		return DROP_NO_BUFFER;
	case ENETDOWN:
	case ENXIO:
	case ENODEV:
		return DROP_DOWN;
	case EMSGSIZE:
		return DROP_TOO_LONG;
	default:
		return DROP_ERROR;
	}
}

/* Sends the @count that are prepared; goes on behind one that is refused. */
static void send_all(struct packet_socket *ps, struct packet_batch *batch, unsigned count)
{
	struct lane *lane = ps->uplink.lane;
	uint64_t bytes = 0, packets = 0;
	unsigned done = 0;

	while (done < count) {
		int n = sendmmsg(ps->fd, ps->messages + done, count - done, MSG_DONTWAIT);
		const struct packet *packet;
		enum port_drop cause;

		for (int i = 0; i < n; i++)
			bytes += batch->packet[ps->which[done + (unsigned)i]]->length;
		if (n > 0) {
			done += (unsigned)n;
			packets += (unsigned)n;
			continue;
		}
		packet = batch->packet[ps->which[done]];
		/* A kernel before 6.2: from now on such frames are cut for it. */
		if (errno == EINVAL && packet->offload.gso_type == VIRTIO_NET_HDR_GSO_UDP_L4)
			lane->accepts &= ~(unsigned)(OFFLOAD_USO4 | OFFLOAD_USO6);
		cause = why(errno);
		/* The socket says it once, and may have said it here. */
		if (cause == DROP_DOWN)
			loop_timer_set(lane->loop, &ps->retry, loop_now(lane->loop));
		lane_drop(lane, PACKET_OUT, cause, batch, ps->which[done++]);
	}
	lane_sent(lane, packets, bytes);
}

/* The interface cuts a large frame as it is told, also into pieces that are longer than its MTU:
 * then it is dropped here. Other frames the kernel looks at itself. */
static bool is_too_long(struct packet_socket *ps, const struct packet *packet)
{
	const struct settings *settings = ps->uplink.settings;
	const struct packet_offload *offload = &packet->offload;
	uint64_t now = loop_now(ps->uplink.loop);
	short flags;
	int index;

	if (!offload->gso_type)
		return false;
	if (now - ps->looked >= RETRY) {
		ps->looked = now;
		look(ps->fd, settings->interface, &index, &flags, &ps->mtu);
	}
	return (uint32_t)offload->header_length + offload->gso_size > ps->mtu + ETHERNET_HEADER;
}

static void socket_transmit(struct lane *lane, struct packet_batch *batch)
{
	struct packet_socket *ps = lane->endpoint;
	unsigned count = 0, i;

	for_each_packet (batch, i) {
		const struct packet *packet = batch->packet[i];
		struct vnet_out *out = &ps->out[count];
		unsigned vecs;
		bool alone;

		if (is_too_long(ps, packet)) {
			lane_drop(lane, PACKET_OUT, DROP_TOO_LONG, batch, i);
			continue;
		}
		vecs = vnet_send(out, packet, NULL);
		alone = !vecs;
		if (alone) {
			send_all(ps, batch, count);
			count = 0;
			out = &ps->out[0];
			vecs = vnet_send(out, packet, ps->bounce);
		}
		ps->messages[count].msg_hdr =
			(struct msghdr){ .msg_iov = out->vec, .msg_iovlen = vecs };
		ps->which[count++] = (uint8_t)i;
		if (alone) {
			send_all(ps, batch, count);
			count = 0;
		}
	}
	send_all(ps, batch, count);
}

/* --- the ends ------------------------------------------------------------------------- */

/* Receives at interface @index from now on. 0 or -errno. */
static int bind_to(struct packet_socket *ps, int index)
{
	const struct settings *settings = ps->uplink.settings;
	struct sockaddr_ll address = { .sll_family = AF_PACKET,
				       .sll_protocol = htons(ETH_P_ALL),
				       .sll_ifindex = index };
	struct packet_mreq all = { .mr_ifindex = index, .mr_type = PACKET_MR_PROMISC };

	if (bind(ps->fd, (struct sockaddr *)&address, sizeof address))
		return -errno;
	/* Of an interface that is gone the membership is gone, too. */
	if (settings->promiscuous && index != ps->index &&
	    setsockopt(ps->fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all))
		return -errno;
	ps->index = index;
	return 0;
}

/* The interface was lost, or a frame that could not be sent says so. */
static void look_again(struct loop_timer *timer)
{
	struct packet_socket *ps = container_of(timer, struct packet_socket, retry);
	const struct settings *settings = ps->uplink.settings;
	struct uplink *uplink = &ps->uplink;
	short flags = 0;
	int index;
	int status = look(ps->fd, settings->interface, &index, &flags, &ps->mtu);

	if (ps->present && !status && flags & IFF_UP && index == ps->index)
		return;
	if (ps->present) {
		lost(ps, !status && index == ps->index ? IS_DOWN : WAS_REMOVED);
		return;
	}
	if (status || !(flags & IFF_UP) || bind_to(ps, index)) {
		loop_timer_set(uplink->loop, timer, loop_now(uplink->loop) + RETRY);
		return;
	}
	ps->present = true;
	lane_up(uplink->lane, uplink);
	uplink_plugged(uplink, true, NULL);
	loop_poller_wake(uplink->loop, &ps->poller);
}

static int set_up_ring(struct packet_socket *ps, struct error *err)
{
	const struct settings *settings = ps->uplink.settings;
	unsigned blocks = (unsigned)(settings->ring / BLOCK);
	int on = 1, version = TPACKET_V2, buffer = SEND_BUFFER;
	struct tpacket_req request = { .tp_block_size = BLOCK,
				       .tp_block_nr = blocks,
				       .tp_frame_size = SLOT,
				       .tp_frame_nr = blocks * (BLOCK / SLOT) };

	if (setsockopt(ps->fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version) ||
	    setsockopt(ps->fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on))
		return error_set(err, errno, "interface: %s: packet socket: %s",
				 settings->interface, strerror(errno));
	if (setsockopt(ps->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on))
		return error_set(err, errno,
				 "interface: %s: PACKET_IGNORE_OUTGOING: %s (it takes Linux 4.20)",
				 settings->interface, strerror(errno));
	if (setsockopt(ps->fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof request))
		return error_set(err, errno, "ring: the kernel has no memory for %u MiB: %s",
				 blocks, strerror(errno));
	if (setsockopt(ps->fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer))
		setsockopt(ps->fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
	ps->slots = request.tp_frame_nr;
	ps->ring_size = (size_t)blocks * BLOCK;
	ps->ring = mmap(NULL, ps->ring_size, PROT_READ | PROT_WRITE, MAP_SHARED, ps->fd, 0);
	if (ps->ring == MAP_FAILED) {
		ps->ring = NULL;
		return error_set(err, errno, "ring: %s", strerror(errno));
	}
	return 0;
}

static void socket_close(struct uplink *uplink)
{
	struct packet_socket *ps = (struct packet_socket *)uplink;

	if (ps->ring)
		munmap(ps->ring, ps->ring_size);
	intake_release(&ps->intake);
	close(ps->fd);
}

static int find_interface(struct packet_socket *ps, int *index, struct port_facts *facts,
			  struct error *err)
{
	const struct settings *settings = ps->uplink.settings;
	uint32_t mtu;
	short flags;
	int status = look(ps->fd, settings->interface, index, &flags, &mtu);

	if (status)
		return error_set(err, -status, "interface: %s: %s", settings->interface,
				 status == -ENODEV ? "there is no such interface"
						   : strerror(-status));
	if (mtu < facts->mtu)
		facts->mtu = mtu;
	ps->mtu = mtu;
	return 0;
}

static int socket_open(struct uplink *uplink, struct port_facts *facts, struct error *err)
{
	struct packet_socket *ps = (struct packet_socket *)uplink;
	const struct settings *settings = uplink->settings;
	int index = 0, status;

	loop_poller_init(&ps->poller, socket_poll, socket_arm);
	loop_timer_init(&ps->retry, look_again);
	/* Of no protocol until it is bound, or it would receive from all interfaces. */
	ps->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (ps->fd < 0)
		return error_set(err, errno, "interface: %s: a packet socket: %s%s",
				 settings->interface, strerror(errno),
				 errno == EPERM
					 ? "; it takes CAP_NET_RAW (`setcap cap_net_raw+ep` on "
					   "penstock, or AmbientCapabilities= of its unit)"
					 : "");
	status = find_interface(ps, &index, facts, err);
	if (!status)
		status = set_up_ring(ps, err);
	if (!status && intake_init(&ps->intake, BURSTS, 0, returned))
		status = error_set(err, ENOMEM, "out of memory");
	if (!status) {
		status = bind_to(ps, index);
		if (status)
			error_set(err, -status, "interface: %s: %s", settings->interface,
				  strerror(-status));
	}
	if (status)
		socket_close(uplink);
	return status;
}

static void socket_start(struct uplink *uplink)
{
	struct packet_socket *ps = (struct packet_socket *)uplink;

	ps->watch = loop_watch_add(uplink->loop, ps->fd, readable, ps);
	if (!ps->watch) {
		uplink_plugged(uplink, false, "out of memory");
		return;
	}
	uplink->lane->accepts = OFFLOAD_CSUM | OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_ECN |
				OFFLOAD_USO4 | OFFLOAD_USO6;
	ps->present = true;
	lane_up(uplink->lane, uplink);
	uplink_plugged(uplink, true, NULL);
	readable(ps);
}

static void socket_stop(struct uplink *uplink)
{
	struct packet_socket *ps = (struct packet_socket *)uplink;

	ps->stopping = true;
	loop_timer_cancel(&ps->retry);
	if (ps->watch)
		loop_watch_remove(uplink->loop, ps->watch);
	loop_poller_stop(uplink->loop, &ps->poller);
	if (ps->present)
		lane_down(uplink->lane);
	ps->present = false;
	if (!ps->intake.busy)
		uplink_stopped(uplink);
}

static int socket_check(const void *settings_, struct error *err)
{
	const struct settings *settings = settings_;

	if (!*settings->interface || strlen(settings->interface) >= IFNAMSIZ)
		return error_set(
			err, EINVAL,
			"interface: '%s' is not the name of an interface, 1 to 15 characters",
			settings->interface);
	return 0;
}

static json_t *socket_report(struct port *port)
{
	struct packet_socket *ps = port->owner;
	const struct settings *settings = ps->uplink.settings;
	struct tpacket_stats stats;
	socklen_t length = sizeof stats;

	/* Since it was asked last. */
	if (!getsockopt(ps->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &length))
		stats_add(&ps->missed, stats.tp_drops);
	return json_pack("{s:s, s:I}", "interface", settings->interface, "missed",
			 (json_int_t)stats_read(&ps->missed));
}

static const struct option options[] = {
	{ .name = "interface",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct settings, interface),
	  .required = true,
	  .help = "The host's interface, such as eth1 or one end of a veth pair." },
	{ .name = "ring",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct settings, ring),
	  .min = BLOCK,
	  .max = 1ull << 30,
	  .fallback = "32M",
	  .help = "Memory of the kernel for frames that arrive, 15 of them a MiB. What comes while it "
		  "is full is lost, and counted as missed." },
	{ .name = "promiscuous",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct settings, promiscuous),
	  .fallback = "true",
	  .help = "The interface receives frames for all addresses, as those of guests are not its "
		  "own." },
	{ 0 },
};

const struct uplink_ops packet_uplink = {
	.name = "packet",
	.summary = "an interface of the host, by a packet socket",
	.description =
		"Joins a switch with the network at an interface of the host, beside the host's own "
		"use of it. What the host itself sends there does not come in: for traffic between "
		"host and guests there is tap. VLAN tags, large and unsummed frames come and go as "
		"they are.\n\n"
		"It takes CAP_NET_RAW, and no other privilege. While the interface is down or does "
		"not exist the uplink is unplugged; it comes back within a second of the interface.",
	.example = "switches:\n"
		   "  lan: {}\n"
		   "uplinks:\n"
		   "  office: {switch: lan, trunk: all, packet: {interface: eth1}}\n"
		   "nics:\n"
		   "  web0: {switch: lan, vlan: 10}\n"
		   "vms:\n"
		   "  web:\n"
		   "    - {virtio-net: web0, socket: ./web-net.sock}\n",
	.settings_size = sizeof(struct settings),
	.options = options,
	.check = socket_check,
	.size = sizeof(struct packet_socket),
	.open = socket_open,
	.start = socket_start,
	.stop = socket_stop,
	.close = socket_close,
	.port = { .kind = "packet", .transmit = socket_transmit, .report = socket_report },
};
