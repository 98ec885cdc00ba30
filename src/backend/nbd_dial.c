/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_dial.c - from a URI to a connection that takes requests, as plain code that waits
 *
 * libnbd does the handshake and TLS. It is told to stop where the export is chosen, so that the
 * exports that the server does have can be named when it has not the one that was asked for. Each
 * step is bounded by the time that is left, but for the look-up of a host's name.
 *
 * A TCP connection gets keep-alives and a limit on unacknowledged data, so that a peer that is gone
 * without a word is noticed within half a minute, while one that is only slow is not taken for
 * that.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "backend/nbd_private.h"

#define PAYLOAD_MAX (32u << 20) /* the protocol's, where a server names none */
#define BLOCK_MAX   65536u
#define LIST_BYTES  200

struct dialing {
	struct nbd_handle *handle;
	const char *uri;
	uint64_t deadline; /* ns, CLOCK_MONOTONIC */
	int refusal;       /* errno of the server's answer to our choice of export */
	char text[200];    /* of it */
	char exports[LIST_BYTES];
	struct error *err;
};

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* --- what went wrong ---------------------------------------------------------------------- */

/* libnbd's words, without the name of its function. */
const char *nbd_dial_words(const char *text)
{
	const char *colon;

	if (!text)
		return "no reason given";
	colon = strstr(text, ": ");
	return !strncmp(text, "nbd_", 4) && colon ? colon + 2 : text;
}

static const char *hint(int code)
{
	switch (code) {
	case ECONNREFUSED:
		return "; nobody serves there now: start the server first";
	case ENOENT:
		return "; there is no such socket: start the server first";
	case EACCES:
		return "; this user may not connect there";
	default:
		return "";
	}
}

static int hung_up(struct dialing *d)
{
	return error_set(d->err, ECONNRESET,
			 "%s: the server closed the connection during the handshake", d->uri);
}

static int failed(struct dialing *d)
{
	int code = nbd_get_errno();

	/* What libnbd says of an end that comes before it has begun to read. */
	if (code == EINVAL && strstr(nbd_get_error(), "external event"))
		return hung_up(d);
	return error_set(d->err, code ? code : EIO, "%s: %s%s", d->uri,
			 nbd_dial_words(nbd_get_error()), hint(code));
}

/* --- steps ---------------------------------------------------------------------------------- */

/* What comes next from the server, or to it. 0 or -errno. */
static int step(struct dialing *d)
{
	uint64_t at = now();
	int ms = at < d->deadline ? (int)((d->deadline - at) / 1000000) + 1 : 0;

	if (!ms)
		return error_set(d->err, ETIMEDOUT,
				 "%s: the server does not answer (open-timeout is over)", d->uri);
	return nbd_poll(d->handle, ms) == -1 ? failed(d) : 0;
}

/* Until what was begun is over. 0 or -errno. */
static int wait(struct dialing *d)
{
	int ret = 0;

	while (!ret && nbd_aio_is_connecting(d->handle))
		ret = step(d);
	if (ret)
		return ret;
	if (nbd_aio_is_dead(d->handle) || nbd_aio_is_closed(d->handle))
		return hung_up(d);
	return 0;
}

static int chosen(void *data, int *error)
{
	struct dialing *d = data;

	d->refusal = *error;
	if (*error)
		snprintf(d->text, sizeof d->text, "%s", nbd_dial_words(nbd_get_error()));
	return 1;
}

/* One export that the server has; not all of very many. What it says goes to logs and terminals. */
static int listed(void *data, const char *name, const char *description)
{
	struct dialing *d = data;
	size_t used = strlen(d->exports), length = strlen(name);
	char *to = d->exports + used;

	(void)description;
	if (used + length + 8 < sizeof d->exports) {
		snprintf(to, sizeof d->exports - used, "%s'%s'", used ? ", " : "", name);
		for (; *to; to++)
			if ((unsigned char)*to < ' ' || *to == 127)
				*to = '?';
	} else if (used + 5 < sizeof d->exports && (used < 3 || strcmp(to - 3, "...") != 0)) {
		strcpy(to, " ...");
	}
	return 0;
}

static void list_exports(struct dialing *d)
{
	struct error *err = d->err;
	const nbd_list_callback each = { .callback = listed, .user_data = d };

	d->err = NULL;
	if (nbd_aio_is_negotiating(d->handle) &&
	    nbd_aio_opt_list(d->handle, each, NBD_NULL_COMPLETION) != -1)
		wait(d);
	d->err = err;
}

static int refused(struct dialing *d)
{
	switch (d->refusal) {
	case ENOENT:
		list_exports(d);
		return error_set(d->err, ENOENT, "%s: the server has no such export%s%s", d->uri,
				 *d->exports ? "; it has " : ", and does not tell which it has",
				 d->exports);
	case ESHUTDOWN:
		return error_set(d->err, ESHUTDOWN, "%s: the server is shutting down", d->uri);
	default:
		if (strstr(d->text, "TLS"))
			return error_set(
				d->err, EPERM,
				"%s: the server wants TLS: write nbds:// or nbds+unix://, and "
				"tls-certificates= or tls-psk-file= where it asks for them",
				d->uri);
		return error_set(d->err, d->refusal, "%s: the server refuses: %s", d->uri, d->text);
	}
}

static int choose_export(struct dialing *d)
{
	const nbd_completion_callback done = { .callback = chosen, .user_data = d };
	int ret;

	if (nbd_aio_is_ready(d->handle))
		return 0; /* a server of the old style has one */
	if (nbd_aio_opt_go(d->handle, done) == -1)
		return failed(d);
	ret = wait(d);
	if (!ret && d->refusal)
		ret = refused(d);
	if (!ret && !nbd_aio_is_ready(d->handle))
		ret = error_set(d->err, EPROTO, "%s: the server leaves the handshake unfinished",
				d->uri);
	return ret;
}

static uint32_t block(struct nbd_handle *handle, int which)
{
	int64_t bytes = nbd_get_block_size(handle, which);

	return bytes < 0 ? 0 : bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)bytes;
}

static int learn(struct dialing *d, struct nbd_export *e)
{
	struct nbd_handle *h = d->handle;
	int64_t size = nbd_get_size(h);

	if (size < 0)
		return failed(d);
	*e = (struct nbd_export){
		.size = (uint64_t)size,
		.read_only = nbd_is_read_only(h) > 0,
		.flush = nbd_can_flush(h) > 0,
		.fua = nbd_can_fua(h) > 0,
		.trim = nbd_can_trim(h) > 0,
		.zero = nbd_can_zero(h) > 0,
		.multi_conn = nbd_can_multi_conn(h) > 0,
		.minimum = block(h, LIBNBD_SIZE_MINIMUM),
		.preferred = block(h, LIBNBD_SIZE_PREFERRED),
		.maximum = block(h, LIBNBD_SIZE_MAXIMUM),
	};
	if (!e->minimum)
		e->minimum = 1;
	if (!e->maximum || e->maximum > PAYLOAD_MAX)
		e->maximum = PAYLOAD_MAX;
	if (e->minimum & (e->minimum - 1) || e->minimum > BLOCK_MAX || e->maximum < e->minimum)
		return error_set(
			d->err, EPROTO,
			"%s: the server names impossible block sizes (at least %u, at most %u "
			"bytes)",
			d->uri, e->minimum, e->maximum);
	e->maximum -= e->maximum % e->minimum;
	return 0;
}

static void watch_peer(struct nbd_handle *handle)
{
	const int on = 1, idle = 10, interval = 5, count = 4, unacknowledged = 30000;
	int fd = nbd_aio_get_fd(handle), domain = 0;
	socklen_t length = sizeof domain;

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) ||
	    (domain != AF_INET && domain != AF_INET6))
		return;
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged, sizeof unacknowledged);
}

struct nbd_handle *nbd_dial(const char *uri, uint64_t patience, struct nbd_export *export,
			    struct error *err)
{
	struct dialing d = {
		.handle = nbd_create(), .uri = uri, .deadline = now() + patience, .err = err
	};
	int ret = 0;

	if (!d.handle) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	/* Reads tell themselves whether all has arrived: nbd_request.c. */
	if (nbd_set_uri_allow_local_file(d.handle, true) == -1 ||
	    nbd_set_opt_mode(d.handle, true) == -1 ||
	    nbd_set_pread_initialize(d.handle, false) == -1 ||
	    nbd_aio_connect_uri(d.handle, uri) == -1)
		ret = failed(&d);
	if (!ret)
		ret = wait(&d);
	if (!ret)
		ret = choose_export(&d);
	if (!ret)
		ret = learn(&d, export);
	if (ret) {
		nbd_close(d.handle);
		return NULL;
	}
	watch_peer(d.handle);
	return d.handle;
}

static int flushed(void *data, int *error)
{
	*(int *)data = *error;
	return 1;
}

int nbd_dial_flush(struct nbd_handle *handle, const char *uri, uint64_t patience, struct error *err)
{
	struct dialing d = {
		.handle = handle, .uri = uri, .deadline = now() + patience, .err = err
	};
	int result = -1;
	const nbd_completion_callback done = { .callback = flushed, .user_data = &result };
	int ret = nbd_aio_flush(handle, done, 0) == -1 ? failed(&d) : 0;

	while (!ret && result < 0)
		ret = step(&d);
	if (!ret && result)
		ret = error_set(err, result, "%s: the server cannot flush: %s", uri,
				strerror(result));
	return ret;
}

/* What a disk relies on. */
static const struct {
	const char *name;
	size_t offset;
} abilities[] = {
	{ "flush", offsetof(struct nbd_export, flush) },
	{ "FUA", offsetof(struct nbd_export, fua) },
	{ "discard (TRIM)", offsetof(struct nbd_export, trim) },
	{ "WRITE_ZEROES", offsetof(struct nbd_export, zero) },
	{ "multi-conn", offsetof(struct nbd_export, multi_conn) },
};

static bool has(const struct nbd_export *export, unsigned ability)
{
	return *(const bool *)((const char *)export + abilities[ability].offset);
}

int nbd_dial_compare(const struct nbd_export *was, const struct nbd_export *now_is,
		     struct error *err)
{
	char a[32], b[32];

	if (now_is->size < was->size)
		return error_set(err, EINVAL, "the export has shrunk from %s to %s",
				 format_size(was->size, a, sizeof a),
				 format_size(now_is->size, b, sizeof b));
	if (now_is->read_only && !was->read_only)
		return error_set(err, EROFS, "the export has become read-only");
	if (was->minimum < now_is->minimum && now_is->minimum > 512)
		return error_set(err, EINVAL, "the server's blocks have grown from %u to %u bytes",
				 was->minimum, now_is->minimum);
	if (now_is->maximum < was->maximum)
		return error_set(err, EINVAL,
				 "the longest request that it takes has shrunk from %u to %u bytes",
				 was->maximum, now_is->maximum);
	for (unsigned i = 0; i < sizeof abilities / sizeof *abilities; i++)
		if (has(was, i) && !has(now_is, i))
			return error_set(err, ENOTSUP, "the server has no %s any more",
					 abilities[i].name);
	return 0;
}
