/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tap.c - an uplink to a tap interface of the host: what the host sends into the interface comes
 * into the switch, and the other way round
 *
 * One read() takes one frame, one writev() sends one: a tap has no system call for several. But a
 * frame may be large: with a header that says what is left to be done (vnet.h) the host's TCP hands
 * us 64 KiB at a time and takes as much, unsummed. (Linux, Documentation/networking/tuntap.rst.)
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <jansson.h>

#include "loop/loop.h"
#include "packet/offload.h"
#include "packet/uplink.h"
#include "packet/uplink/intake.h"
#include "packet/uplink/vnet.h"
#include "util/error.h"

/* Headers older than Linux 6.2 do not have them. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

#define BURSTS 8u
/* Bytes of frames of a burst: a few large ones, so that they are still in the caches when they are
 * copied, or PACKET_BURST that are not longer than 8 KiB. */
#define AREA  (512u << 10)
#define FRAME (sizeof(struct virtio_net_hdr) + PACKET_MAX)
/* The header stands so that the frame's IP header is aligned. */
#define OFFSET     8u
#define NO_FD      UINT64_MAX
#define MTU_UNSAID 65535u /* of a port, by default */

struct settings {
	char *interface;
	uint64_t fd;
};

struct tap {
	struct uplink uplink;
	int fd;
	char interface[IFNAMSIZ];
	unsigned accepts;
	struct intake intake;
	struct loop_watch *watch;
	struct loop_poller poller;
	bool stopping;
	struct vnet_out out;
	uint8_t bounce[PACKET_MAX + 4];
};

/* --- from the host -------------------------------------------------------------------- */

static void gone(struct tap *tap)
{
	loop_watch_remove(tap->uplink.loop, tap->watch);
	tap->watch = NULL;
	lane_down(tap->uplink.lane);
	uplink_plugged(&tap->uplink, false, "the interface was removed");
}

/* One frame into @one. False: there is none. */
static bool read_frame(struct tap *tap, struct intake_burst *one)
{
	struct burst *burst = one->burst;
	uint8_t *at = one->area + one->used + OFFSET;
	ssize_t n = read(tap->fd, at, FRAME);
	struct virtio_net_hdr header;
	struct packet *packet;

	if (n < 0) {
		/* EBADFD: the descriptor has lost its interface. */
		if (errno == EBADFD)
			gone(tap);
		return false;
	}
	if ((size_t)n < sizeof header)
		return true;
	memcpy(&header, at, sizeof header);
	*burst_vec(burst) = (struct iovec){ at, (size_t)n };
	packet = burst_add(burst, 1, sizeof header, (uint32_t)((size_t)n - sizeof header));
	if (!packet) {
		stats_add(&tap->uplink.lane->stats.direction[PACKET_IN].drops[DROP_MALFORMED], 1);
		return true;
	}
	vnet_received(&header, packet);
	one->used += (OFFSET + (size_t)n + 63) & ~(size_t)63;
	return true;
}

static bool tap_poll(struct loop_poller *poller)
{
	struct tap *tap = container_of(poller, struct tap, poller);
	struct intake_burst *one = tap->watch ? intake_begin(&tap->intake) : NULL;
	bool any;

	/* Without one: it goes on when one comes back. */
	if (!one)
		return false;
	while (one->burst->count < PACKET_BURST && one->used + OFFSET + FRAME <= AREA &&
	       read_frame(tap, one))
		;
	any = one->burst->count;
	if (any && tap->watch)
		lane_receive(tap->uplink.lane, one->burst);
	burst_put(one->burst);
	return any;
}

/* What comes from now on makes the descriptor readable anew. */
static bool tap_arm(struct loop_poller *poller)
{
	(void)poller;
	return false;
}

static void readable(void *data)
{
	struct tap *tap = data;

	loop_poller_wake(tap->uplink.loop, &tap->poller);
}

static void returned(struct intake *intake, struct intake_burst *one)
{
	struct tap *tap = container_of(intake, struct tap, intake);

	(void)one;
	if (tap->stopping) {
		if (!intake->busy)
			uplink_stopped(&tap->uplink);
	} else if (intake->busy == BURSTS - 1) {
		loop_poller_wake(tap->uplink.loop, &tap->poller);
	}
}

/* --- to the host ---------------------------------------------------------------------- */

static enum port_drop why(int error)
{
	switch (error) {
	case EAGAIN:
	case ENOBUFS:
	case ENOMEM:
		return DROP_NO_BUFFER;
	case EIO: /* it is down: `ip link set up` */
	case EBADFD:
	case ENETDOWN:
		return DROP_DOWN;
	case EMSGSIZE:
		return DROP_TOO_LONG;
	default:
		return DROP_ERROR;
	}
}

static void tap_transmit(struct lane *lane, struct packet_batch *batch)
{
	struct tap *tap = lane->endpoint;
	uint64_t packets = 0, bytes = 0;
	unsigned i;

	for_each_packet (batch, i) {
		const struct packet *packet = batch->packet[i];
		unsigned count = vnet_send(&tap->out, packet, tap->bounce);

		if (writev(tap->fd, tap->out.vec, (int)count) < 0) {
			lane_drop(lane, PACKET_OUT, why(errno), batch, i);
			continue;
		}
		packets++;
		bytes += packet->length;
	}
	lane_sent(lane, packets, bytes);
}

/* --- the ends ------------------------------------------------------------------------- */

static int socket_for_ioctl(void)
{
	return socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

/* What the kernel takes: all of it since 6.2, all but UDP segments before. */
static int set_offloads(struct tap *tap, struct error *err)
{
	unsigned flags = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	int size = sizeof(struct virtio_net_hdr);

	tap->accepts = OFFLOAD_CSUM | OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_ECN;
	if (ioctl(tap->fd, TUNSETVNETHDRSZ, &size))
		return error_set(err, errno, "interface: %s: TUNSETVNETHDRSZ: %s", tap->interface,
				 strerror(errno));
	if (!ioctl(tap->fd, TUNSETOFFLOAD, flags | TUN_F_USO4 | TUN_F_USO6)) {
		tap->accepts |= OFFLOAD_USO4 | OFFLOAD_USO6;
		return 0;
	}
	if (ioctl(tap->fd, TUNSETOFFLOAD, flags))
		return error_set(err, errno, "interface: %s: TUNSETOFFLOAD: %s", tap->interface,
				 strerror(errno));
	return 0;
}

/* One that was made here comes up, with the MTU of the port if its user gave one; of any other the
 * user decides. */
static void settle_interface(const struct tap *tap, bool made, struct port_facts *facts)
{
	struct ifreq request = { 0 };
	int fd = socket_for_ioctl();

	if (fd < 0)
		return;
	memcpy(request.ifr_name, tap->interface, IFNAMSIZ);
	if (made && facts->mtu < MTU_UNSAID) {
		request.ifr_mtu = (int)facts->mtu;
		ioctl(fd, SIOCSIFMTU, &request);
	}
	if (!ioctl(fd, SIOCGIFMTU, &request) && request.ifr_mtu > 0 &&
	    (uint32_t)request.ifr_mtu < facts->mtu)
		facts->mtu = (uint32_t)request.ifr_mtu;
	if (made && !ioctl(fd, SIOCGIFFLAGS, &request)) {
		request.ifr_flags |= IFF_UP;
		ioctl(fd, SIOCSIFFLAGS, &request);
	}
	close(fd);
}

static int not_attached(const struct settings *settings, bool exists, int error, struct error *err)
{
	const char *name = settings->interface;

	switch (error) {
	case EPERM:
		if (exists)
			return error_set(
				err, error,
				"interface: %s belongs to another user; made anew for this one by "
				"`ip tuntap add dev %s mode tap user %u`",
				name, name, (unsigned)geteuid());
		return error_set(
			err, error,
			"interface: %s does not exist, and making it takes CAP_NET_ADMIN; "
			"root makes it for this user by `ip tuntap add dev %s mode tap user %u`",
			name, name, (unsigned)geteuid());
	case EBUSY:
		return error_set(err, error, "interface: %s is in use by another process", name);
	case EINVAL:
		return error_set(err, error, "interface: %s is not a tap interface", name);
	default:
		return error_set(err, error, "interface: %s: TUNSETIFF: %s", name, strerror(error));
	}
}

static int attach(struct tap *tap, bool *made, struct error *err)
{
	const struct settings *settings = tap->uplink.settings;
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	bool exists = if_nametoindex(settings->interface);
	int status;

	tap->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (tap->fd < 0)
		return error_set(err, errno, "/dev/net/tun: %s%s", strerror(errno),
				 errno == ENOENT ? "; the kernel's module is called tun" : "");
	strncpy(request.ifr_name, settings->interface, IFNAMSIZ - 1);
	status = ioctl(tap->fd, TUNSETIFF, &request);
	if (status && errno == EINVAL && exists) {
		/* It was made for several queues: one of them will do. */
		request.ifr_flags |= IFF_MULTI_QUEUE;
		status = ioctl(tap->fd, TUNSETIFF, &request);
	}
	if (status) {
		not_attached(settings, exists, errno, err);
		close(tap->fd);
		return -err->code;
	}
	*made = !exists;
	memcpy(tap->interface, request.ifr_name, IFNAMSIZ);
	return 0;
}

/* A descriptor that whoever started us has opened. It stays open: another uplink may want it
 * later. */
static int take_over(struct tap *tap, struct error *err)
{
	const struct settings *settings = tap->uplink.settings;
	struct ifreq request = { 0 };
	int wanted = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;

	tap->fd = fcntl((int)settings->fd, F_DUPFD_CLOEXEC, 3);
	if (tap->fd < 0)
		return error_set(err, errno, "fd: %u: %s", (unsigned)settings->fd, strerror(errno));
	if (ioctl(tap->fd, TUNGETIFF, &request)) {
		error_set(err, errno, "fd: %u is not the descriptor of a tap interface: %s",
			  (unsigned)settings->fd, strerror(errno));
	} else if ((request.ifr_flags & wanted) != wanted) {
		error_set(err, EINVAL,
			  "fd: %u: it was opened with other flags than IFF_TAP, IFF_NO_PI and "
			  "IFF_VNET_HDR",
			  (unsigned)settings->fd);
	} else if (fcntl(tap->fd, F_SETFL, O_NONBLOCK)) {
		error_set(err, errno, "fd: %u: %s", (unsigned)settings->fd, strerror(errno));
	} else {
		memcpy(tap->interface, request.ifr_name, IFNAMSIZ);
		return 0;
	}
	close(tap->fd);
	return -err->code;
}

static int tap_check(const void *settings_, struct error *err)
{
	const struct settings *settings = settings_;

	if (!settings->interface == (settings->fd == NO_FD))
		return error_set(err, EINVAL, "interface: either it or fd is needed, not both");
	if (settings->interface &&
	    (!*settings->interface || strlen(settings->interface) >= IFNAMSIZ ||
	     strpbrk(settings->interface, "/%: \t\n")))
		return error_set(
			err, EINVAL,
			"interface: '%s' is not the name of an interface, 1 to 15 characters",
			settings->interface);
	return 0;
}

static void tap_close(struct uplink *uplink)
{
	struct tap *tap = (struct tap *)uplink;

	intake_release(&tap->intake);
	close(tap->fd);
}

static int tap_open(struct uplink *uplink, struct port_facts *facts, struct error *err)
{
	struct tap *tap = (struct tap *)uplink;
	const struct settings *settings = uplink->settings;
	bool made = false;
	int status;

	loop_poller_init(&tap->poller, tap_poll, tap_arm);
	status = settings->interface ? attach(tap, &made, err) : take_over(tap, err);

	if (status)
		return status;
	status = set_offloads(tap, err);
	if (!status && intake_init(&tap->intake, BURSTS, AREA, returned))
		status = error_set(err, ENOMEM, "out of memory");
	if (status) {
		close(tap->fd);
		return status;
	}
	settle_interface(tap, made, facts);
	return 0;
}

static void tap_start(struct uplink *uplink)
{
	struct tap *tap = (struct tap *)uplink;

	tap->watch = loop_watch_add(uplink->loop, tap->fd, readable, tap);
	if (!tap->watch) {
		uplink_plugged(uplink, false, "out of memory");
		return;
	}
	uplink->lane->accepts = tap->accepts;
	lane_up(uplink->lane, uplink);
	uplink_plugged(uplink, true, NULL);
	loop_poller_wake(uplink->loop, &tap->poller);
}

static void tap_stop(struct uplink *uplink)
{
	struct tap *tap = (struct tap *)uplink;

	tap->stopping = true;
	if (tap->watch) {
		loop_watch_remove(uplink->loop, tap->watch);
		tap->watch = NULL;
		lane_down(uplink->lane);
	}
	loop_poller_stop(uplink->loop, &tap->poller);
	if (!tap->intake.busy)
		uplink_stopped(uplink);
}

/* The host sees the cable pulled. Kernels before 5.0 have no such thing, and nothing is lost. */
static void tap_link_changed(struct port *port)
{
	const struct tap *tap = port->owner;
	int carrier = port->up;

	ioctl(tap->fd, TUNSETCARRIER, &carrier);
}

static json_t *tap_report(struct port *port)
{
	const struct tap *tap = port->owner;

	return json_pack("{s:s}", "interface", tap->interface);
}

static const struct option options[] = {
	{ .name = "interface",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct settings, interface),
	  .help = "The interface's name. One that does not exist is made, if that is permitted, and "
		  "goes when penstock ends." },
	{ .name = "fd",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct settings, fd),
	  .max = 1 << 20,
	  .automatic = true,
	  .fallback = "auto",
	  .help = "Instead: a descriptor that penstock was started with, opened with IFF_TAP, "
		  "IFF_NO_PI and IFF_VNET_HDR. auto: there is none." },
	{ 0 },
};

const struct uplink_ops tap_uplink = {
	.name = "tap",
	.summary = "a tap interface of the host",
	.description =
		"Joins a switch with the host's own network, by a tap interface: a network card of the "
		"host whose cable ends in the switch. Large and unsummed frames pass both ways, as "
		"between two guests.\n\n"
		"Making an interface takes CAP_NET_ADMIN. For a user without it root makes one that "
		"stays, `ip tuntap add dev NAME mode tap user USER`, and gives it addresses or puts "
		"it into a bridge; penstock attaches to it. One that penstock makes is "
		"up, and has the MTU of the port if there is one in the configuration; one that is there keeps "
		"what it has.",
	.example = "switches:\n"
		   "  lan: {}\n"
		   "uplinks:\n"
		   "  host: {switch: lan, tap: {interface: penstock0}}\n"
		   "nics:\n"
		   "  web0: {switch: lan}\n"
		   "vms:\n"
		   "  web:\n"
		   "    - {virtio-net: web0, socket: ./web-net.sock}\n",
	.settings_size = sizeof(struct settings),
	.options = options,
	.check = tap_check,
	.size = sizeof(struct tap),
	.open = tap_open,
	.start = tap_start,
	.stop = tap_stop,
	.close = tap_close,
	.port = { .kind = "tap",
		  .transmit = tap_transmit,
		  .report = tap_report,
		  .link_changed = tap_link_changed },
};
