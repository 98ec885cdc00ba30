/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_hostile.h - the scene for a card that lies: one switch, four cards
 *
 * Card LIAR is the test's, card PEER too, an honest neighbour that may be lied to. Two more belong
 * to a thread of their own, that exchange frames without pause and compare every byte. What a lie
 * may do: have its frame dropped, or break the liar's card, with a reason in the log. What it may
 * not: end the daemon, disturb the two, hand the peer a frame that makes no sense, or keep the liar
 * from starting afresh.
 */
#pragma once

#include "lan.h"

enum { LIAR, PEER };

/* Starts the daemon (`loops` as for it), the two honest cards and the peer; not the liar. */
void liars_open(const char *loops);
/* cmocka teardown. */
int liars_close(void **state);
/* Plugs the liar in, with its address learned; `extra` features are taken, all else as usual. */
struct net *liar_plug(struct net_options options);
/* Its options in a test of RINGS(), whose state this is: how its rings are. */
struct net_options liar_options(void **state);

/* A test twice, on split and on packed rings, where both can tell the lie. */
#define RINGS(test)                                                                                \
	{ #test ", split", test, NULL, liars_close, (void *)"s-" },                                \
	{                                                                                          \
#test ", packed", test, NULL, liars_close, (void *)"p-"                            \
	}

/* The device has broken, or it has done with all that was put into `queue` (so many chains). */
void liar_expect_settled(struct virtq *queue, unsigned chains);
/* It is broken, and said why. */
void liar_expect_broken(void);
bool liar_is_broken(void);
/* Frames that came to the peer make sense, and so many came at most. */
void peer_expect_sense(unsigned most);
/* A good frame passes from the liar to the peer and back: the card still works. */
void liar_expect_works(void);
/* The two go on and have lost nothing since they were asked last; then the liar starts afresh. */
void others_expect(void);
/* The frames that the two have exchanged so far. */
unsigned long long others_count(void);
/* They may lose frames from now on, or not. */
void others_may_lose(bool may);

extern const uint8_t mac_liar[6], mac_peer[6];
