/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * capture_testing.h - for the tests of captures: two ports on two loops, a directory for files, and
 * what libpcap reads in them
 *
 * Most tests capture at @a, whose guest sends to that of @b.
 */
#pragma once

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "packet/layer/capture.h"
#include "packet/testing.h"

extern struct rig rig;
extern struct rig_port *a, *b;
extern char directory[100];

/** A test with all that, and what it needs around it. */
#define CAPTURE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int set_up(void **state);
int tear_down(void **state);

/** The path of @name in the directory; valid for the next three calls. */
char *path_of(const char *name);

/** Gives @port the layers of LAYERS("kind", "option", "value", NULL, "kind", NULL). */
void layers_are(struct rig_port *port, const char *const *text);
#define LAYERS(...) ((const char *const[]){ __VA_ARGS__, NULL })

/** From @a to @b: @count frames of @length bytes, numbered in byte 20 within each burst. */
void send_many(unsigned count, uint32_t length);

/** An IPv4 or IPv6 frame with TCP or UDP in it, of @payload bytes. Returns its length. */
uint32_t ip_frame(uint8_t *frame, unsigned version, uint8_t protocol, uint16_t port,
		  uint32_t payload);

/** The sum over pseudo header and all of such a frame: 0xffff if it is right. */
uint32_t whole_sum(const uint8_t *frame, uint32_t length, unsigned version, uint8_t protocol);

/** What the last file that was read has. */
extern struct seen {
	unsigned count, disorder;
	uint64_t last;
	uint32_t length[5000], captured[5000];
	uint8_t start[5000][64];
	uint32_t sum[5000]; /* of TCP over IPv4 without tags: 0xffff is right */
} seen;

/** Reads all of a file, which must be whole; how many packets it has. */
unsigned read_whole(const char *path);

/** The same, of what came in on one loop: in the order of time. */
unsigned read_file(const char *path);

/** What the first layer of @a says of itself, by name: a number, or a text. */
struct asked {
	const char *name;
	json_int_t number;
	char text[400];
};
struct asked ask(const char *name);

/** Waits until the writer has done @wanted of @name, 10 s at most. */
void await(const char *name, json_int_t wanted);
