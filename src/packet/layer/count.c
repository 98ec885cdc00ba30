/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * count.c - a layer that lets all packets pass
 *
 * Every layer's packets are counted, so a layer that does nothing is a place to count at. It also
 * shows what a layer costs at least: `make bench BENCH=net-layers`.
 */
#include "packet/packet_layer.h"

static int count_compile(const void *settings, const struct port_facts *facts, void **rules,
			 struct error *err)
{
	(void)settings;
	(void)facts;
	(void)err;
	*rules = NULL;
	return 0;
}

static void count_discard(void *rules)
{
	(void)rules;
}

static void count_process(struct layer_place *place, enum packet_direction direction,
			  struct packet_batch *batch)
{
	(void)place;
	(void)direction;
	(void)batch;
}

static const struct option options[] = { LAYER_DIRECTION("both"), { 0 } };

const struct packet_layer_ops count_layer = {
	.name = "count",
	.summary = "counts packets, and lets all of them pass",
	.description =
		"Each layer of a port counts the packets that come to it, in each direction; this "
		"one does nothing else. Put before and after another layer it shows what that "
		"one lets pass.",
	.example = "switches:\n"
		   "  lan: {}\n"
		   "nics:\n"
		   "  web0: {switch: lan, layers: [count]}\n"
		   "vms:\n"
		   "  web:\n"
		   "    - {virtio-net: web0, socket: ./web-net.sock}\n",
	.settings_size = sizeof(struct layer_settings),
	.options = options,
	.size = sizeof(struct packet_layer),
	.place_size = sizeof(struct layer_place),
	.compile = count_compile,
	.discard = count_discard,
	.process = count_process,
};
