/* SPDX-License-Identifier: BSD-3-Clause */
/* testing_uplink.h - for unit tests: an uplink on the switch of a rig (testing.h) */
#pragma once

#include <jansson.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "packet/testing.h"
#include "packet/uplink.h"

struct rig_uplink {
	struct rig *rig;
	const char *kind;
	const char *const *options; /* name, value, ..., NULL */
	const char *mtu;            /* of its port, or NULL */
	struct uplink *uplink;
	struct error err;
	char reason[160];
	bool plugged, gone;
	json_t *report;
};

static inline void rig_uplink_now(void *data)
{
	struct rig_uplink *u = data;
	const struct uplink_ops *ops = uplink_find(u->kind);
	const char *const mtu[] = { "mtu", u->mtu, NULL };
	struct port_config config;
	void *settings = calloc(1, ops->settings_size);

	rig_config(&config, u->mtu ? mtu : NULL);
	options_init(ops->options, settings);
	for (const char *const *text = u->options; *text; text += 2)
		if (options_set(ops->options, settings, text[0], text[1], &u->err)) {
			fprintf(stderr, "%s\n", u->err.text);
			abort();
		}
	if (ops->check && ops->check(settings, &u->err)) {
		options_release(port_options, &config);
		options_release(ops->options, settings);
		free(settings);
		return;
	}
	u->uplink = uplink_create(ops, "inet", u->rig->vswitch, &config, settings, 0, &u->err);
	if (u->uplink)
		uplink_start(u->uplink);
}

/** Makes and starts it on loop 0; false if it cannot be, see err. */
static inline bool rig_uplink(struct rig_uplink *u)
{
	rig_do(u->rig->control, rig_uplink_now, u);
	return u->uplink;
}

static inline void rig_uplink_gone(void *data)
{
	((struct rig_uplink *)data)->gone = true;
}

static inline void rig_uplink_copy(void *data)
{
	struct rig_uplink **both = data;

	*both[1] = *both[0];
}

static inline void rig_uplink_end_now(void *data)
{
	struct rig_uplink *u = data;

	uplink_destroy(u->uplink, rig_uplink_gone, u);
}

static inline void rig_uplink_end(struct rig_uplink *u)
{
	rig_do(u->rig->control, rig_uplink_end_now, u);
	for (unsigned i = 0; i < 5000; i++) {
		struct rig_uplink now;
		struct rig_uplink *both[] = { u, &now };

		rig_do(u->rig->control, rig_uplink_copy, both);
		if (now.gone)
			return;
		usleep(1000);
	}
	abort();
}

static inline void rig_uplink_look_now(void *data)
{
	struct rig_uplink *u = data;
	const struct port *port = u->uplink->port;

	u->plugged = port->plugged;
	memcpy(u->reason, port->reason, sizeof u->reason);
	json_decref(u->report);
	u->report = port->ops->report(u->uplink->port);
}

/** Waits until it is @plugged, or has said @reason (a part of it); false after 5 s. */
static inline bool rig_uplink_await(struct rig_uplink *u, bool plugged, const char *reason)
{
	for (unsigned i = 0; i < 1000; i++) {
		rig_do(u->rig->control, rig_uplink_look_now, u);
		if (u->plugged == plugged && (!reason || strstr(u->reason, reason)))
			return true;
		usleep(5000);
	}
	fprintf(stderr, "plugged %d: %s\n", u->plugged, u->reason);
	return false;
}

/** Reads @bytes from @fd within 5 s; false if it ends before. */
static inline bool rig_read(int fd, void *to, size_t bytes)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };

	while (bytes) {
		ssize_t n;

		if (poll(&wait, 1, 5000) <= 0)
			return false;
		n = recv(fd, to, bytes, 0);
		if (n <= 0)
			return false;
		to = (char *)to + n;
		bytes -= (size_t)n;
	}
	return true;
}

/** Whether the other side of @fd closes it within 5 s. */
static inline bool rig_closed(int fd)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	char bytes[4096];
	ssize_t n = 1;

	while (n > 0 && poll(&wait, 1, 5000) > 0)
		n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
	return n == 0 || (n < 0 && errno == ECONNRESET);
}

struct rig_seen {
	const struct rig_port *port;
	unsigned seen;
};

static inline void rig_seen_now(void *data)
{
	struct rig_seen *seen = data;

	seen->seen = seen->port->seen;
}

/** Waits until @port has been sent @frames in all; false if they are more, or after 5 s. */
static inline bool rig_await_seen(struct rig_port *port, unsigned frames)
{
	struct rig_seen seen = { .port = port };

	for (unsigned i = 0; i < 5000; i++) {
		rig_do(port->lane->loop, rig_seen_now, &seen);
		if (seen.seen >= frames)
			break;
		usleep(1000);
	}
	return seen.seen == frames;
}
