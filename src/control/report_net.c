/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * report_net.c - switches and ports as JSON: what they are, and what has passed
 *
 * Counters are added up over the loops. Causes of drops appear with the first packet.
 */
#include <stdio.h>

#include "control/config.h"
#include "control/daemon.h"
#include "control/networks.h"
#include "control/report.h"
#include "frontend/device.h"
#include "packet/frame.h"

#define ADD_UP(port, what)                                                                         \
	({                                                                                         \
		uint64_t sum_ = 0;                                                                 \
		for (unsigned i_ = 0; i_ < (port)->lane_count; i_++)                               \
			sum_ += stats_read(&(port)->lanes[i_]->stats.what);                        \
		(json_int_t) sum_;                                                                 \
	})

/* --- counters ------------------------------------------------------------------------- */

static json_t *direction_of(const struct port *port, enum packet_direction d)
{
	json_t *drops = json_object();

	for (unsigned cause = 0; cause < PORT_DROPS; cause++) {
		json_int_t n = ADD_UP(port, direction[d].drops[cause]);

		if (n)
			json_object_set_new(drops, port_drop_names[cause], json_integer(n));
	}
	return json_pack("{s:I, s:I, s:o}", "packets", ADD_UP(port, direction[d].packets), "bytes",
			 ADD_UP(port, direction[d].bytes), "drops", drops);
}

uint64_t report_layer_counter(const struct packet_layer *layer, enum packet_direction d,
			      enum report_counter counter)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < layer->place_count; i++) {
		const struct layer_stats *stats = &layer->places[i]->stats;

		n += stats_read(counter == REPORT_SEEN   ? &stats->direction[d].seen
				: counter == REPORT_HELD ? &stats->direction[d].held
				: counter == REPORT_MADE
					? &stats->direction[d].made
					: &stats->direction[d].drops[counter - REPORT_DROPS]);
	}
	return n;
}

static json_t *layer_direction(const struct packet_layer *layer, enum packet_direction d)
{
	json_t *drops = json_object();

	for (unsigned cause = 0; layer->ops->causes && layer->ops->causes[cause]; cause++) {
		uint64_t n = report_layer_counter(layer, d, REPORT_DROPS + cause);

		if (n)
			json_object_set_new(drops, layer->ops->causes[cause],
					    json_integer((json_int_t)n));
	}
	return json_pack("{s:I, s:o, s:I, s:I}", "seen",
			 (json_int_t)report_layer_counter(layer, d, REPORT_SEEN), "drops", drops,
			 "held", (json_int_t)report_layer_counter(layer, d, REPORT_HELD), "made",
			 (json_int_t)report_layer_counter(layer, d, REPORT_MADE));
}

/* --- ports ------------------------------------------------------------------------------ */

static json_t *layer_of(struct packet_layer *layer)
{
	json_t *json = report_options(layer->ops->options, layer->settings);

	json_object_set_new(json, "counters",
			    json_pack("{s:o, s:o}", "in", layer_direction(layer, PACKET_IN), "out",
				      layer_direction(layer, PACKET_OUT)));
	if (layer->ops->report)
		json_object_set_new(json, "state", layer->ops->report(layer));
	return json_pack("{s:o}", layer->ops->name, json);
}

static void set_mac(json_t *json, const uint8_t mac[6])
{
	char text[18];

	json_object_set_new(json, "mac", json_string(mac_format(mac, text)));
}

json_t *report_port(const struct daemon *daemon, struct port *port)
{
	const struct daemon_device *slot = networks_device(daemon, port);
	json_t *json = report_options(port_options, &port->config), *layers = json_array();

	for (unsigned i = 0; i < port->layer_count; i++)
		json_array_append_new(layers, layer_of(port->layers[i]));
	json_object_set_new(json, "name", json_string(port->name));
	json_object_set_new(json, "kind", json_string(port->ops->kind));
	json_object_set_new(json, "plugged", json_boolean(port->plugged));
	json_object_set_new(json, "reason", json_string(port->reason));
	if (port->facts.has_mac)
		set_mac(json, port->facts.mac);
	if (slot) {
		json_object_set_new(json, "vm", json_string(slot->vm->name));
		json_object_set_new(json, "device", json_string(slot->device->name));
	}
	json_object_set_new(json, "addresses-used",
			    json_integer((json_int_t)vswitch_address_count(port->vswitch, port)));
	json_object_set_new(json, "in", direction_of(port, PACKET_IN));
	json_object_set_new(json, "out", direction_of(port, PACKET_OUT));
	json_object_set_new(json, "flooded", json_integer(ADD_UP(port, flooded)));
	json_object_set_new(json, "crossed", json_integer(ADD_UP(port, crossed)));
	json_object_set_new(json, "refused", json_integer(ADD_UP(port, refused)));
	json_object_set_new(json, "cut", json_integer(ADD_UP(port, cut)));
	json_object_set_new(json, "summed", json_integer(ADD_UP(port, summed)));
	json_object_set_new(json, "layers", layers);
	if (port->ops->report)
		json_object_set_new(json, "state", port->ops->report(port));
	return json;
}

/* A list of ports that is being made. */
struct ports {
	const struct daemon *daemon;
	json_t *list;
};

static void add_port(void *data, struct port *port)
{
	struct ports *ports = data;

	json_array_append_new(ports->list, report_port(ports->daemon, port));
}

json_t *report_ports(const struct daemon *daemon)
{
	struct ports ports = { daemon, json_array() };

	networks_each_port(daemon, add_port, &ports);
	return ports.list;
}

/* --- switches ----------------------------------------------------------------------------- */

json_t *report_switch(const struct vswitch *vswitch)
{
	json_t *json = report_options(vswitch_options, vswitch_settings(vswitch)),
	       *ports = json_array();
	struct port *port;

	for (unsigned cursor = 0; (port = vswitch_port_at(vswitch, &cursor));)
		json_array_append_new(ports, json_string(port->name));
	json_object_set_new(json, "name", json_string(vswitch_name(vswitch)));
	json_object_set_new(json, "addresses-used",
			    json_integer((json_int_t)vswitch_address_count(vswitch, NULL)));
	json_object_set_new(json, "ports", ports);
	return json;
}

json_t *report_switches(const struct daemon *daemon)
{
	json_t *json = json_array();
	struct vswitch *vswitch;

	for (unsigned i = 0; (vswitch = networks_switch_at(daemon, i)); i++)
		json_array_append_new(json, report_switch(vswitch));
	return json;
}

static void add_address(void *data, const struct vswitch_address *address)
{
	json_t *json = json_pack("{s:i, s:s, s:b, s:f}", "vlan", (int)address->vlan, "port",
				 address->port->name, "static", address->is_static, "age-seconds",
				 (double)address->age / 1e9);

	set_mac(json, address->mac);
	json_array_append_new(data, json);
}

json_t *report_addresses(const struct vswitch *vswitch)
{
	json_t *json = json_array();

	vswitch_each_address(vswitch, add_address, json);
	return json;
}
