/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config_net.c - reads `switches`, `nics` and `uplinks`: networks, and what is plugged into them
 *
 * A NIC and an uplink are both ports: they have the options of a port and a list of layers. A NIC
 * has a few options of its own, an uplink one key that is its kind, with the kind's options.
 *
 * Layers' options are tried out here as far as that can be done without a network: they are
 * compiled, and the result is thrown away.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/config_private.h"
#include "control/mistakes.h"
#include "control/reading.h"
#include "packet/frame.h"
#include "util/error.h"
#include "util/must.h"
#include "util/suggest.h"

#define WHERE 120 /* "uplink 'NAME': layers" */

/* --- switches ------------------------------------------------------------------------- */

static void read_switch(struct mistakes *mistakes, const struct node *node,
			struct config_switch *of)
{
	static const struct node empty = { .type = NODE_MAPPING };
	char where[WHERE];

	snprintf(where, sizeof where, "switch '%.64s'", node->key);
	of->name = must(strdup(node->key));
	options_init(vswitch_options, &of->config);
	config_check_name(mistakes, node, "switches");
	if (node->type == NODE_SCALAR && !*node->text) /* "lan:" */
		node = &empty;
	if (reading_must_be(mistakes, node, where, NODE_MAPPING, "its options, or {}"))
		reading_options(mistakes, node, where, vswitch_options, &of->config, NULL);
}

static void check_switch_name(struct mistakes *mistakes, const struct node *node, const char *where,
			      const struct config *config, const char *name)
{
	struct suggestion nearest = suggest_for(name);

	for (unsigned i = 0; i < config->switch_count; i++) {
		if (!strcmp(config->switches[i].name, name))
			return;
		suggest_offer(&nearest, config->switches[i].name);
	}
	reading_wrong(mistakes, node, where,
		      "switch: no switch '%s'%s%s%s; expected the name of one under 'switches'",
		      name, nearest.best ? " (did you mean '" : "",
		      nearest.best ? nearest.best : "", nearest.best ? "'?)" : "");
}

/* --- layers of packets ------------------------------------------------------------------ */

static void unknown_layer(struct mistakes *mistakes, const struct node *node, const char *where,
			  const char *name)
{
	struct suggestion nearest = suggest_for(name);
	char known[400] = "";
	size_t n = 0;

	for (unsigned i = 0; packet_layer_registry[i] && n < sizeof known; i++) {
		suggest_offer(&nearest, packet_layer_registry[i]->name);
		n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "",
				      packet_layer_registry[i]->name);
	}
	reading_wrong(mistakes, node, where, "no layer of packets '%s'%s%s%s (expected one of: %s)",
		      name, nearest.best ? "; did you mean '" : "",
		      nearest.best ? nearest.best : "", nearest.best ? "'?" : "", known);
}

/* Says @err about the option in @mapping that its text begins with, or about @mapping. */
static void wrong_option(struct mistakes *mistakes, const struct node *mapping, const char *where,
			 const struct error *err)
{
	const struct node *option;
	char name[64];

	snprintf(name, sizeof name, "%.*s", (int)strcspn(err->text, ":"), err->text);
	option = node_find(mapping, name);
	reading_wrong(mistakes, option ? option : mapping, where, "%s", err->text);
}

static void try_layer(struct mistakes *mistakes, const struct node *mapping, const char *where,
		      const struct packet_layer_config *layer, const struct port_facts *facts)
{
	struct error err = { 0 };
	void *rules = NULL;

	if (layer->ops->compile(layer->settings, facts, &rules, &err))
		wrong_option(mistakes, mapping, where, &err);
	else
		layer->ops->discard(rules);
}

/* One layer: a name alone, or a name with its options. False if it is none. */
static bool read_layer(struct mistakes *mistakes, const struct node *node, const char *where,
		       struct packet_layer_config *layer, const struct port_facts *facts)
{
	struct node bare = { .type = NODE_MAPPING, .line = node->line };
	const struct node *contents = &bare;
	unsigned before = mistakes->count;
	char below[WHERE + 40];
	const char *name;

	if (node->type == NODE_SCALAR) {
		name = node->text;
	} else if (node->type == NODE_MAPPING && node_count(node) == 1) {
		name = node->first->key;
		if (node->first->type != NODE_SCALAR || *node->first->text) /* else "- count:" */
			contents = node->first;
	} else {
		reading_wrong(mistakes, node, where,
			      "expected one layer such as '- count' or '- count: {direction: in}'");
		return false;
	}
	layer->ops = packet_layer_find(name);
	if (!layer->ops) {
		unknown_layer(mistakes, node, where, name);
		return false;
	}
	snprintf(below, sizeof below, "%s: %s", where, name);
	layer->settings = calloc(1, layer->ops->settings_size);
	if (!layer->settings) {
		mistake_no_memory(mistakes);
		return false;
	}
	options_init(layer->ops->options, layer->settings);
	if (!reading_must_be(mistakes, contents, below, NODE_MAPPING,
			     "options such as {name: value}"))
		return true;
	reading_options(mistakes, contents, below, layer->ops->options, layer->settings, NULL);
	if (facts && mistakes->count == before && !mistakes->no_memory)
		try_layer(mistakes, contents, below, layer, facts);
	return true;
}

static void read_layers(struct mistakes *mistakes, const struct node *list, const char *where,
			struct packet_layer_config **layers, unsigned *count,
			const struct port_facts *facts)
{
	if (!reading_must_be(mistakes, list, where, NODE_SEQUENCE, "a list of layers"))
		return;
	*layers = calloc(node_count(list) + 1, sizeof **layers);
	if (!*layers) {
		mistake_no_memory(mistakes);
		return;
	}
	for (const struct node *node = list->first; node; node = node->next)
		if (read_layer(mistakes, node, where, &(*layers)[*count], facts))
			(*count)++;
}

bool config_read_packet_layers(struct packet_layer_config **layers, unsigned *count,
			       const struct node *list, const struct port_facts *facts,
			       struct mistakes *mistakes)
{
	read_layers(mistakes, list, "layers", layers, count, facts);
	return !mistakes->fatal;
}

void config_release_packet_layers(struct packet_layer_config *layers, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		options_release(layers[i].ops->options, layers[i].settings);
		free(layers[i].settings);
	}
	free(layers);
}

void *config_copy_settings(const struct option *options, size_t size, const void *from)
{
	char *copy = malloc(size);

	if (!copy)
		return NULL;
	memcpy(copy, from, size);
	/* Texts are each object's own. All of them before one can fail and the rest is released. */
	for (const struct option *row = options; row->name; row++)
		if (row->type == OPTION_STRING)
			*(char **)(copy + row->offset) = NULL;
	for (const struct option *row = options; row->name; row++) {
		char *text = row->type == OPTION_STRING
				     ? *(char *const *)((const char *)from + row->offset)
				     : NULL;
		char *own = text ? strdup(text) : NULL;

		if (text && !own) {
			options_release(options, copy);
			free(copy);
			return NULL;
		}
		if (text)
			*(char **)(copy + row->offset) = own;
	}
	return copy;
}

/* --- addresses -------------------------------------------------------------------------- */

int config_mac(const char *text, uint8_t mac[6])
{
	return mac_parse(text, mac) || mac_is_multicast(mac) || !mac_number(mac) ? -EINVAL : 0;
}

static void check_mac(struct mistakes *mistakes, const struct node *node, const char *where,
		      struct nic_config *nic)
{
	uint8_t mac[6];

	if (!nic->mac || !config_mac(nic->mac, mac))
		return;
	reading_wrong(mistakes, node_find(node, "mac"), where,
		      "mac: '%s' is not understood; expected the address of one station such as "
		      "\"52:54:00:12:34:56\"",
		      nic->mac);
	free(nic->mac);
	nic->mac = NULL;
}

struct port_facts config_port_facts(const struct config_port *port)
{
	struct port_facts facts = { .name = port->name,
				    .kind = port->ops ? port->ops->name : "nic",
				    .mtu = (uint32_t)port->config.mtu };

	if (!port->ops) {
		nic_mac(&port->nic, port->name, facts.mac);
		facts.has_mac = true;
	}
	return facts;
}

/* --- ports ------------------------------------------------------------------------------- */

/* Disks and ports share one space of names, for commands that work on either. */
static void check_taken(struct mistakes *mistakes, const struct node *node, const char *where,
			const struct config *config)
{
	const char *what = NULL;

	for (unsigned i = 0; i < config->disk_count; i++)
		if (!strcmp(config->disks[i].name, node->key))
			what = "a disk";
	for (unsigned i = 0; i < config->nic_count; i++)
		if (!strcmp(config->nics[i].name, node->key))
			what = "a NIC";
	if (what)
		reading_wrong(mistakes, node, where,
			      "'%s' is the name of %s already; expected another name", node->key,
			      what);
}

/* What NICs and uplinks have in common, once their options are read. */
static void check_port(struct mistakes *mistakes, const struct node *node, const char *where,
		       const struct config *config, struct config_port *port)
{
	const struct node *layers = node_find(node, "layers"), *at = node_find(node, "switch");
	struct error err = { 0 };
	struct port_facts facts;
	char below[WHERE + 20];

	if (port->config.switch_name)
		check_switch_name(mistakes, at ? at : node, where, config,
				  port->config.switch_name);
	if (port_config_check(&port->config, &err))
		wrong_option(mistakes, node, where, &err);
	if (!layers)
		return;
	facts = config_port_facts(port);
	snprintf(below, sizeof below, "%s: layers", where);
	read_layers(mistakes, layers, below, &port->layers, &port->layer_count, &facts);
}

/* Names of @table's options behind the @count ones in @names. */
static unsigned add_names(const char **names, unsigned count, const struct option *table)
{
	for (; table->name; table++)
		names[count++] = table->name;
	return count;
}

static unsigned table_size(const struct option *table)
{
	unsigned count = 0;

	while (table[count].name)
		count++;
	return count;
}

static void read_nic(struct mistakes *mistakes, const struct node *node,
		     const struct config *config, struct config_port *port)
{
	const char **others = must(calloc(table_size(nic_options) + 2, sizeof *others));
	char where[WHERE];

	snprintf(where, sizeof where, "nic '%.64s'", node->key);
	port->name = must(strdup(node->key));
	options_init(port_options, &port->config);
	options_init(nic_options, &port->nic);
	config_check_name(mistakes, node, "nics");
	check_taken(mistakes, node, where, config);
	others[add_names(others, 0, nic_options)] = "layers";
	if (reading_must_be(mistakes, node, where, NODE_MAPPING, "options such as {switch: lan}")) {
		reading_options(mistakes, node, where, port_options, &port->config, others);
		reading_some_options(mistakes, node, where, nic_options, &port->nic);
		check_mac(mistakes, node, where, &port->nic);
		check_port(mistakes, node, where, config, port);
	}
	free(others);
}

/* The key in @node that is the kind of an uplink, or was meant to be one; NULL after a mistake. */
static const struct node *read_kind(struct mistakes *mistakes, const struct node *node,
				    const char *where, const struct uplink_ops **ops)
{
	const struct node *kind = NULL, *stranger = NULL;
	struct suggestion nearest;
	char known[300] = "";
	size_t n = 0;

	for (const struct node *item = node->first; item; item = item->next) {
		const struct uplink_ops *found = uplink_find(item->key);

		if (found && kind)
			reading_wrong(mistakes, item, where, "%s and %s: an uplink is of one kind",
				      kind->key, item->key);
		else if (found)
			kind = item;
		else if (!stranger && !options_find(port_options, item->key) &&
			 strcmp(item->key, "layers"))
			stranger = item;
	}
	if (kind) {
		*ops = uplink_find(kind->key);
		return kind;
	}
	nearest = suggest_for(stranger ? stranger->key : "");
	for (unsigned i = 0; uplink_registry[i] && n < sizeof known; i++) {
		suggest_offer(&nearest, uplink_registry[i]->name);
		n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "",
				      uplink_registry[i]->name);
	}
	if (stranger)
		reading_wrong(mistakes, stranger, where,
			      "no kind of uplink '%s'%s%s%s (expected one of: %s)", stranger->key,
			      nearest.best ? "; did you mean '" : "",
			      nearest.best ? nearest.best : "", nearest.best ? "'?" : "", known);
	else
		reading_wrong(mistakes, node, where,
			      "the kind of the uplink is missing; expected one of: %s", known);
	return stranger;
}

static void read_settings(struct mistakes *mistakes, const struct node *node, const char *where,
			  struct config_port *port)
{
	struct node bare = { .type = NODE_MAPPING, .line = node->line };
	unsigned before = mistakes->count;
	struct error err = { 0 };
	char below[WHERE + 40];

	snprintf(below, sizeof below, "%s: %s", where, port->ops->name);
	port->settings = must(calloc(1, port->ops->settings_size));
	options_init(port->ops->options, port->settings);
	if (node->type == NODE_SCALAR && !*node->text) /* "user:" */
		node = &bare;
	if (!reading_must_be(mistakes, node, below, NODE_MAPPING, "options such as {name: value}"))
		return;
	reading_options(mistakes, node, below, port->ops->options, port->settings, NULL);
	if (mistakes->count == before && port->ops->check && port->ops->check(port->settings, &err))
		wrong_option(mistakes, node, below, &err);
}

/* False if it is none; nothing is left of it then. */
static bool read_uplink(struct mistakes *mistakes, const struct node *node,
			const struct config *config, struct config_port *port)
{
	const char *others[] = { "layers", NULL, NULL };
	const struct node *kind;
	char where[WHERE];

	snprintf(where, sizeof where, "uplink '%.64s'", node->key);
	config_check_name(mistakes, node, "uplinks");
	check_taken(mistakes, node, where, config);
	if (!reading_must_be(mistakes, node, where, NODE_MAPPING,
			     "options such as {switch: lan, user: {}}"))
		return false;
	port->name = must(strdup(node->key));
	options_init(port_options, &port->config);
	kind = read_kind(mistakes, node, where, &port->ops);
	others[1] = kind ? kind->key : NULL;
	reading_options(mistakes, node, where, port_options, &port->config, others);
	if (port->ops) {
		read_settings(mistakes, kind, where, port);
		check_port(mistakes, node, where, config, port);
		return true;
	}
	options_release(port_options, &port->config);
	free(port->name);
	return false;
}

/* --- the sections -------------------------------------------------------------------------- */

static const struct node *section(struct mistakes *mistakes, const struct node *tree,
				  const char *name, const char *expected)
{
	const struct node *node = node_find(tree, name);

	return node && reading_must_be(mistakes, node, name, NODE_MAPPING, expected) ? node : NULL;
}

void config_read_net(struct config *config, const struct node *tree, struct mistakes *mistakes)
{
	const struct node *switches =
		section(mistakes, tree, "switches", "a name with options for each switch, or {}");
	const struct node *nics =
		section(mistakes, tree, "nics", "a name with options for each NIC");
	const struct node *uplinks =
		section(mistakes, tree, "uplinks", "a name with options for each uplink");

	config->switches = must(calloc(node_count(switches) + 1, sizeof *config->switches));
	for (const struct node *node = switches ? switches->first : NULL; node; node = node->next)
		read_switch(mistakes, node, &config->switches[config->switch_count++]);
	config->nics = must(calloc(node_count(nics) + 1, sizeof *config->nics));
	for (const struct node *node = nics ? nics->first : NULL; node; node = node->next) {
		read_nic(mistakes, node, config, &config->nics[config->nic_count]);
		config->nic_count++;
	}
	config->uplinks = must(calloc(node_count(uplinks) + 1, sizeof *config->uplinks));
	for (const struct node *node = uplinks ? uplinks->first : NULL; node; node = node->next)
		if (read_uplink(mistakes, node, config, &config->uplinks[config->uplink_count]))
			config->uplink_count++;
}

unsigned config_read_nic_name(struct mistakes *mistakes, const struct node *node, const char *where,
			      const char *kind, const struct config *config)
{
	struct suggestion nearest = suggest_for(node->text);

	for (unsigned i = 0; i < config->nic_count; i++) {
		if (!strcmp(config->nics[i].name, node->text))
			return i;
		suggest_offer(&nearest, config->nics[i].name);
	}
	reading_wrong(mistakes, node, where,
		      "%s: no NIC '%s'%s%s%s; expected the name of one under 'nics'", kind,
		      node->text, nearest.best ? " (did you mean '" : "",
		      nearest.best ? nearest.best : "", nearest.best ? "'?)" : "");
	return CONFIG_NO_NIC;
}

/* --- what ports are to one another ---------------------------------------------------------- */

/* All ports, NICs first. */
static const struct config_port *port_at(const struct config *config, unsigned i)
{
	if (i < config->nic_count)
		return &config->nics[i];
	i -= config->nic_count;
	return i < config->uplink_count ? &config->uplinks[i] : NULL;
}

static bool is_on(const struct config_port *port, const char *vswitch)
{
	return port->config.switch_name && vswitch && !strcmp(port->config.switch_name, vswitch);
}

static const struct node *node_of(const struct node *tree, const struct config_port *port)
{
	return node_find(node_find(tree, port->ops ? "uplinks" : "nics"), port->name);
}

/* True if @mac is among the static addresses of @config. */
static bool has_static(const struct port_config *config, const uint8_t mac[6])
{
	const char *at = config->statics ? config->statics : "";
	char text[18];
	uint8_t other[6];

	while (*(at += strspn(at, ", "))) {
		size_t length = strcspn(at, ", ");

		/* Behind a '/' there is a VLAN. */
		snprintf(text, sizeof text, "%.*s", (int)strcspn(at, ", /"), at);
		if (!config_mac(text, other) && !memcmp(mac, other, 6))
			return true;
		at += length;
	}
	return false;
}

/* Two NICs with one address, or a NIC whose address is said to be elsewhere. */
static void check_addresses(struct mistakes *mistakes, const struct config *config,
			    const struct node *tree, unsigned i)
{
	const struct config_port *nic = &config->nics[i], *other;
	const struct node *node = node_of(tree, nic), *at = node_find(node, "mac");
	char where[WHERE], text[18];
	uint8_t mac[6], taken[6];

	snprintf(where, sizeof where, "nic '%.64s'", nic->name);
	nic_mac(&nic->nic, nic->name, mac);
	for (unsigned j = 0; (other = port_at(config, j)); j++) {
		if (other == nic || !is_on(other, nic->config.switch_name))
			continue;
		if (has_static(&other->config, mac))
			reading_wrong(mistakes, at ? at : node, where,
				      "mac: %s is a static address of '%s' on the same switch",
				      mac_format(mac, text), other->name);
		if (other->ops || j > i)
			continue;
		nic_mac(&other->nic, other->name, taken);
		if (!memcmp(mac, taken, 6))
			reading_wrong(mistakes, at ? at : node, where,
				      "mac: %s is that of NIC '%s' on the same switch",
				      mac_format(mac, text), other->name);
	}
}

/* Ports whose frames are copied must be on the switch of the one that they are copied to. */
static int check_mirror(const struct config *config, const char *name,
			const struct port_config *config_of, struct error *err)
{
	char *copy, *rest, *word;
	int ret = 0;

	if (!config_of->mirror || !config_of->switch_name || !strcmp(config_of->mirror, "all"))
		return 0;
	copy = rest = strdup(config_of->mirror);
	if (!copy)
		return error_set(err, ENOMEM, "out of memory");
	while (!ret && (word = strsep(&rest, ", "))) {
		struct suggestion nearest = suggest_for(word);
		const struct config_port *other;
		bool found = !*word;

		for (unsigned i = 0; (other = port_at(config, i)); i++) {
			if (!is_on(other, config_of->switch_name) || !strcmp(other->name, name))
				continue;
			found |= !strcmp(other->name, word);
			suggest_offer(&nearest, other->name);
		}
		if (!found)
			ret = error_set(err, EINVAL,
					"mirror: there is no other port '%s' on switch '%s'%s%s%s",
					word, config_of->switch_name,
					nearest.best ? "; did you mean '" : "",
					nearest.best ? nearest.best : "", nearest.best ? "'?" : "");
	}
	free(copy);
	return ret;
}

int config_check_port(const struct config *config, const char *name,
		      const struct port_config *config_of, struct error *err)
{
	char text[18];
	uint8_t mac[6];

	for (unsigned i = 0; i < config->nic_count; i++) {
		const struct config_port *nic = &config->nics[i];

		nic_mac(&nic->nic, nic->name, mac);
		if (strcmp(nic->name, name) && is_on(nic, config_of->switch_name) &&
		    has_static(config_of, mac))
			return error_set(err, EINVAL,
					 "static: %s is the address of NIC '%s' on the same switch",
					 mac_format(mac, text), nic->name);
	}
	return check_mirror(config, name, config_of, err);
}

static bool in_use(const struct config *config, unsigned nic)
{
	for (unsigned v = 0; v < config->vm_count; v++)
		for (unsigned d = 0; d < config->vms[v].count; d++)
			for (unsigned u = 0; u < config->vms[v].devices[d].count; u++)
				if (config->vms[v].devices[d].units[u].nic == nic)
					return true;
	return false;
}

void config_check_net(const struct config *config, const struct node *tree,
		      struct mistakes *mistakes)
{
	const struct config_port *port;

	for (unsigned i = 0; i < config->nic_count; i++) {
		check_addresses(mistakes, config, tree, i);
		if (!in_use(config, i))
			mistake_warning(mistakes, node_of(tree, &config->nics[i])->line,
					"nic '%s': no device of a VM uses it",
					config->nics[i].name);
	}
	for (unsigned i = 0; (port = port_at(config, i)); i++) {
		const struct node *node = node_of(tree, port);
		struct error err = { 0 };
		char where[WHERE];

		if (!check_mirror(config, port->name, &port->config, &err))
			continue;
		snprintf(where, sizeof where, "%s '%.64s'", port->ops ? "uplink" : "nic",
			 port->name);
		wrong_option(mistakes, node, where, &err);
	}
}

/* --- the end ---------------------------------------------------------------------------------- */

static void release_port(struct config_port *port)
{
	config_release_packet_layers(port->layers, port->layer_count);
	if (port->settings)
		options_release(port->ops->options, port->settings);
	free(port->settings);
	options_release(nic_options, &port->nic);
	options_release(port_options, &port->config);
	free(port->name);
}

void config_release_net(struct config *config)
{
	for (unsigned i = 0; i < config->switch_count; i++)
		free(config->switches[i].name);
	for (unsigned i = 0; i < config->nic_count; i++)
		release_port(&config->nics[i]);
	for (unsigned i = 0; i < config->uplink_count; i++)
		release_port(&config->uplinks[i]);
	free(config->switches);
	free(config->nics);
	free(config->uplinks);
}
