/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * link.c - an uplink that joins this switch with one of another daemon, by a UNIX socket
 *
 * docs/link-format.md has the protocol (link_format.c), stream.c the bytes, stream_uplink.c how
 * connections come and go. One side listens, the other connects.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "packet/offload.h"
#include "packet/uplink/link_format.h"
#include "packet/uplink/stream_uplink.h"
#include "util/log.h"
#include "util/unix_socket.h"

#define CALLERS 16 /* who are accepted or turned away in one go */

struct link_settings {
	char *listen, *connect;
};

static const struct option options[] = {
	{ .name = "listen",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct link_settings, listen),
	  .help = "Path of a UNIX socket to make, where the other daemon connects to. Only processes "
		  "of the same user may; one at a time." },
	{ .name = "connect",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct link_settings, connect),
	  .help = "Path of the UNIX socket of the other daemon, which listens there. As long as it "
		  "does not, this is tried again and again." },
	{ 0 },
};

struct link {
	struct stream_uplink base; /* first */
	struct link_hello peer;    /* home */
	uint32_t mtu;
	int listen_fd; /* or -1 */
	struct loop_watch *watch;
	struct log_limit refusals;
};

static int link_check(const void *data, struct error *err)
{
	const struct link_settings *settings = data;

	if (!settings->listen == !settings->connect)
		return error_set(err, EINVAL, "listen: expected either 'listen' or 'connect'");
	return 0;
}

/* --- connections: the control thread ----------------------------------------------------- */

/* All that wait: the first is taken, if there is none yet. After some of them others have a turn.
 */
static void accept_all(void *data)
{
	struct link *link = data;

	if (!stream_uplink_began(&link->base))
		return; /* they can wait */
	for (unsigned callers = 0; callers < CALLERS; callers++) {
		int fd = loop_watch_accept(link->base.uplink.control, link->watch);

		if (fd < 0) {
			if (fd != -EAGAIN && log_limited(&link->refusals))
				log_warn("uplink %s: cannot accept a connection: %s",
					 link->base.uplink.name, strerror(-fd));
			return;
		}
		if (stream_uplink_wants(&link->base)) {
			stream_uplink_connected(&link->base, fd, NULL);
			continue;
		}
		close(fd);
		if (log_limited(&link->refusals))
			log_warn("uplink %s: a second connection was refused",
				 link->base.uplink.name);
	}
	loop_watch_again(link->base.uplink.control, link->watch);
}

static int dial(struct stream_uplink *u, struct error *err)
{
	const struct link_settings *settings = u->uplink.settings;
	struct link *link = (struct link *)u;

	int fd;

	if (settings->connect) {
		fd = unix_socket_dial(settings->connect, err);
		return fd == -EAGAIN ? error_set(err, EBUSY, "socket %s: too many wait for it",
						 settings->connect)
				     : fd;
	}
	if (!*u->why)
		uplink_plugged(&u->uplink, false, "the other side has not connected yet");
	accept_all(link);
	return -EAGAIN;
}

/* --- the protocol: home ------------------------------------------------------------------ */

static size_t greeting(struct stream_uplink *u, void *to)
{
	const struct link_hello hello = {
		.accepts = OFFLOAD_CSUM | OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_ECN | OFFLOAD_USO4 |
			   OFFLOAD_USO6,
		.mtu = ((struct link *)u)->mtu,
	};

	link_hello_write(&hello, to);
	return LINK_HELLO;
}

static int greeted(struct stream *stream, const uint8_t *bytes, struct error *err)
{
	struct link *link = container_of(stream, struct link, base.stream);

	return link_hello_read(bytes, &link->peer, err);
}

static unsigned accepts(struct stream_uplink *u)
{
	const struct link *link = (const struct link *)u;

	if (link->peer.mtu < link->mtu)
		log_warn("uplink %s: the MTU of the other side is %u, and here %u: it drops longer "
			 "packets",
			 u->uplink.name, link->peer.mtu, link->mtu);
	return link->peer.accepts;
}

static const struct stream_framing framing = {
	.header = LINK_HEADER,
	.greeting = LINK_HELLO,
	.greeted = greeted,
	.read = link_header_read,
	.received = link_header_apply,
	.write = link_header_write,
};

static const struct stream_uplink_ops ops = {
	.dial = dial,
	.greeting = greeting,
	.accepts = accepts,
	.framing = &framing,
};

/* --- life -------------------------------------------------------------------------------- */

static void link_close(struct uplink *uplink)
{
	struct link *link = (struct link *)uplink;
	const struct link_settings *settings = uplink->settings;

	if (link->watch)
		loop_watch_remove(uplink->control, link->watch);
	if (link->listen_fd >= 0) {
		close(link->listen_fd);
		unlink(settings->listen);
	}
	stream_uplink_close(&link->base);
}

static int link_open(struct uplink *uplink, struct port_facts *facts, struct error *err)
{
	struct link *link = (struct link *)uplink;
	const struct link_settings *settings = uplink->settings;

	stream_uplink_init(&link->base, &ops);
	link->mtu = facts->mtu;
	link->listen_fd = -1;
	if (!settings->listen)
		return 0;
	link->listen_fd = unix_socket_listen(settings->listen, 0600, err);
	if (link->listen_fd < 0)
		return link->listen_fd;
	link->watch = loop_watch_add(uplink->control, link->listen_fd, accept_all, link);
	if (!link->watch) {
		link_close(uplink);
		return error_set(err, ENOMEM, "out of memory");
	}
	return 0;
}

const struct uplink_ops link_uplink = {
	.name = "link",
	.summary = "a switch of another daemon, by a UNIX socket",
	.description =
		"Joins this switch with one of another Penstock daemon on this host, as if by a "
		"cable: one side listens on a UNIX socket, the other connects to it, and connects "
		"again when the connection was lost. Frames pass as large as they are, with their "
		"checksums left out, until they leave for something that needs them cut and "
		"summed. A VLAN tag goes with a frame if the port has the VLAN in 'trunk'.\n\n"
		"The protocol is described in link-format.md. The other side is not trusted: "
		"what it sends is checked like what a guest sends, and what cannot be right ends "
		"the connection.\n\n"
		"Two links between the same two switches are a loop, in which frames go around "
		"for ever: there is no spanning tree.",
	.example = "switches:\n"
		   "  lan: {}\n"
		   "uplinks:\n"
		   "  peer: {switch: lan, link: {listen: ./link.sock}}\n"
		   "nics:\n"
		   "  web0: {switch: lan}\n"
		   "vms:\n"
		   "  web:\n"
		   "    - {virtio-net: web0, socket: ./web-net.sock}\n",
	.settings_size = sizeof(struct link_settings),
	.options = options,
	.check = link_check,
	.size = sizeof(struct link),
	.open = link_open,
	.start = stream_uplink_start,
	.stop = stream_uplink_stop,
	.close = link_close,
	.port = { .kind = "link",
		  .transmit = stream_uplink_transmit,
		  .report = stream_uplink_report },
};
