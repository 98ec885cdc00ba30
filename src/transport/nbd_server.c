/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_server.c - listens for NBD clients, haggles with them, and hands them to loops; see nbd.h
 *
 *     control    accept, haggle, TLS --start-->               <--gone-- count, free
 *     loop                             serve (nbd_client.c) ... end
 *
 * What a client may do is settled when transmission begins: whether it may write depends on who has
 * the disk then. Haggling is short, or the client is dropped: it has a time for all of it, sends
 * options of a limited size, and is read no further before it has taken the last answer. A client
 * that is one too many is disconnected at once.
 *
 * The control thread may want a client gone while it is about to go by itself. So stop is answered:
 * by gone, if the loop has seen it before the end, or else by stopped.
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

#define SEND_BYTES (1 << 20)  /* that a UNIX socket may hold for its client, if the host permits */
#define AGAIN      100000000u /* ns until a client that could not be accepted is tried again */

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

/* Connections of clients that are gone have left their counters with the disk's name. */
struct past {
	struct list link;
	char *disk;
	struct queue_stats stats;
};

struct nbd_server {
	const struct nbd_config *config;
	const struct nbd_house *house;
	struct transport_loops loops;
	unsigned turn; /* of loops */
	char *label;
	struct nbd_book book;
	struct nbd_tls *tls;
	int listen_fd;
	struct loop_watch *watch;
	struct loop_timer again; /* to accept */
	struct list clients;
	unsigned client_count;
	struct list pasts;
	struct log_limit limit;
	bool closing;
	void (*closed)(void *data);
	void *closed_data;
	struct loop_message end;
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

/* --- exports --------------------------------------------------------------------------- */

static bool exports(const struct nbd_server *server, const char *disk)
{
	const struct nbd_config *config = server->config;

	for (unsigned i = 0; i < config->disk_count; i++)
		if (!strcmp(config->disks[i], disk))
			return true;
	return config->all;
}

/* The exported disk called @name; the only one, if @name is empty. NULL: there is none. */
static struct disk *find_disk(const struct nbd_server *server, const char *name)
{
	const struct nbd_house *house = server->house;
	struct disk *disk, *only = NULL;

	if (*name)
		return exports(server, name) ? house->find(house->data, name) : NULL;
	for (unsigned i = 0; (disk = house->at(house->data, i)); i++) {
		if (!exports(server, disk->name))
			continue;
		if (only)
			return NULL;
		only = disk;
	}
	return only;
}

/* True if clients that come now may write; else @err, if it is wanted, says why not. */
static bool writable(const struct nbd_server *server, const struct disk *disk, struct error *err)
{
	const struct nbd_house *house = server->house;

	if (server->config->read_only || disk->config.read_only)
		return false;
	return house->may_write(house->data, disk, err);
}

static void describe(const struct nbd_server *server, const struct disk *disk,
		     struct nbd_offer *offer)
{
	struct error why = { 0 };
	bool writes = writable(server, disk, &why);
	uint32_t best = disk->limits.physical_block_size;
	char size[32];

	offer->name = disk->name;
	offer->size = atomic_load(&disk->size);
	snprintf(offer->description, sizeof offer->description, "penstock disk, %s%s%s",
		 format_size(offer->size, size, sizeof size), writes ? "" : ", read-only",
		 why.code ? " while a VM has it" : "");
	offer->flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
		       NBD_FLAG_SEND_CACHE | NBD_FLAG_CAN_MULTI_CONN;
	if (writes)
		offer->flags |= NBD_FLAG_SEND_WRITE_ZEROES |
				(disk->limits.discard ? NBD_FLAG_SEND_TRIM : 0);
	else
		offer->flags |= NBD_FLAG_READ_ONLY;
	offer->minimum = disk->block_size;
	offer->preferred = best < 4096 ? 4096 : best > (1u << 20) ? 1u << 20 : best;
	offer->maximum = NBD_PAYLOAD_BYTES;
}

static bool book_find(const struct nbd_book *book, const char *name, struct nbd_offer *offer)
{
	struct nbd_server *server = container_of(book, struct nbd_server, book);
	struct disk *disk = find_disk(server, name);

	if (disk)
		describe(server, disk, offer);
	return disk;
}

static bool book_at(const struct nbd_book *book, unsigned index, struct nbd_offer *offer)
{
	struct nbd_server *server = container_of(book, struct nbd_server, book);
	const struct nbd_house *house = server->house;
	struct disk *disk;

	for (unsigned i = 0; (disk = house->at(house->data, i)); i++)
		if (exports(server, disk->name) && !index--) {
			describe(server, disk, offer);
			return true;
		}
	return false;
}

/* --- counters of those who are gone ------------------------------------------------------ */

static void add_stats(struct queue_stats *to, const struct queue_stats *from)
{
	for (unsigned op = 0; op < IO_OPS; op++) {
		stats_add(&to->op[op].requests, stats_read(&from->op[op].requests));
		stats_add(&to->op[op].bytes, stats_read(&from->op[op].bytes));
		stats_add(&to->op[op].errors, stats_read(&from->op[op].errors));
		stats_add(&to->op[op].latency_ns, stats_read(&from->op[op].latency_ns));
		for (unsigned b = 0; b < STATS_BUCKETS; b++)
			stats_add(&to->op[op].latency[b], stats_read(&from->op[op].latency[b]));
	}
}

static struct past *past_of(const struct nbd_server *server, const char *disk)
{
	list_for_each (link, &server->pasts) {
		struct past *past = container_of(link, struct past, link);

		if (!strcmp(past->disk, disk))
			return past;
	}
	return NULL;
}

/* Without memory for it the counters are lost, and no more. */
static void remember(struct nbd_server *server, const struct nbd_client *c)
{
	struct past *past = past_of(server, c->disk->name);

	if (!past) {
		past = calloc(1, sizeof *past);
		if (!past || !(past->disk = strdup(c->disk->name))) {
			free(past);
			return;
		}
		list_add(&server->pasts, &past->link);
	}
	add_stats(&past->stats, &c->stats);
}

unsigned nbd_server_clients(const struct nbd_server *server, const struct disk *disk, bool writers)
{
	unsigned n = 0;

	list_for_each (link, &server->clients) {
		const struct nbd_client *c = container_of(link, struct nbd_client, link);

		n += c->disk == disk && !(writers && c->terms.flags & NBD_FLAG_READ_ONLY);
	}
	return n;
}

void nbd_server_each(struct nbd_server *server,
		     void (*each)(void *data, const struct nbd_export *export), void *data)
{
	const struct nbd_house *house = server->house;
	struct disk *disk;

	for (unsigned i = 0; (disk = house->at(house->data, i)); i++) {
		struct nbd_export export = { .disk = disk->name };
		struct past *past = past_of(server, disk->name);

		if (!exports(server, disk->name))
			continue;
		export.read_only = !writable(server, disk, NULL);
		if (past)
			add_stats(&export.stats, &past->stats);
		list_for_each (link, &server->clients) {
			const struct nbd_client *c = container_of(link, struct nbd_client, link);

			if (c->disk != disk)
				continue;
			export.connections++;
			export.in_flight += stats_read(&c->stats.in_flight);
			add_stats(&export.stats, &c->stats);
		}
		each(data, &export);
	}
}

/* --- the end of a client ------------------------------------------------------------------ */

static void end_if_closed(struct nbd_server *server)
{
	if (server->closing && list_empty(&server->clients))
		loop_send(server->loops.control, &server->end);
}

static void free_client(struct nbd_client *c)
{
	list_remove(&c->link);
	c->server->client_count--;
	nbd_haggle_release(&c->haggle);
	free(c->input);
	free(c);
}

/* Nothing of it runs any more. */
static void forget(struct nbd_client *c)
{
	struct nbd_server *server = c->server;

	if (c->disk)
		remember(server, c);
	free_client(c);
	end_if_closed(server);
}

static void gone(struct loop_message *message)
{
	struct nbd_client *c = container_of(message, struct nbd_client, gone);

	if (c->stop_sent && !c->stop_seen_at_end)
		c->waits = true;
	else
		forget(c);
}

static void stopped(struct loop_message *message)
{
	struct nbd_client *c = container_of(message, struct nbd_client, stopped);

	if (c->waits)
		forget(c);
}

/* On its loop. */
static void stop(struct loop_message *message)
{
	struct nbd_client *c = container_of(message, struct nbd_client, stop);

	c->stop_seen = true;
	if (c->ended)
		loop_send(c->control, &c->stopped);
	else
		nbd_client_stop(c);
}

static void unwatch(struct nbd_client *c)
{
	loop_timer_cancel(&c->timer);
	if (c->readable)
		loop_watch_remove(c->control, c->readable);
	if (c->writable) {
		loop_watch_remove(c->control, c->writable);
		close(c->writable_fd);
	}
	c->readable = c->writable = NULL;
}

/* A client that is still the control thread's. */
static void drop(struct nbd_client *c, const char *why)
{
	unwatch(c);
	nbd_stream_close(&c->stream);
	if (why && log_limited(&c->server->limit))
		log_info("%s: a client was dropped: %s", c->server->label, why);
	forget(c);
}

static void time_out(struct loop_timer *timer)
{
	drop(container_of(timer, struct nbd_client, timer), "it has not chosen a disk in time");
}

/* --- haggling ------------------------------------------------------------------------------ */

/* On its loop. */
static void start(struct loop_message *message)
{
	nbd_client_start(container_of(message, struct nbd_client, start));
}

/* The haggling is over: the client is served from now on. */
static void hand_over(struct nbd_client *c)
{
	struct nbd_server *server = c->server;
	struct disk *disk = find_disk(server, c->haggle.name);
	struct nbd_offer offer;

	if (!disk) {
		drop(c, "its disk was closed meanwhile");
		return;
	}
	describe(server, disk, &offer);
	unwatch(c);
	c->phase = NBD_SERVED;
	c->disk = disk;
	c->terms = (struct nbd_terms){ .flags = offer.flags,
				       .structured = c->haggle.structured,
				       .block_size = disk->block_size };
	c->loop = server->loops.loops[server->turn++ % server->loops.count];
	nbd_haggle_release(&c->haggle);
	log_debug("%s: disk %s: a client came", server->label, disk->name);
	loop_send(c->loop, &c->start);
}

static void readable(void *data);

/* Sends what is to be sent. False: not all of it went, or the client is gone. */
static bool send_answers(struct nbd_client *c)
{
	struct nbd_haggle *h = &c->haggle;

	while (c->sent < h->out_size || nbd_stream_staged(&c->stream)) {
		struct iovec vec = { h->out + c->sent, h->out_size - c->sent };
		ssize_t n = nbd_stream_write(&c->stream, &vec, 1);

		if (n >= 0) {
			c->sent += (size_t)n;
			continue;
		}
		if (n != -EAGAIN) {
			drop(c, NULL);
			return false;
		}
		if (c->writable)
			return false;
		c->writable_fd = dup(c->stream.fd);
		if (c->writable_fd >= 0)
			c->writable =
				loop_watch_add_writable(c->control, c->writable_fd, readable, c);
		if (c->writable)
			return false;
		if (c->writable_fd >= 0)
			close(c->writable_fd);
		drop(c, "there is no memory or descriptor to wait for it");
		return false;
	}
	c->sent = h->out_size = 0;
	return true;
}

/* Does what was decided, now that the answer is sent. False: it is no more to be haggled with. */
static bool go_on(struct nbd_client *c)
{
	switch (c->next) {
	case NBD_HAGGLE_TLS:
		if (nbd_stream_encrypt(&c->stream, c->server->tls)) {
			drop(c, "there is no memory for TLS");
			return false;
		}
		c->phase = NBD_HANDSHAKE;
		break;
	case NBD_HAGGLE_GO:
		hand_over(c);
		return false;
	case NBD_HAGGLE_END:
		drop(c, NULL);
		return false;
	default:
		break;
	}
	c->next = NBD_HAGGLE_MORE;
	return true;
}

static bool shake_hands(struct nbd_client *c)
{
	const char *why;
	int ret = nbd_stream_handshake(&c->stream, &why);
	char text[160];

	if (ret == -EAGAIN)
		return false;
	if (ret) {
		snprintf(text, sizeof text, "TLS: %s", why);
		drop(c, text);
		return false;
	}
	nbd_haggle_encrypted(&c->haggle);
	c->phase = NBD_HAGGLING;
	return true;
}

enum took { TOOK, WANTS_MORE, GONE };

/* Takes one thing out of the input. */
static enum took haggle(struct nbd_client *c)
{
	const char *why = NULL;
	size_t used;

	c->next = nbd_haggle_take(&c->haggle, c->input + c->from, c->to - c->from, &used, &why);
	if (c->next == NBD_HAGGLE_FAIL) {
		drop(c, why);
		return GONE;
	}
	c->from += used;
	return used ? TOOK : WANTS_MORE;
}

/* Reads more. False: there is none now, or the client is gone. */
static bool fill(struct nbd_client *c)
{
	struct iovec vec;
	ssize_t n;

	memmove(c->input, c->input + c->from, c->to - c->from);
	c->to -= c->from;
	c->from = 0;
	vec = (struct iovec){ c->input + c->to, NBD_INPUT_BYTES - c->to };
	n = nbd_stream_read(&c->stream, &vec, 1);
	if (n > 0)
		c->to += (size_t)n;
	else if (n != -EAGAIN)
		drop(c, NULL);
	return n > 0;
}

/* Goes as far as it can, whatever has happened. */
static void readable(void *data)
{
	struct nbd_client *c = data;

	for (;;) {
		enum took took;

		if (c->phase == NBD_HANDSHAKE && !shake_hands(c))
			return;
		if (!send_answers(c) || !go_on(c))
			return;
		took = c->phase == NBD_HANDSHAKE ? TOOK : haggle(c);
		if (took == GONE || (took == WANTS_MORE && !fill(c)))
			return;
	}
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

/* NULL: no memory. */
static struct nbd_client *make_client(struct nbd_server *server, int fd)
{
	struct nbd_client *c = calloc(1, sizeof *c);

	if (!c || !(c->input = malloc(NBD_INPUT_BYTES))) {
		free(c);
		return NULL;
	}
	c->server = server;
	c->control = server->loops.control;
	c->stream.fd = fd;
	c->start.run = start;
	c->stop.run = stop;
	c->gone.run = gone;
	c->stopped.run = stopped;
	c->haggle.book = &server->book;
	c->haggle.can_tls = server->tls;
	loop_timer_init(&c->timer, time_out);
	c->readable = loop_watch_add(c->control, fd, readable, c);
	if (!c->readable) {
		free(c->input);
		free(c);
		return NULL;
	}
	loop_timer_set(c->control, &c->timer, loop_now(c->control) + server->config->timeout);
	list_add(&server->clients, &c->link);
	server->client_count++;
	return c;
}

static void accept_clients(void *data)
{
	struct nbd_server *server = data;
	int fd;

	while ((fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		struct nbd_client *c;

		if (server->client_count >= server->config->connections) {
			if (log_limited(&server->limit))
				log_warn("%s: a client was turned away: there are %u connections",
					 server->label, server->client_count);
			close(fd);
			continue;
		}
		set_options(fd, server->config->listen);
		c = make_client(server, fd);
		if (c) {
			nbd_haggle_begin(&c->haggle);
			readable(c);
		} else {
			close(fd);
		}
	}
	if (errno == EAGAIN)
		return;
	/* It still waits there, and nobody will say so again. */
	loop_timer_set(server->loops.control, &server->again,
		       loop_now(server->loops.control) + AGAIN);
	if (log_limited(&server->limit))
		log_warn("%s: cannot accept a client: %s", server->label, strerror(errno));
}

static void accept_again(struct loop_timer *timer)
{
	accept_clients(container_of(timer, struct nbd_server, again));
}

/* --- the server ------------------------------------------------------------------------------ */

static void ended(struct loop_message *message)
{
	struct nbd_server *server = container_of(message, struct nbd_server, end);
	void (*closed)(void *data) = server->closed;
	void *data = server->closed_data;

	list_for_each (link, &server->pasts) {
		struct past *past = container_of(link, struct past, link);

		free(past->disk);
		free(past);
	}
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
	loop_timer_cancel(&server->again);
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
	server->book = (struct nbd_book){ .find = book_find, .at = book_at };
	server->listen_fd = -1;
	server->end.run = ended;
	loop_timer_init(&server->again, accept_again);
	list_init(&server->clients);
	list_init(&server->pasts);
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

void nbd_server_close(struct nbd_server *server, void (*done)(void *data), void *data)
{
	server->closing = true;
	server->closed = done;
	server->closed_data = data;
	stop_listening(server);
	list_for_each (link, &server->clients) {
		struct nbd_client *c = container_of(link, struct nbd_client, link);

		if (c->phase != NBD_SERVED) {
			unwatch(c);
			nbd_stream_close(&c->stream);
			free_client(c);
		} else {
			c->stop_sent = true;
			loop_send(c->loop, &c->stop);
		}
	}
	end_if_closed(server);
}
