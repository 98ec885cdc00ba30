/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lan.h - a daemon with a switch and cards on it, for tests
 *
 * A card is a NIC with its options, and its socket is a file of its name in the daemon's
 * directory. Calls take the number of the card that was plugged in: an index into lan.card[].
 */
#pragma once

#include "check.h"
#include "net_frames.h"

enum { CARDS_MAX = 12, QUIET_MS = 60 };

/* Fails the test with a card's own words unless the call gives 0. */
#define must_net(net, call)                                                                        \
	do {                                                                                       \
		int must_ret = (call);                                                             \
		if (must_ret)                                                                      \
			fail_msg("%s: %s (%s)", #call,                                             \
				 must_ret < 0 ? strerror(-must_ret) : "refused",                   \
				 (net)->driver ? (net)->driver->error : "no driver");              \
	} while (0)

struct lan {
	struct daemon daemon;
	struct net card[CARDS_MAX];
	struct net_frame frame; /* the last one received */
	uint8_t out[NET_FRAME_MAX + 1];
};

extern struct lan lan;

/* What a daemon is started with. */
struct lan_plan {
	const char *loops;  /* "1" */
	const char *engine; /* "auto" */
	const char *lan;    /* options of the switch, as YAML: "ageing: 1s" */
	const char *device; /* options of the device kind: "queue-pairs: 2" */
	const char *more;   /* more of the configuration, or NULL */
	/* Cards: name and options of the NIC, as YAML ("vlan: 10"); ended by a NULL name. */
	struct {
		const char *name, *options;
	} card[CARDS_MAX + 1];
};

/* Starts a daemon; fails the test if it does not start. 60 s are left for the test. */
void lan_open(const struct lan_plan *place);
/* cmocka teardown: closes cards, ends the daemon, and looks how it ended. */
int lan_close(void **state);

/* Plugs our side into card `index` of that name; options.socket is filled in. */
struct net *lan_plug(unsigned index, const char *name, struct net_options options);
void lan_unplug(unsigned index);

/* Sends a test frame of `length` bytes. */
void lan_send(unsigned card, const uint8_t to[6], const uint8_t from[6], uint32_t length,
	      uint64_t number);
/* The next frame of a card must be that one, byte for byte. */
void lan_expect(unsigned card, const uint8_t to[6], const uint8_t from[6], uint32_t length,
		uint64_t number);
/* Nothing comes to a card for QUIET_MS. */
void lan_expect_nothing(unsigned card);
/* Throws away what has come, until it is quiet. */
void lan_flush(unsigned card);
/* Sends a frame from the card, so that the switch has learned `mac` there. */
void lan_learn(unsigned card, const uint8_t mac[6]);

/* Runs `penstock COMMAND...` against the daemon: its exit status. The list is ended by NULL. */
int lan_command(const char *const *words);
