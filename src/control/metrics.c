/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * metrics.c - counters for Prometheus
 *
 * One table of families, each with the function that writes its samples; all samples
 * of a family stand together, as the format wants it. Names of VMs and disks have none of the
 * characters that labels would have to escape; paths may. Samples by kind of request appear
 * with the first request of that kind, or a host with many queues would mostly report zeroes.
 */
#include "control/metrics.h"

#include <inttypes.h>

#include "control/config.h"
#include "control/daemon.h"
#include "control/exports.h"
#include "control/moves.h"
#include "control/records.h"
#include "frontend/device.h"
#include "layer/disk.h"
#include "transport/nbd.h"

/* --- samples by queue and kind of request ------------------------------------------- */

/* One queue of a device or of one of its units, and the labels it has. */
struct queue {
	const struct queue_stats *stats;
	char labels[400];
};

typedef void each_fn(FILE *out, const char *name, const struct queue *queue);

static void labels_of_device(const struct daemon_device *slot, char *text, size_t size)
{
	snprintf(text, size, "vm=\"%s\",device=\"%s\"", slot->vm->name, slot->device->name);
}

/* Calls @each for every configured queue of every device. */
static void for_each_queue(FILE *out, const char *name, const struct daemon *daemon, each_fn *each)
{
	for (unsigned i = 0; i < daemon->device_count; i++) {
		const struct device *device = daemon->devices[i].device;
		char labels[200];

		labels_of_device(&daemon->devices[i], labels, sizeof labels);
		for (unsigned q = 0; q < device->queues; q++) {
			struct queue queue = { .stats = &device->stats[q] };

			snprintf(queue.labels, sizeof queue.labels, "%s,queue=\"%u\"", labels, q);
			each(out, name, &queue);
		}
	}
}

/* Calls @each for every queue of every unit that has a disk. */
static void for_each_unit_queue(FILE *out, const char *name, const struct daemon *daemon,
				each_fn *each)
{
	for (unsigned i = 0; i < daemon->device_count; i++) {
		const struct device *device = daemon->devices[i].device;
		char labels[200];

		labels_of_device(&daemon->devices[i], labels, sizeof labels);
		for (unsigned u = 0; u < device->unit_count; u++) {
			const struct device_unit *unit = &device->units[u];

			for (unsigned q = 0; unit->disk && q < device->queues; q++) {
				struct queue queue = { .stats = &unit->stats[q] };

				snprintf(queue.labels, sizeof queue.labels,
					 "%s,unit=\"%s\",disk=\"%s\",queue=\"%u\"", labels,
					 unit->name, unit->disk->name, q);
				each(out, name, &queue);
			}
		}
	}
}

#define OF_OPS(what)                                                                               \
	static void what##_of_queue(FILE *out, const char *name, const struct queue *queue)        \
	{                                                                                          \
		for (unsigned op = 0; op < IO_OPS; op++)                                           \
			if (stats_read(&queue->stats->op[op].requests))                            \
				fprintf(out, "%s{%s,op=\"%s\"} %" PRIu64 "\n", name,               \
					queue->labels, io_op_name(op),                             \
					stats_read(&queue->stats->op[op].what));                   \
	}

OF_OPS(requests)
OF_OPS(bytes)
OF_OPS(errors)

static void latency_of_queue(FILE *out, const char *name, const struct queue *queue)
{
	for (unsigned op = 0; op < IO_OPS; op++) {
		uint64_t count = 0;

		if (!stats_read(&queue->stats->op[op].requests))
			continue;
		for (unsigned b = 0; b < STATS_BUCKETS; b++) {
			count += stats_read(&queue->stats->op[op].latency[b]);
			if (b < STATS_BUCKETS - 1)
				fprintf(out, "%s_bucket{%s,op=\"%s\",le=\"%.6f\"} %" PRIu64 "\n",
					name, queue->labels, io_op_name(op),
					(double)(1ull << b) / 1e6, count);
		}
		/* The count is the sum of the buckets, so that they agree in the midst of traffic.
		 */
		fprintf(out, "%s_bucket{%s,op=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", name,
			queue->labels, io_op_name(op), count);
		fprintf(out, "%s_sum{%s,op=\"%s\"} %.9f\n", name, queue->labels, io_op_name(op),
			(double)stats_read(&queue->stats->op[op].latency_ns) / 1e9);
		fprintf(out, "%s_count{%s,op=\"%s\"} %" PRIu64 "\n", name, queue->labels,
			io_op_name(op), count);
	}
}

static void interrupts_of_queue(FILE *out, const char *name, const struct queue *queue)
{
	fprintf(out, "%s{%s} %" PRIu64 "\n", name, queue->labels,
		stats_read(&queue->stats->interrupts));
}

static void suppressed_of_queue(FILE *out, const char *name, const struct queue *queue)
{
	fprintf(out, "%s{%s} %" PRIu64 "\n", name, queue->labels,
		stats_read(&queue->stats->interrupts_suppressed));
}

static void accesses_of_queue(FILE *out, const char *name, const struct queue *queue)
{
	fprintf(out, "%s{%s} %" PRIu64 "\n", name, queue->labels,
		stats_read(&queue->stats->accesses));
}

static void depth_of_queue(FILE *out, const char *name, const struct queue *queue)
{
	fprintf(out, "%s{%s} %" PRIu64 "\n", name, queue->labels,
		stats_read(&queue->stats->in_flight));
}

#define OF(each, what)                                                                             \
	static void what(FILE *out, const char *name, const struct daemon *daemon)                 \
	{                                                                                          \
		each(out, name, daemon, what##_of_queue);                                          \
	}

OF(for_each_unit_queue, requests)
OF(for_each_unit_queue, bytes)
OF(for_each_unit_queue, errors)
OF(for_each_unit_queue, latency)
OF(for_each_unit_queue, depth)
OF(for_each_queue, interrupts)
OF(for_each_queue, suppressed)
OF(for_each_queue, accesses)

/* --- samples by device and disk ----------------------------------------------------- */

static void connected(FILE *out, const char *name, const struct daemon *daemon)
{
	for (unsigned i = 0; i < daemon->device_count; i++) {
		char labels[200];

		labels_of_device(&daemon->devices[i], labels, sizeof labels);
		fprintf(out, "%s{%s} %d\n", name, labels, daemon->devices[i].device->connected);
	}
}

static void broken(FILE *out, const char *name, const struct daemon *daemon)
{
	for (unsigned i = 0; i < daemon->device_count; i++) {
		char labels[200];

		labels_of_device(&daemon->devices[i], labels, sizeof labels);
		fprintf(out, "%s{%s} %d\n", name, labels, daemon->devices[i].device->broken);
	}
}

static void disk_size(FILE *out, const char *name, const struct daemon *daemon)
{
	for (unsigned i = 0; i < daemon->disk_count; i++)
		fprintf(out, "%s{disk=\"%s\"} %" PRIu64 "\n", name, daemon->disks[i]->name,
			(uint64_t)atomic_load(&daemon->disks[i]->size));
}

/* --- samples of disks that are exported --------------------------------------------- */

/* What stands in a label for @text. Never more than @size bytes. */
static void escape(const char *text, char *label, size_t size)
{
	size_t n = 0;

	for (; *text && n + 3 < size; text++) {
		if (*text == '"' || *text == '\\' || *text == '\n')
			label[n++] = '\\';
		label[n++] = *text == '\n' ? 'n' : *text;
	}
	label[n] = 0;
}

static void labels_of_export(const char *server, const struct nbd_export *export, char *text,
			     size_t size)
{
	char escaped[256];

	escape(server, escaped, sizeof escaped);
	snprintf(text, size, "server=\"%s\",disk=\"%s\"", escaped, export->disk);
}

struct family {
	FILE *out;
	const char *name;
};

static void connections_of_export(void *data, const char *server, const struct nbd_export *export)
{
	const struct family *family = data;

	char labels[400];

	labels_of_export(server, export, labels, sizeof labels);
	fprintf(family->out, "%s{%s} %u\n", family->name, labels, export->connections);
}

#define OF_EXPORTS(what)                                                                           \
	static void what##_of_export(void *data, const char *server,                               \
				     const struct nbd_export *export)                              \
	{                                                                                          \
		const struct family *family = data;                                                \
		struct queue queue = { .stats = &export->stats };                                  \
                                                                                                   \
		labels_of_export(server, export, queue.labels, sizeof queue.labels);               \
		what##_of_queue(family->out, family->name, &queue);                                \
	}

OF_EXPORTS(requests)
OF_EXPORTS(bytes)
OF_EXPORTS(errors)

#define OF_EACH_EXPORT(what)                                                                       \
	static void nbd_##what(FILE *out, const char *name, const struct daemon *daemon)           \
	{                                                                                          \
		struct family family = { out, name };                                              \
                                                                                                   \
		exports_each(daemon, what##_of_export, &family);                                   \
	}

OF_EACH_EXPORT(connections)
OF_EACH_EXPORT(requests)
OF_EACH_EXPORT(bytes)
OF_EACH_EXPORT(errors)

/* --- of the whole ------------------------------------------------------------------- */
static void changes(FILE *out, const char *name, const struct daemon *daemon)
{
	list_for_each (link, &daemon->records) {
		const struct disk_record *record = container_of(link, struct disk_record, link);

		fprintf(out, "%s{disk=\"%s\"} %" PRIu64 "\n", name, record->disk->name,
			record->changes);
	}
}

/* Sum and count, as of a summary: the mean pause; and the longest beside it. */
static void pauses(FILE *out, const char *name, const struct daemon *daemon)
{
	list_for_each (link, &daemon->records) {
		const struct disk_record *record = container_of(link, struct disk_record, link);

		fprintf(out, "%s_sum{disk=\"%s\"} %.9f\n%s_count{disk=\"%s\"} %" PRIu64 "\n", name,
			record->disk->name, (double)record->all_pauses / 1e9, name,
			record->disk->name, record->changes);
	}
}

static void longest_pause(FILE *out, const char *name, const struct daemon *daemon)
{
	list_for_each (link, &daemon->records) {
		const struct disk_record *record = container_of(link, struct disk_record, link);

		fprintf(out, "%s{disk=\"%s\"} %.9f\n", name, record->disk->name,
			(double)record->longest_pause / 1e9);
	}
}

static void move_copied(FILE *out, const char *name, const struct daemon *daemon)
{
	list_for_each (link, &daemon->records) {
		const struct disk_record *record = container_of(link, struct disk_record, link);
		struct move_numbers numbers;

		if (moves_numbers(record, &numbers))
			fprintf(out, "%s{disk=\"%s\"} %" PRIu64 "\n", name, record->disk->name,
				numbers.bytes);
	}
}

static void move_size(FILE *out, const char *name, const struct daemon *daemon)
{
	list_for_each (link, &daemon->records) {
		const struct disk_record *record = container_of(link, struct disk_record, link);
		struct move_numbers numbers;

		if (moves_numbers(record, &numbers))
			fprintf(out, "%s{disk=\"%s\"} %" PRIu64 "\n", name, record->disk->name,
				numbers.size);
	}
}

/* Of one disk, while its layers are visited. */
struct layer_visit {
	FILE *out;
	const char *name;
	const struct disk *disk;
	unsigned number;
};

/* The numbers in what a layer says of itself, see layer_ops.report. */
static void layer_numbers(struct layer *layer, void *data)
{
	struct layer_visit *visit = data;
	json_t *report = layer->ops->report ? layer->ops->report(layer) : NULL, *value;
	const char *key;

	json_object_foreach(report, key, value) if (json_is_number(value)) fprintf(
		visit->out, "%s{disk=\"%s\",layer=\"%s\",number=\"%u\",what=\"%s\"} %.15g\n",
		visit->name, visit->disk->name, layer->ops->name, visit->number, key,
		json_number_value(value));
	json_decref(report);
	visit->number++;
}

static void layers(FILE *out, const char *name, const struct daemon *daemon)
{
	list_for_each (link, &daemon->records) {
		const struct disk_record *record = container_of(link, struct disk_record, link);
		struct layer_visit visit = { out, name, record->disk, 0 };

		stack_visit(record->disk->top, layer_numbers, &visit);
	}
}

static void build_info(FILE *out, const char *name, const struct daemon *daemon)
{
	(void)daemon;
	fprintf(out, "%s{version=\"" PENSTOCK_VERSION "\"} 1\n", name);
}

static void loops(FILE *out, const char *name, const struct daemon *daemon)
{
	fprintf(out, "%s{engine=\"%s\"} %u\n", name, loop_engine_name(daemon->loops[0]),
		daemon->loop_count);
}

static void uptime(FILE *out, const char *name, const struct daemon *daemon)
{
	fprintf(out, "%s %.3f\n", name,
		(double)(loop_now(daemon->control) - daemon->started) / 1e9);
}

const struct metric metrics[] = {
	{ "penstock_disk_requests_total", "counter", "Requests completed.", requests },
	{ "penstock_disk_bytes_total", "counter", "Bytes of completed requests.", bytes },
	{ "penstock_disk_errors_total", "counter", "Requests completed with an error.", errors },
	{ "penstock_disk_latency_seconds", "histogram",
	  "From the moment a request was taken off the ring to its completion.", latency },
	{ "penstock_interrupts_total", "counter", "Interrupts sent to the guest.", interrupts },
	{ "penstock_interrupts_suppressed_total", "counter",
	  "Batches completed without an interrupt, because the guest did not ask for one.",
	  suppressed },
	{ "penstock_accesses_total", "counter",
	  "Notifications by the guest, and its accesses to registers.", accesses },
	{ "penstock_queue_depth", "gauge", "Requests taken and not yet completed.", depth },
	{ "penstock_device_connected", "gauge", "1 while a VMM is attached.", connected },
	{ "penstock_device_broken", "gauge",
	  "1 after the device was stopped because of what its guest or VMM did.", broken },
	{ "penstock_disk_size_bytes", "gauge", "Size of the disk.", disk_size },
	{ "penstock_nbd_connections", "gauge", "NBD clients that have the disk.", nbd_connections },
	{ "penstock_nbd_requests_total", "counter", "Requests of NBD clients, answered.",
	  nbd_requests },
	{ "penstock_nbd_bytes_total", "counter", "Bytes of such requests.", nbd_bytes },
	{ "penstock_nbd_errors_total", "counter", "Such requests answered with an error.",
	  nbd_errors },
	{ "penstock_disk_changes_total", "counter",
	  "Changes of a disk's layers while it was in use.", changes },
	{ "penstock_disk_change_pause_seconds", "summary",
	  "How long requests had to wait at most, for each change of a disk's layers.", pauses },
	{ "penstock_disk_change_longest_pause_seconds", "gauge", "The longest of them.",
	  longest_pause },
	{ "penstock_move_copied_bytes", "gauge",
	  "Of a move to another back-end that is under way: bytes copied so far.", move_copied },
	{ "penstock_move_size_bytes", "gauge", "And how many there are to copy.", move_size },
	{ "penstock_layer", "gauge",
	  "The numbers that a layer of a disk says of itself, as in penstock status --json: for a mirror, "
	  "legs that failed, bytes that are still to be copied.",
	  layers },
	{ "penstock_port_packets_total", "counter",
	  "Packets that came in from what is plugged into a port of a switch, or went out to it.",
	  metrics_port_packets },
	{ "penstock_port_bytes_total", "counter", "Bytes of such packets.", metrics_port_bytes },
	{ "penstock_port_drops_total", "counter",
	  "Packets that were dropped at a port by the switch, by cause.", metrics_port_drops },
	{ "penstock_port_up", "gauge",
	  "1 while a port is up and somebody is plugged in: a guest's driver, a peer.",
	  metrics_port_up },
	{ "penstock_port_layer_packets_total", "counter", "Packets that came to a layer of a port.",
	  metrics_port_layer_seen },
	{ "penstock_port_layer_drops_total", "counter", "Packets that it dropped, by cause.",
	  metrics_port_layer_drops },
	{ "penstock_port_layer_held_total", "counter", "Packets that it held back.",
	  metrics_port_layer_held },
	{ "penstock_port_layer_made_total", "counter", "Packets that it made.",
	  metrics_port_layer_made },
	{ "penstock_port_layer", "gauge",
	  "The numbers that a layer of a port says of itself, as in penstock status --json.",
	  metrics_port_layer_numbers },
	{ "penstock_switch_addresses", "gauge",
	  "MAC addresses that a switch knows, learned or static.", metrics_switch_addresses },
	{ "penstock_loops", "gauge", "Threads that serve queues.", loops },
	{ "penstock_uptime_seconds", "gauge", "Time since it was ready.", uptime },
	{ "penstock_build_info", "gauge", "Always 1; its label is the version.", build_info },
	{ 0 },
};

void metrics_write(FILE *out, const struct daemon *daemon)
{
	for (const struct metric *m = metrics; m->name; m++) {
		fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, m->type);
		m->write(out, m->name, daemon);
	}
}
