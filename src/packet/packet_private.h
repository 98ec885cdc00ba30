/* SPDX-License-Identifier: BSD-3-Clause */
/* packet_private.h - what the pool of a loop is made of */
#pragma once

#include "packet/crossing.h"
#include "packet/packet.h"
#include "util/list.h"

#define POOL_CLASSES 4

/** A packet with memory of its own. */
struct kept {
	struct burst burst;
	struct packet packet;
	struct iovec body;
	struct packet_pool *pool;
	struct kept *next; /**< free, or in a lane's list of those that go on */
	uint16_t step;     /**< where it goes on, see chain.h */
	uint8_t direction; /**< enum packet_direction, likewise */
	uint8_t index;     /**< of its size in class_bytes */
	uint8_t data[];
};

struct twin {
	struct packet packet;
	struct packet_pool *pool;
	struct twin *next; /**< free */
	bool owned;        /**< the head is a copy, in @head */
	packet_head head;
};

struct packet_pool {
	size_t left;    /**< bytes that may still be allocated */
	size_t reserve; /**< of them: not for packets, so that views and crossings can be had
			   however much layers hold */
	struct kept *free[POOL_CLASSES];
	struct twin *views;
	struct crossing *crossings; /**< not under way */
	unsigned crossings_made;
};

/** Memory for the pool's own things, against its limit. NULL if it is full. */
void *pool_allocate(struct packet_pool *pool, size_t bytes);
