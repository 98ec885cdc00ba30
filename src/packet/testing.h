/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * testing.h - for unit tests of packets: loops that run, a switch, ports that note what they are
 * sent
 *
 * The test's own thread is none of the loops; it has things done there (rig_do) and waits for them.
 */
#pragma once

#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packet/chain.h"
#include "packet/frame.h"
#include "packet/packet_layer.h"
#include "packet/vswitch.h"
#include "util/error.h"

#define RIG_LOOPS 4u
#define RIG_SEEN  4096u /* frames that a port notes at most */

/** Loops, and one switch. */
struct rig {
	struct loop *control, *loops[RIG_LOOPS];
	unsigned count;
	struct packet_loops packet_loops;
	struct vswitch *vswitch;
};

/** A port of a test: present on one loop. */
struct rig_port {
	struct rig *rig;
	struct port *port;
	struct lane *lane;
	struct burst *burst;
	unsigned released; /**< bursts that came back */
	unsigned seen;     /**< frames that were sent here */
	struct rig_frame {
		uint32_t length;
		bool tagged;
		uint16_t tag;
		struct packet_offload offload;
		uint8_t start[64]; /**< its first bytes */
		uint8_t last;      /**< its last byte */
	} frame[RIG_SEEN];
};

struct rig_call {
	struct loop_message message;
	void (*what)(void *data);
	void *data;
	sem_t done;
};

static inline void rig_run(struct loop_message *message)
{
	struct rig_call *call = container_of(message, struct rig_call, message);

	call->what(call->data);
	sem_post(&call->done);
}

/** Has @what(@data) done on @loop, and waits for that. */
static inline void rig_do(struct loop *loop, void (*what)(void *data), void *data)
{
	struct rig_call call = { .message.run = rig_run, .what = what, .data = data };

	sem_init(&call.done, 0, 0);
	loop_send(loop, &call.message);
	while (sem_wait(&call.done)) {
	}
	sem_destroy(&call.done);
}

static inline void rig_nothing(void *data)
{
	(void)data;
}

/** Waits until what was begun (rounds, crossings) has been to all loops and back, a few times. */
static inline void rig_settle(struct rig *rig)
{
	for (unsigned turn = 0; turn < 4; turn++) {
		rig_do(rig->control, rig_nothing, NULL);
		for (unsigned i = 0; i < rig->count; i++)
			rig_do(rig->loops[i], rig_nothing, NULL);
	}
}

static inline struct loop *rig_loop(const char *name)
{
	struct loop_config config = { .name = name, .engine = LOOP_THREADS, .cpu = -1 };
	struct loop *loop = loop_create(&config, NULL);

	if (!loop || loop_start(loop, NULL))
		abort();
	return loop;
}

/** @count loops and a switch with @settings (NULL: the defaults). */
static inline void rig_begin(struct rig *rig, unsigned count, const struct vswitch_config *settings)
{
	struct vswitch_config config;

	options_init(vswitch_options, &config);
	*rig = (struct rig){ .count = count };
	rig->control = rig_loop("control");
	for (unsigned i = 0; i < count; i++)
		rig->loops[i] = rig_loop("loop");
	if (packet_loops_init(&rig->packet_loops, rig->control, rig->loops, count, NULL))
		abort();
	rig->vswitch =
		vswitch_create("lan", settings ? settings : &config, &rig->packet_loops, NULL);
	if (!rig->vswitch)
		abort();
}

/** Its ports have been ended. */
static inline void rig_end(struct rig *rig)
{
	rig_settle(rig);
	for (unsigned i = 0; i < rig->count; i++) {
		loop_stop(rig->loops[i]);
		loop_destroy(rig->loops[i]);
	}
	loop_stop(rig->control);
	loop_destroy(rig->control);
	vswitch_free(rig->vswitch);
	packet_loops_release(&rig->packet_loops);
}

static inline void rig_note(struct rig_port *to, const struct packet *packet)
{
	struct rig_frame *frame = &to->frame[to->seen];

	if (to->seen == RIG_SEEN)
		abort();
	to->seen++;
	frame->length = packet->length;
	frame->tagged = packet->tagged;
	frame->tag = packet->tag;
	frame->offload = packet->offload;
	packet_copy_out(packet, 0, frame->start,
			packet->length < sizeof frame->start ? packet->length
							     : sizeof frame->start);
	packet_copy_out(packet, packet->length - 1, &frame->last, 1);
}

static inline void rig_transmit(struct lane *lane, struct packet_batch *batch)
{
	struct rig_port *to = lane->endpoint;
	unsigned i;

	for_each_packet (batch, i) {
		rig_note(to, batch->packet[i]);
		lane_sent(lane, 1, batch->packet[i]->length);
	}
}

static const struct port_ops rig_ops = { .kind = "test", .transmit = rig_transmit };

static inline void rig_released(struct burst *burst)
{
	((struct rig_port *)burst->owner)->released++;
}

struct rig_plug {
	struct rig *rig;
	struct rig_port *port;
	const char *name;
	const char *const *options; /* name, value, ..., NULL */
	unsigned loop, accepts;
};

static inline void rig_config(struct port_config *config, const char *const *options)
{
	struct error err = { 0 };

	*config = (struct port_config){ 0 };
	options_init(port_options, config);
	if (options_set(port_options, config, "switch", "lan", &err))
		abort();
	for (; options && *options; options += 2)
		if (options_set(port_options, config, options[0], options[1], &err)) {
			fprintf(stderr, "%s\n", err.text);
			abort();
		}
}

static inline void rig_plug_now(void *data)
{
	struct rig_plug *plug = data;
	struct port_facts facts = { .kind = "test", .has_mac = true, .mac = { 2, 0, 0, 0, 0, 1 } };
	struct port_config config;
	struct error err = { 0 };

	rig_config(&config, plug->options);
	plug->port->port = port_create(plug->rig->vswitch, plug->name, &config, &facts, &rig_ops,
				       plug->port, &err);
	if (!plug->port->port) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
}

static inline void rig_up_now(void *data)
{
	struct rig_plug *plug = data;
	struct lane *lane = port_lane(plug->port->port, plug->loop);

	lane->accepts = plug->accepts;
	plug->port->lane = lane;
	lane_up(lane, plug->port);
}

/** A port called @name with @options, present on loop @loop, which takes @accepts (OFFLOAD_). */
static inline struct rig_port *rig_plug(struct rig *rig, const char *name, unsigned loop,
					unsigned accepts, const char *const *options)
{
	struct rig_port *port = calloc(1, sizeof *port);
	struct rig_plug plug = { rig, port, name, options, loop, accepts };

	port->rig = rig;
	port->burst = burst_create(rig_released, port);
	if (!port->burst)
		abort();
	rig_do(rig->control, rig_plug_now, &plug);
	rig_do(rig->loops[loop], rig_up_now, &plug);
	rig_settle(rig);
	return port;
}

static inline void rig_down_now(void *data)
{
	lane_down(((struct rig_port *)data)->lane);
}

static inline void rig_destroy_now(void *data)
{
	port_destroy(((struct rig_port *)data)->port, NULL, NULL);
}

static inline void rig_unplug(struct rig_port *port)
{
	rig_do(port->lane->loop, rig_down_now, port);
	rig_settle(port->rig);
	rig_do(port->rig->control, rig_destroy_now, port);
	rig_settle(port->rig);
	burst_free(port->burst);
	free(port);
}

/** Frames to send: each in one piece of memory. */
struct rig_send {
	struct rig_port *port;
	unsigned count;
	struct {
		const void *bytes;
		uint32_t length;
		struct packet_offload offload;
	} frame[PACKET_BURST];
};

static inline void rig_send_now(void *data)
{
	struct rig_send *send = data;
	struct burst *burst = send->port->burst;

	if (burst->refs)
		abort(); /* the last one is still lent */
	burst_begin(burst);
	for (unsigned i = 0; i < send->count; i++) {
		struct packet *packet;

		burst_vec(burst)->iov_base = (void *)(uintptr_t)send->frame[i].bytes;
		burst_vec(burst)->iov_len = send->frame[i].length;
		packet = burst_add(burst, 1, 0, send->frame[i].length);
		if (packet)
			packet->offload = send->frame[i].offload;
	}
	lane_receive(send->port->lane, burst);
	burst_put(burst);
}

/** The guest at the port sends them; waits until they have arrived wherever they go. */
static inline void rig_send(struct rig_send *send)
{
	rig_do(send->port->lane->loop, rig_send_now, send);
	rig_settle(send->port->rig);
}

/** An Ethernet frame of @length bytes at @frame: to, from, the type, and bytes that count up. */
static inline void rig_frame(uint8_t *frame, uint32_t length, uint8_t to, uint8_t from,
			     uint16_t type)
{
	const uint8_t base[6] = { 2, 0, 0, 0, 0, 0 };

	for (uint32_t i = 0; i < length; i++)
		frame[i] = (uint8_t)i;
	memcpy(frame, base, 6);
	memcpy(frame + 6, base, 6);
	if (to == 0xff)
		memset(frame, 0xff, 6);
	else
		frame[5] = to;
	frame[11] = from;
	frame[12] = (uint8_t)(type >> 8);
	frame[13] = (uint8_t)type;
}

/** Sends one such frame of 100 bytes. */
static inline void rig_send_one(struct rig_port *port, uint8_t to, uint8_t from)
{
	uint8_t frame[100];
	struct rig_send send = { .port = port,
				 .count = 1,
				 .frame = { { .bytes = frame, .length = sizeof frame } } };

	rig_frame(frame, sizeof frame, to, from, 0x88b5);
	rig_send(&send);
}

/** Drops counted at @port, in @direction, for @cause. */
static inline uint64_t rig_drops(const struct rig_port *port, enum packet_direction direction,
				 enum port_drop cause)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < port->port->lane_count; i++)
		sum += stats_read(&port->port->lanes[i]->stats.direction[direction].drops[cause]);
	return sum;
}

struct rig_layers {
	struct rig_port *port;
	const char *const *text; /* kind, then name, value, ..., NULL, kind, ..., NULL, NULL */
	int status;
	struct error err;
	sem_t done;
};

static inline void rig_layers_set(void *data, int status)
{
	struct rig_layers *layers = data;

	layers->status = status;
	sem_post(&layers->done);
}

static inline void rig_layers_now(void *data)
{
	struct rig_layers *layers = data;
	struct packet_layer_config configs[8];
	const char *const *text = layers->text;
	unsigned count = 0;

	for (; *text; text++) {
		const struct packet_layer_ops *ops = packet_layer_find(*text++);
		void *settings;

		if (!ops || count == 8)
			abort();
		settings = calloc(1, ops->settings_size);
		options_init(ops->options, settings);
		for (; *text; text += 2)
			if (options_set(ops->options, settings, text[0], text[1], &layers->err)) {
				fprintf(stderr, "%s\n", layers->err.text);
				abort();
			}
		configs[count++] = (struct packet_layer_config){ ops, settings };
	}
	layers->status = port_set_layers(layers->port->port, configs, count, rig_layers_set, layers,
					 &layers->err);
	if (layers->status)
		sem_post(&layers->done);
}

/**
 * Gives @port the layers of @text: kind, option, value, ..., NULL for each, and one more NULL at
 * the end. 0 or -errno with @err.
 */
static inline int rig_set_layers(struct rig_port *port, const char *const *text, struct error *err)
{
	struct rig_layers layers = { .port = port, .text = text };

	sem_init(&layers.done, 0, 0);
	rig_do(port->rig->control, rig_layers_now, &layers);
	while (sem_wait(&layers.done)) {
	}
	sem_destroy(&layers.done);
	if (layers.status && err)
		*err = layers.err;
	return layers.status;
}
