/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * metrics_net.c - counters of switches, ports and their layers for Prometheus; see metrics.c
 *
 * All loops' counters are added up. Drops appear with the first packet that is dropped for a
 * cause.
 */
#include <inttypes.h>

#include "control/config.h"
#include "control/daemon.h"
#include "control/metrics.h"
#include "control/networks.h"
#include "control/report.h"

static const char *const directions[PACKET_DIRECTIONS] = { "in", "out" };

/* One family, while ports are visited. */
struct family {
	FILE *out;
	const char *name;
	void (*write)(const struct family *family, const struct port *port);
};

static void visit(void *data, struct port *port)
{
	const struct family *family = data;

	family->write(family, port);
}

/* --- ports ----------------------------------------------------------------------------- */

#define OF_PORT(what)                                                                              \
	static void what##_of_port(const struct family *family, const struct port *port)           \
	{                                                                                          \
		for (unsigned d = 0; d < PACKET_DIRECTIONS; d++) {                                 \
			uint64_t sum = 0;                                                          \
                                                                                                   \
			for (unsigned i = 0; i < port->lane_count; i++)                            \
				sum += stats_read(&port->lanes[i]->stats.direction[d].what);       \
			fprintf(family->out, "%s{port=\"%s\",direction=\"%s\"} %" PRIu64 "\n",     \
				family->name, port->name, directions[d], sum);                     \
		}                                                                                  \
	}

OF_PORT(packets)
OF_PORT(bytes)

static void drops_of_port(const struct family *family, const struct port *port)
{
	for (unsigned d = 0; d < PACKET_DIRECTIONS; d++)
		for (unsigned cause = 0; cause < PORT_DROPS; cause++) {
			uint64_t sum = 0;

			for (unsigned i = 0; i < port->lane_count; i++)
				sum += stats_read(&port->lanes[i]->stats.direction[d].drops[cause]);
			if (sum)
				fprintf(family->out,
					"%s{port=\"%s\",direction=\"%s\",cause=\"%s\"} %" PRIu64
					"\n",
					family->name, port->name, directions[d],
					port_drop_names[cause], sum);
		}
}

static void up_of_port(const struct family *family, const struct port *port)
{
	fprintf(family->out, "%s{port=\"%s\"} %d\n", family->name, port->name,
		port->up && port->plugged);
}

#define OF_EACH_PORT(what)                                                                         \
	void metrics_port_##what(FILE *out, const char *name, const struct daemon *daemon)         \
	{                                                                                          \
		struct family family = { out, name, what##_of_port };                              \
                                                                                                   \
		networks_each_port(daemon, visit, &family);                                        \
	}

OF_EACH_PORT(packets)
OF_EACH_PORT(bytes)
OF_EACH_PORT(drops)
OF_EACH_PORT(up)

/* --- layers of ports --------------------------------------------------------------------- */

static void layer_sample(const struct family *family, const struct port *port, unsigned position,
			 enum packet_direction d, enum report_counter counter)
{
	fprintf(family->out,
		"%s{port=\"%s\",layer=\"%s\",position=\"%u\",direction=\"%s\"} %" PRIu64 "\n",
		family->name, port->name, port->layers[position]->ops->name, position,
		directions[d], report_layer_counter(port->layers[position], d, counter));
}

#define OF_LAYERS(what, counter)                                                                   \
	static void layer_##what##_of_port(const struct family *family, const struct port *port)   \
	{                                                                                          \
		for (unsigned i = 0; i < port->layer_count; i++)                                   \
			for (unsigned d = 0; d < PACKET_DIRECTIONS; d++)                           \
				layer_sample(family, port, i, d, counter);                         \
	}

OF_LAYERS(seen, REPORT_SEEN)
OF_LAYERS(held, REPORT_HELD)
OF_LAYERS(made, REPORT_MADE)

static void layer_drops_of_port(const struct family *family, const struct port *port)
{
	for (unsigned i = 0; i < port->layer_count; i++) {
		const struct packet_layer *layer = port->layers[i];

		for (unsigned d = 0; d < PACKET_DIRECTIONS; d++)
			for (unsigned c = 0; layer->ops->causes && layer->ops->causes[c]; c++) {
				uint64_t n = report_layer_counter(layer, d, REPORT_DROPS + c);

				if (n)
					fprintf(family->out,
						"%s{port=\"%s\",layer=\"%s\",position=\"%u\","
						"direction=\"%s\",cause=\"%s\"} %" PRIu64 "\n",
						family->name, port->name, layer->ops->name, i,
						directions[d], layer->ops->causes[c], n);
			}
	}
}

/* The numbers in what a layer says of itself, see packet_layer_ops.report. */
static void layer_numbers_of_port(const struct family *family, const struct port *port)
{
	for (unsigned i = 0; i < port->layer_count; i++) {
		struct packet_layer *layer = port->layers[i];
		json_t *report = layer->ops->report ? layer->ops->report(layer) : NULL, *value;
		const char *key;

		json_object_foreach(report, key, value)
		{
			if (json_is_number(value))
				fprintf(family->out,
					"%s{port=\"%s\",layer=\"%s\",position=\"%u\",what=\"%s\"} "
					"%.15g\n",
					family->name, port->name, layer->ops->name, i, key,
					json_number_value(value));
		}
		json_decref(report);
	}
}

OF_EACH_PORT(layer_numbers)
OF_EACH_PORT(layer_seen)
OF_EACH_PORT(layer_held)
OF_EACH_PORT(layer_made)
OF_EACH_PORT(layer_drops)

/* --- switches ------------------------------------------------------------------------------ */

void metrics_switch_addresses(FILE *out, const char *name, const struct daemon *daemon)
{
	struct vswitch *vswitch;

	for (unsigned i = 0; (vswitch = networks_switch_at(daemon, i)); i++)
		fprintf(out, "%s{switch=\"%s\"} %u\n", name, vswitch_name(vswitch),
			vswitch_address_count(vswitch, NULL));
}
