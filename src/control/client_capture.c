/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client_capture.c - penstock capture: the packets of a port, for whoever reads them
 *
 * The answer to the request is what is to be written, for as long as it goes on. On a signal our
 * side of the connection is shut down: then what there is still comes, with the statistics at its
 * end. A second signal does not wait for that. If our reader goes we go too, and penstock, which
 * sees that, takes its layer out again.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/client_private.h"
#include "control/invocation.h"
#include "util/must.h"

#define PIECE 65536
#define GRACE 5000 /* ms, for the end after a signal */

static volatile sig_atomic_t asked, connection = -1;

static void ask_to_end(int number)
{
	int saved = errno;

	if (asked)
		_exit(128 + number);
	asked = 1;
	shutdown(connection, SHUT_WR);
	errno = saved;
}

/* --- the request ----------------------------------------------------------------------- */

/* Adds "NAME=VALUE" to the path, in the way of URLs. NULL as @value adds nothing. */
static char *add_parameter(char *path, const char *name, const char *value)
{
	char *longer, *to;

	if (!value)
		return path;
	longer = must(malloc(strlen(path) + strlen(name) + 3 * strlen(value) + 3));
	to = longer + sprintf(longer, "%s%c%s=", path, strchr(path, '?') ? '&' : '?', name);
	for (; *value; value++) {
		unsigned char c = (unsigned char)*value;

		to += sprintf(to, isalnum(c) || strchr("-._~", c) ? "%c" : "%%%02X", c);
	}
	free(path);
	return longer;
}

static char *add_number(char *path, const char *name, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof text, "%" PRIu64, value);
	return add_parameter(path, name, value ? text : NULL);
}

static char *request_path(const struct invocation *in)
{
	char *path = client_path("/v1/ports/%s/capture", in->arguments[0]);

	path = add_parameter(path, "filter", in->filter);
	path = add_parameter(path, "direction", in->direction);
	path = add_parameter(path, "at", in->at);
	path = add_number(path, "snap-length", in->snap_length);
	return add_number(path, "count", in->packets);
}

/* --- what comes ------------------------------------------------------------------------- */

/* 0, or -errno. */
static int write_all(int fd, const char *bytes, size_t length)
{
	while (length) {
		ssize_t n = write(fd, bytes, length);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			bytes += n;
			length -= (size_t)n;
		}
	}
	return 0;
}

/* From the connection to @to until one of them ends. The exit status. */
static int pass_on(const struct invocation *in, int to)
{
	static char bytes[PIECE];
	ssize_t n;
	int ret;

	for (;;) {
		struct pollfd both[2] = { { .fd = connection, .events = POLLIN }, { .fd = to } };

		ret = poll(both, 2, asked ? GRACE : -1);
		if (ret < 0 && errno == EINTR)
			continue;
		if (!ret || both[1].revents & (POLLERR | POLLNVAL))
			return 0; /* too late; or our reader is gone */
		n = recv(connection, bytes, sizeof bytes, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		ret = write_all(to, bytes, (size_t)n);
		if (ret == -EPIPE)
			return 0;
		if (ret) {
			fprintf(stderr, "penstock capture: %s: %s\n",
				in->write ? in->write : "standard output", strerror(-ret));
			return 1;
		}
	}
	if (!n && (asked || in->packets))
		return 0;
	fprintf(stderr, "penstock capture: it has ended: its layer was taken out, or its port or "
			"penstock is gone\n");
	return 1;
}

static void take_signals(void)
{
	const struct sigaction action = { .sa_handler = ask_to_end };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

int client_capture(const struct invocation *in)
{
	bool to_output = !in->write || !strcmp(in->write, "-");
	int status = 1, to = STDOUT_FILENO;
	char *path;

	if (!client_name(in->arguments[0]))
		return 2;
	if (to_output && isatty(STDOUT_FILENO)) {
		fprintf(stderr,
			"penstock capture: what it writes is no text for a terminal; give it a reader "
			"(penstock capture %s | tshark -r -), or --write FILE\n",
			in->arguments[0]);
		return 2;
	}
	path = request_path(in);
	connection = client_stream(in, path);
	free(path);
	if (connection < 0)
		return 1;
	if (!to_output)
		to = open(in->write, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (to < 0) {
		fprintf(stderr, "penstock capture: %s: %s\n", in->write, strerror(errno));
	} else {
		take_signals();
		status = pass_on(in, to);
	}
	close(connection);
	if (to >= 0 && !to_output && close(to)) {
		fprintf(stderr, "penstock capture: %s: %s\n", in->write, strerror(errno));
		status = 1;
	}
	return status;
}
