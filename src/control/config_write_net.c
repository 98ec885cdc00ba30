/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config_write_net.c - switches, NICs and uplinks as they now are, in the words of a configuration
 *
 * A port says itself which options and layers it has; only a NIC that no device uses has none, and
 * is what it was configured as.
 */
#include <stdlib.h>

#include "control/config.h"
#include "control/config_write.h"
#include "control/daemon.h"
#include "control/stack_tree.h"
#include "packet/layer/capture.h"

/* @list with {KIND: options that differ from their defaults} at its end; NULL: no memory. */
static json_t *append_layer(json_t *list, const struct packet_layer_ops *ops, const void *settings)
{
	json_t *options = json_object(), *layer = json_object();
	int ret = options && layer ? config_write_options(options, ops->options, settings) : -1;

	if (!ret)
		ret = json_object_set(layer, ops->name, options) || json_array_append(list, layer);
	json_decref(options);
	json_decref(layer);
	if (!ret)
		return list;
	json_decref(list);
	return NULL;
}

/* The layers of @port; @all: those too that are there as long as somebody watches. */
static json_t *write_layers(const struct port *port, bool all)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < port->layer_count && list; i++) {
		const struct packet_layer *layer = port->layers[i];

		if (!all && layer->ops == &capture_layer && capture_is_stream(layer->settings))
			continue;
		list = append_layer(list, layer->ops, layer->settings);
	}
	return list;
}

json_t *config_write_layers(const struct port *port)
{
	return write_layers(port, true);
}

static json_t *configured_layers(const struct config_port *config)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < config->layer_count && list; i++)
		list = append_layer(list, config->layers[i].ops, config->layers[i].settings);
	return list;
}

/* The options @config and @layers, which is taken over. */
static json_t *write_port(const struct port_config *config, json_t *layers)
{
	json_t *json = json_object();
	int ret = json && layers ? config_write_options(json, port_options, config) : -1;

	if (!ret && json_array_size(layers))
		ret = json_object_set_new(json, "layers", stack_tree_short(layers));
	json_decref(layers);
	if (!ret)
		return json;
	json_decref(json);
	return NULL;
}

json_t *config_write_port(const struct port *port)
{
	return write_port(&port->config, write_layers(port, false));
}

json_t *config_write_unplugged(const struct daemon *daemon, const char *name)
{
	const struct config *config = daemon->config;

	for (unsigned i = 0; i < config->nic_count; i++)
		if (!strcmp(config->nics[i].name, name))
			return write_port(&config->nics[i].config,
					  configured_layers(&config->nics[i]));
	return NULL;
}

/* A NIC or an uplink as it is below its name: what a port has, and what is its own. */
static json_t *write_plugged(const struct daemon *daemon, const struct config_port *config)
{
	const struct port *port = daemon_port(daemon, config->name);
	json_t *json = port ? config_write_port(port)
			    : write_port(&config->config, configured_layers(config));
	json_t *settings;
	int ret = json ? 0 : -1;

	if (!ret && config->ops) {
		settings = json_object();
		ret = settings ? config_write_options(settings, config->ops->options,
						      config->settings)
			       : -1;
		if (!ret)
			ret = json_object_set(json, config->ops->name, settings);
		json_decref(settings);
	} else if (!ret) {
		ret = config_write_options(json, nic_options, &config->nic);
	}
	if (!ret)
		return json;
	json_decref(json);
	return NULL;
}

static int write_section(const struct daemon *daemon, json_t *json, const char *name,
			 const struct config_port *ports, unsigned count)
{
	json_t *section = json_object();
	int ret = section ? 0 : -1;

	for (unsigned i = 0; i < count && !ret; i++)
		ret = json_object_set_new(section, ports[i].name, write_plugged(daemon, &ports[i]));
	if (!ret && count)
		ret = json_object_set(json, name, section);
	json_decref(section);
	return ret;
}

static int write_switches(const struct config *config, json_t *json)
{
	json_t *section = json_object(), *options;
	int ret = section ? 0 : -1;

	for (unsigned i = 0; i < config->switch_count && !ret; i++) {
		options = json_object();
		ret = options ? config_write_options(options, vswitch_options,
						     &config->switches[i].config)
			      : -1;
		if (!ret)
			ret = json_object_set(section, config->switches[i].name, options);
		json_decref(options);
	}
	if (!ret)
		ret = json_object_set(json, "switches", section);
	json_decref(section);
	return ret;
}

int config_write_net(const struct daemon *daemon, json_t *json)
{
	const struct config *config = daemon->config;

	return write_switches(config, json) ||
	       write_section(daemon, json, "nics", config->nics, config->nic_count) ||
	       write_section(daemon, json, "uplinks", config->uplinks, config->uplink_count);
}
