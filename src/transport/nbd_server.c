/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_server.c - a server of NBD: its options, where it listens, who is let in, its end; see nbd.h
 *
 * A client that is one too many is disconnected at once; one that is let in is nbd_control.c's.
 * What there is for it is in nbd_exports.c.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/nbd_private.h"
#include "transport/transport.h"
#include "util/error.h"
#include "util/log.h"
#include "util/unix_socket.h"

#define SEND_BYTES (1 << 20) /* that a UNIX socket may hold for its client, if the host permits */
#define CALLERS    16        /* who are accepted or turned away in one go */

const struct option nbd_options[] = {
	{ .name = "socket",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct nbd_config, socket),
	  .help = "Path of the UNIX socket that clients connect to; only the user that penstock runs as "
		  "may. Either this or listen is required." },
	{ .name = "listen",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct nbd_config, listen),
	  .help = "Address and TCP port that clients connect to, such as 127.0.0.1:10809 or "
		  "[::1]:10809. Without TLS whoever can reach it may use it." },
	{ .name = "read-only",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct nbd_config, read_only),
	  .fallback = "true",
	  .help = "Clients can only read. If false they may write, but not to a disk that a device of a "
		  "VM has, unless the disk is shared." },
	{ .name = "connections",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct nbd_config, connections),
	  .min = 1,
	  .max = 4096,
	  .fallback = "64",
	  .help = "Most connections at once; further ones are closed. Each may take 64M of memory, if "
		  "its client asks for that much at once." },
	{ .name = "timeout",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct nbd_config, timeout),
	  .min = 100000000,
	  .max = 3600000000000,
	  .fallback = "30s",
	  .help = "How long a client may take from connecting until it has chosen a disk. A client that "
		  "has one may be idle for any time." },
	{ .name = "tls-certificates",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct nbd_config, certificates),
	  .help = "Directory with server-cert.pem and server-key.pem, and ca-cert.pem, which has signed "
		  "the certificates of clients. With it TLS is required of every client." },
	{ .name = "tls-verify",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct nbd_config, verify),
	  .fallback = "true",
	  .help = "With tls-certificates: clients must have a certificate that ca-cert.pem has signed." },
	{ .name = "tls-psk",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct nbd_config, psk),
	  .help = "File with keys of clients, a line NAME:HEXKEY each, as psktool writes it. With it TLS "
		  "is required of every client. It is read whenever a client comes." },
	{ 0 },
};

const char *nbd_server_label(const struct nbd_server *server)
{
	return server->label;
}

/* --- where it listens ----------------------------------------------------------------- */

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* Copies the host of "HOST:PORT" or "[HOST]:PORT"; *@v6: it had brackets. False: it is neither. */
static bool split(const char *text, char host[64], bool *v6, uint16_t *port)
{
	const char *colon = strrchr(text, ':');
	unsigned long number;
	size_t n = colon ? (size_t)(colon - text) : 0;
	char *end;

	if (!n || colon[1] < '0' || colon[1] > '9')
		return false;
	number = strtoul(colon + 1, &end, 10);
	*v6 = *text == '[' && text[n - 1] == ']' && n > 2;
	if (*v6) {
		text++;
		n -= 2;
	}
	if (*end || !number || number > UINT16_MAX || n >= 64)
		return false;
	memcpy(host, text, n);
	host[n] = 0;
	*port = (uint16_t)number;
	return true;
}

static bool parse_address(const char *text, union address *address, socklen_t *length)
{
	uint16_t port;
	char host[64];
	bool v6;

	memset(address, 0, sizeof *address);
	if (!split(text, host, &v6, &port))
		return false;
	if (v6) {
		address->v6.sin6_family = AF_INET6;
		address->v6.sin6_port = htons(port);
		*length = sizeof address->v6;
		return inet_pton(AF_INET6, host, &address->v6.sin6_addr) == 1;
	}
	address->v4.sin_family = AF_INET;
	address->v4.sin_port = htons(port);
	*length = sizeof address->v4;
	return inet_pton(AF_INET, host, &address->v4.sin_addr) == 1;
}

int nbd_check_listen(const char *listen, bool *public, struct error *err)
{
	union address address;
	socklen_t length;

	if (!parse_address(listen, &address, &length))
		return error_set(
			err, EINVAL,
			"listen: '%s' is not understood; expected an address and a port, such as "
			"127.0.0.1:10809 or [::1]:10809",
			listen);
	*public = address.any.sa_family == AF_INET6
			  ? !IN6_IS_ADDR_LOOPBACK(&address.v6.sin6_addr)
			  : ntohl(address.v4.sin_addr.s_addr) >> 24 != 127;
	return 0;
}

static int listen_at(const char *text, struct error *err)
{
	union address address;
	socklen_t length;
	int one = 1, fd;

	if (!parse_address(text, &address, &length))
		return error_set(err, EINVAL, "listen: '%s' is not understood", text);
	fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_set(err, errno, "listen: %s: %s", text, strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (address.any.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	if (bind(fd, &address.any, length) || listen(fd, 64)) {
		error_set(err, errno, "listen: %s: %s", text, strerror(errno));
		close(fd);
		return -err->code;
	}
	return fd;
}

/* --- new clients ---------------------------------------------------------------------------- */

/* TCP finds out by itself how much it had best hold. */
static void set_options(int fd, bool tcp)
{
	int one = 1, bytes = SEND_BYTES;

	if (tcp) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
	} else if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes)) {
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
	}
}

static void let_in(struct nbd_server *server, int fd)
{
	if (server->client_count >= server->config->connections) {
		if (log_limited(&server->limit))
			log_warn("%s: a client was turned away: there are %u connections",
				 server->label, server->client_count);
		close(fd);
		return;
	}
	set_options(fd, server->config->listen);
	if (!nbd_client_admit(server, fd))
		close(fd);
}

static void accept_clients(void *data)
{
	struct nbd_server *server = data;

	for (unsigned callers = 0; callers < CALLERS; callers++) {
		int fd = loop_watch_accept(server->loops.control, server->watch);

		if (fd >= 0) {
			let_in(server, fd);
			continue;
		}
		if (fd != -EAGAIN && log_limited(&server->limit))
			log_warn("%s: cannot accept a client: %s", server->label, strerror(-fd));
		return;
	}
	loop_watch_again(server->loops.control, server->watch);
}

/* --- the server ------------------------------------------------------------------------------ */

static void ended(struct loop_message *message)
{
	struct nbd_server *server = container_of(message, struct nbd_server, end);
	void (*closed)(void *data) = server->closed;
	void *data = server->closed_data;

	nbd_exports_close(server);
	nbd_tls_close(server->tls);
	free(server->label);
	free(server);
	if (closed)
		closed(data);
}

static int open_server(struct nbd_server *server, struct error *err)
{
	const struct nbd_config *config = server->config;

	if (asprintf(&server->label, "nbd %s", config->socket ? config->socket : config->listen) <
	    0) {
		server->label = NULL;
		return error_set(err, ENOMEM, "out of memory");
	}
	if (config->certificates || config->psk) {
		server->tls = nbd_tls_open(config->certificates, config->psk, config->verify, err);
		if (!server->tls)
			return -err->code;
	}
	server->listen_fd = config->socket ? unix_socket_listen(config->socket, 0600, err)
					   : listen_at(config->listen, err);
	if (server->listen_fd < 0)
		return server->listen_fd;
	server->watch =
		loop_watch_add(server->loops.control, server->listen_fd, accept_clients, server);
	return server->watch ? 0 : error_set(err, ENOMEM, "out of memory");
}

static void stop_listening(struct nbd_server *server)
{
	if (server->watch)
		loop_watch_remove(server->loops.control, server->watch);
	if (server->listen_fd >= 0) {
		close(server->listen_fd);
		if (server->config->socket)
			unlink(server->config->socket);
	}
	server->watch = NULL;
	server->listen_fd = -1;
}

struct nbd_server *nbd_server_open(const struct nbd_config *config, const struct nbd_house *house,
				   const struct transport_loops *loops, struct error *err)
{
	struct nbd_server *server = calloc(1, sizeof *server);
	bool public = false;

	if (!server) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	server->config = config;
	server->house = house;
	server->loops = *loops;
	server->turn = loops->first;
	server->listen_fd = -1;
	server->end.run = ended;
	list_init(&server->clients);
	nbd_exports_open(server);
	if (open_server(server, err)) {
		stop_listening(server);
		ended(&server->end);
		return NULL;
	}
	if (config->listen)
		nbd_check_listen(config->listen, &public, NULL);
	if (public && !server->tls)
		log_warn("%s: it has no TLS: whoever can reach it may use it", server->label);
	log_info("%s: disks are exported%s%s", server->label,
		 config->read_only ? " for reading" : "", server->tls ? ", with TLS" : "");
	return server;
}

void nbd_server_left(struct nbd_server *server)
{
	if (server->closing && list_empty(&server->clients))
		loop_send(server->loops.control, &server->end);
}

void nbd_server_close(struct nbd_server *server, void (*done)(void *data), void *data)
{
	server->closing = true;
	server->closed = done;
	server->closed_data = data;
	stop_listening(server);
	list_for_each (link, &server->clients)
		nbd_client_dismiss(container_of(link, struct nbd_client, link));
	nbd_server_left(server);
}
