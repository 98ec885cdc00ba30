/* SPDX-License-Identifier: BSD-3-Clause */
/* metrics.h - counters for Prometheus; see metrics.c */
#pragma once

#include <stdio.h>

struct daemon;

/** A family of metrics: its name, "counter", "gauge" or "histogram", and what it counts. */
struct metric {
	const char *name, *type, *help;
	void (*write)(FILE *out, const char *name, const struct daemon *daemon);
};

/** All of them, ended by one without a name. */
extern const struct metric metrics[];

/* Of switches, ports and their layers: metrics_net.c. */
void metrics_port_packets(FILE *out, const char *name, const struct daemon *daemon);
void metrics_port_bytes(FILE *out, const char *name, const struct daemon *daemon);
void metrics_port_drops(FILE *out, const char *name, const struct daemon *daemon);
void metrics_port_up(FILE *out, const char *name, const struct daemon *daemon);
void metrics_port_layer_seen(FILE *out, const char *name, const struct daemon *daemon);
void metrics_port_layer_held(FILE *out, const char *name, const struct daemon *daemon);
void metrics_port_layer_made(FILE *out, const char *name, const struct daemon *daemon);
void metrics_port_layer_drops(FILE *out, const char *name, const struct daemon *daemon);
void metrics_port_layer_numbers(FILE *out, const char *name, const struct daemon *daemon);
void metrics_switch_addresses(FILE *out, const char *name, const struct daemon *daemon);

/** Writes the text exposition format, version 0.0.4. */
void metrics_write(FILE *out, const struct daemon *daemon);
