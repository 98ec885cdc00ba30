/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_client.c - a client of NBD that does as little as it can, so that the server is what is
 * measured
 *
 * It haggles in the oldest way (EXPORT_NAME, simple replies), which every server knows, then keeps
 * `depth` requests under way on each of its connections, all from one thread. Requests go out in
 * one send for all that was answered together; the data that are read are received and not looked
 * at.
 */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "client.h"

enum { REQUEST = 28, REPLY = 16, DEPTH_MAX = 128, CONNECTIONS_MAX = 16, INPUT = 256 << 10 };

struct options {
	const char *socket;
	int server, cpu, connections;
	unsigned depth;
	uint32_t block;
	double seconds;
	bool write, sequential;
};

struct connection {
	int fd;
	uint64_t started[DEPTH_MAX]; /* ticks, by cookie */
	unsigned char request[DEPTH_MAX][REQUEST];
	unsigned queued, head; /* of request: a ring of those to be sent */
	size_t sent;           /* bytes of the first of them, data included */
	unsigned char reply[REPLY];
	unsigned reply_bytes;
	uint32_t data; /* bytes that are still to come before the next reply */
	uint64_t next; /* block */
	uint64_t random;
	unsigned under_way; /* requests that are not answered yet */
};

static char *payload, *input;
static bool ending; /* what is under way is answered, and nothing follows */

/* --- haggling ------------------------------------------------------------------------ */

static void read_all(int fd, void *to, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = recv(fd, (char *)to + done, size - done, 0);

		if (n <= 0)
			die("haggling", n ? strerror(errno) : "the server left");
		done += (size_t)n;
	}
}

static uint64_t connect_to(const char *path, struct connection *c)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct {
		uint32_t flags;
		uint64_t magic;
		uint32_t option, length;
	} __attribute__((packed))
	hello = { htobe32(3), htobe64(0x49484156454f5054ull), htobe32(1), 0 };
	char greeting[18];
	struct {
		uint64_t size;
		uint16_t flags;
	} __attribute__((packed)) answer;

	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address))
		die(path, strerror(errno));
	read_all(c->fd, greeting, sizeof greeting);
	if (memcmp(greeting, "NBDMAGIC", 8) || send(c->fd, &hello, sizeof hello, 0) != sizeof hello)
		die(path, "no server of NBD");
	read_all(c->fd, &answer, sizeof answer);
	return be64toh(answer.size);
}

/* --- requests -------------------------------------------------------------------------- */

static uint64_t next_block(const struct options *o, struct connection *c, uint64_t blocks)
{
	if (o->sequential)
		return c->next++ % blocks;
	c->random ^= c->random << 13;
	c->random ^= c->random >> 7;
	c->random ^= c->random << 17;
	return c->random % blocks;
}

static void queue_request(const struct options *o, struct connection *c, uint64_t cookie,
			  uint64_t blocks)
{
	unsigned char *at = c->request[(c->head + c->queued++) % DEPTH_MAX];
	uint32_t magic = htobe32(0x25609513), length = htobe32(o->block);
	uint16_t flags = 0, type = htobe16(o->write);
	uint64_t offset = htobe64(next_block(o, c, blocks) * o->block);

	memcpy(at, &magic, 4);
	memcpy(at + 4, &flags, 2);
	memcpy(at + 6, &type, 2);
	memcpy(at + 8, &cookie, 8);
	memcpy(at + 16, &offset, 8);
	memcpy(at + 24, &length, 4);
	c->started[cookie] = ticks();
	c->under_way++;
}

static void send_requests(const struct options *o, struct connection *c)
{
	size_t each = REQUEST + (o->write ? o->block : 0), skip = c->sent;
	struct iovec vec[2 * DEPTH_MAX];
	struct msghdr message = { .msg_iov = vec };
	ssize_t n;

	for (unsigned i = 0; i < c->queued; i++) {
		struct iovec piece[2] = { { c->request[(c->head + i) % DEPTH_MAX], REQUEST },
					  { payload, each - REQUEST } };

		for (unsigned p = 0; p < 2; p++) {
			size_t gone = skip < piece[p].iov_len ? skip : piece[p].iov_len;

			skip -= gone;
			if (piece[p].iov_len > gone)
				vec[message.msg_iovlen++] =
					(struct iovec){ (char *)piece[p].iov_base + gone,
							piece[p].iov_len - gone };
		}
	}
	n = sendmsg(c->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN)
		die("send", strerror(errno));
	for (c->sent += n > 0 ? (size_t)n : 0; c->queued && c->sent >= each; c->sent -= each) {
		c->head = (c->head + 1) % DEPTH_MAX;
		c->queued--;
	}
}

/* --- replies --------------------------------------------------------------------------- */

static void take_reply(const struct options *o, struct connection *c, uint64_t blocks,
		       struct result *result)
{
	uint32_t magic, error;
	uint64_t cookie;

	memcpy(&magic, c->reply, 4);
	memcpy(&error, c->reply + 4, 4);
	memcpy(&cookie, c->reply + 8, 8);
	if (magic != htobe32(0x67446698) || cookie >= o->depth)
		die("reply", "it makes no sense");
	histogram_add(&result->latency, ticks() - c->started[cookie]);
	result->requests++;
	result->errors += error != 0;
	c->data = error || o->write ? 0 : o->block;
	c->under_way--;
	if (!ending)
		queue_request(o, c, cookie, blocks);
}

/* True if there may be more. */
static bool receive(const struct options *o, struct connection *c, uint64_t blocks,
		    struct result *result)
{
	ssize_t n = recv(c->fd, input, INPUT, MSG_DONTWAIT);

	if (n == 0 || (n < 0 && errno != EAGAIN))
		die("receive", n ? strerror(errno) : "the server left");
	if (n < 0)
		return false;
	for (size_t at = 0; at < (size_t)n;) {
		size_t left = (size_t)n - at, part = c->data < left ? c->data : left;

		at += part;
		left -= part;
		c->data -= (uint32_t)part;
		part = REPLY - c->reply_bytes < left ? REPLY - c->reply_bytes : left;
		memcpy(c->reply + c->reply_bytes, input + at, part);
		at += part;
		c->reply_bytes += (unsigned)part;
		if (c->reply_bytes == REPLY) {
			c->reply_bytes = 0;
			take_reply(o, c, blocks, result);
		}
	}
	return n == INPUT;
}

/* One round: sends what is to be sent, waits, takes what has come. */
static void turn(const struct options *o, struct connection *c, uint64_t blocks,
		 struct result *result)
{
	struct pollfd fds[CONNECTIONS_MAX];

	for (int i = 0; i < o->connections; i++) {
		if (c[i].queued)
			send_requests(o, &c[i]);
		fds[i] = (struct pollfd){ c[i].fd, POLLIN | (c[i].queued ? POLLOUT : 0), 0 };
	}
	if (poll(fds, (nfds_t)o->connections, STALL_S * 1000) <= 0)
		die("server", "it answers nothing");
	for (int i = 0; i < o->connections; i++)
		while (fds[i].revents & POLLIN && receive(o, &c[i], blocks, result))
			;
}

/* Leaves as a client should: servers get into trouble with others. */
static void leave(const struct options *o, struct connection *c, uint64_t blocks)
{
	const unsigned char disconnect[REQUEST] = { 0x25, 0x60, 0x95, 0x13, 0, 0, 0, 2 };
	static struct result ignored;

	ending = true;
	for (int i = 0; i < o->connections; i++)
		while (c[i].under_way || c[i].data)
			turn(o, c, blocks, &ignored);
	for (int i = 0; i < o->connections; i++)
		if (send(c[i].fd, disconnect, sizeof disconnect, MSG_NOSIGNAL) < 0)
			die("send", strerror(errno));
}

static void run(const struct options *o, struct connection *c, uint64_t blocks, double seconds,
		struct result *result)
{
	struct interval interval;
	uint64_t now;

	interval_begin(&interval, o->server);
	now = interval.start;
	while ((double)(now - interval.start) < seconds * 1e9) {
		turn(o, c, blocks, result);
		now = now_ns(CLOCK_MONOTONIC);
	}
	interval_end(&interval, now, result);
}

static const char usage[] =
	"usage: nbd-client --socket PATH --server PID [--cpu N] [--connections N] [--depth N]\n"
	"         [--block BYTES] [--seconds S] [--op read|write] [--sequential]\n";

int main(int argc, char **argv)
{
	struct options o = {
		.cpu = -1, .connections = 1, .depth = 32, .block = 4096, .seconds = 1
	};
	static struct connection c[CONNECTIONS_MAX];
	static struct result warm, result;
	uint64_t size = 0;
	const struct flag flags[] = {
		{ "socket", FLAG_TEXT, &o.socket },
		{ "server", FLAG_INT, &o.server },
		{ "cpu", FLAG_INT, &o.cpu },
		{ "connections", FLAG_INT, &o.connections },
		{ "depth", FLAG_UNSIGNED, &o.depth },
		{ "block", FLAG_UNSIGNED, &o.block },
		{ "seconds", FLAG_REAL, &o.seconds },
		{ "op", FLAG_IS, &o.write, "write" },
		{ "sequential", FLAG_GIVEN, &o.sequential },
		{ 0 },
	};

	read_flags(argc, argv, flags, usage);
	if (!o.socket || !o.server || !o.depth || o.depth > DEPTH_MAX || !o.block ||
	    o.connections < 1 || o.connections > CONNECTIONS_MAX)
		misused(usage);
	payload = calloc(1, o.block);
	input = malloc(INPUT);
	if (!payload || !input)
		die("memory", strerror(ENOMEM));
	pin(o.cpu);
	for (int i = 0; i < o.connections; i++) {
		size = connect_to(o.socket, &c[i]);
		c[i].random = 0x9e3779b97f4a7c15ull * (uint64_t)(i + 1);
		c[i].next = size / o.block / (unsigned)o.connections * (unsigned)i;
		for (unsigned d = 0; d < o.depth; d++)
			queue_request(&o, &c[i], d, size / o.block);
	}
	run(&o, c, size / o.block, o.seconds / 5, &warm);
	run(&o, c, size / o.block, o.seconds, &result);
	leave(&o, c, size / o.block);
	print_result(&result, tick_ns());
	return result.errors != 0;
}
