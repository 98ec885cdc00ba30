/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config.c - from a tree of texts to what a user wants served
 *
 * The tree comes from a YAML file or, for `penstock serve`, from its arguments; then its
 * values have no lines and messages name the option only. All values go through the tables of
 * options of whatever they are for. Reading goes on after a mistake, so that a user hears of all
 * of them at once; nothing is opened here.
 *
 * Here is the top level; what stands below it has a file each: config_disks.c, config_net.c,
 * config_vms.c, config_nbd.c.
 */
#include "control/config.h"

#include <stdlib.h>
#include <string.h>

#include "control/config_private.h"
#include "control/mistakes.h"
#include "control/reading.h"
#include "control/state.h"
#include "control/yaml.h"

#define NAME_LENGTH 64

static const char *const engines[] = { "auto", "uring", "threads", NULL };
static const char *const log_levels[] = { "error", "warn", "info", "debug", NULL };

const struct option config_options[] = {
	{ .name = "loops",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct config, loops),
	  .max = 256,
	  .fallback = "0",
	  .help = "How many threads serve queues. 0 means one for each core that may be used." },
	{ .name = "cpus",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct config, cpus),
	  .help = "Cores that the loops stay on, such as 1 or 0-3 or 0,2,4-7; one loop for each, if "
		  "loops is not given." },
	{ .name = "engine",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct config, engine),
	  .choices = engines,
	  .fallback = "auto",
	  .help = "How the kernel is asked for reads and writes: with io_uring, or by threads with "
		  "preadv and pwritev. auto takes io_uring where it is permitted." },
	{ .name = "poll",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct config, poll),
	  .max = 1000000,
	  .fallback = "100",
	  .help = "Longest time, in microseconds, that a loop looks out for a guest's next request "
		  "before it sleeps until the guest notifies it. It adapts below this limit; 0 "
		  "means that it never polls." },
	{ .name = "api",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct config, api),
	  .help = "Path of the UNIX socket of the control API. Without it there is none." },
	{ .name = "state",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct config, state),
	  .help = "Path of a file that keeps what is changed at run time: disks that were added, removed, "
		  "resized or moved, other layers, other units of devices. A restart, or a start after a "
		  "crash, comes back to that. The directory must be writable, and the file is one penstock's alone. An entry counts as "
		  "long as the configuration says of its disk what it said before; if it was edited since, "
		  "penstock does not start until the two are the same or the entry is taken "
		  "out. Without this option a restart comes back to the configuration." },
	{ .name = "log-level",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct config, log_level),
	  .choices = log_levels,
	  .fallback = "info",
	  .help = "The least important messages that are still logged." },
	{ 0 },
};

const char config_embedded[] = "api: ./penstock-api.sock\n"
			       "disks:\n"
			       "  demo:\n"
			       "    stack:\n"
			       "      - file: {path: ./penstock-demo.img, size: 1G, create: true}\n"
			       "vms:\n"
			       "  demo:\n"
			       "    - {virtio-blk: demo, socket: ./penstock-demo.sock}\n";

/* --- small checks ------------------------------------------------------------------- */

/* Names are part of paths of the API, of labels of metrics, and of options of QEMU. */
void config_check_name(struct mistakes *mistakes, const struct node *node, const char *where)
{
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	size_t length = strlen(node->key);

	if (!length || length > NAME_LENGTH || strspn(node->key, LETTERS) == 0 ||
	    strspn(node->key, LETTERS "._-") != length)
		reading_wrong(mistakes, node, where,
			      "'%s' cannot be a name; expected at most %d letters, digits, '.', "
			      "'_' or '-', beginning with a letter or digit",
			      node->key, NAME_LENGTH);
#undef LETTERS
}

unsigned config_cpus(const char *list, unsigned cpus[CONFIG_CPUS])
{
	unsigned count = 0;

	for (;;) {
		unsigned long first, last;
		char *end;

		if (*list < '0' || *list > '9')
			return 0;
		first = last = strtoul(list, &end, 10);
		if (*end == '-') {
			list = end + 1;
			if (*list < '0' || *list > '9')
				return 0;
			last = strtoul(list, &end, 10);
		}
		if (last >= CONFIG_CPUS || first > last || count + last - first >= CONFIG_CPUS)
			return 0;
		while (first <= last)
			cpus[count++] = (unsigned)first++;
		if (!*end)
			return count;
		if (*end != ',')
			return 0;
		list = end + 1;
	}
}

/* --- the whole ---------------------------------------------------------------------- */

void config_init(struct config *config)
{
	options_init(config_options, config);
}

static const struct node *section(struct mistakes *mistakes, const struct node *tree,
				  const char *name, const char *expected)
{
	const struct node *node = node_find(tree, name);

	if (!node)
		reading_wrong(mistakes, tree, "", "'%s' is missing; expected %s", name, expected);
	else if (reading_must_be(mistakes, node, name, NODE_MAPPING, expected))
		return node;
	return NULL;
}

/* True if @tree has one of the sections that make up networks. */
static bool has_network(const struct node *tree)
{
	return node_find(tree, "switches") || node_find(tree, "nics") || node_find(tree, "uplinks");
}

static void read_disks(struct config *config, const struct node *tree, struct mistakes *mistakes)
{
	const struct node *disks;

	if (!node_find(tree, "disks") && has_network(tree))
		return;
	disks = section(mistakes, tree, "disks", "a name with options for each disk");
	if (disks)
		config_read_disks(config, disks, mistakes);
}

static void read_vms(struct config *config, const struct node *tree, struct mistakes *mistakes)
{
	const struct node *vms;

	if (!node_find(tree, "vms") && (node_find(tree, "nbd") || node_find(tree, "uplinks")))
		return;
	vms = section(mistakes, tree, "vms",
		      "a name with a list of devices for each VM, or 'nbd' or 'uplinks' instead");
	if (vms)
		config_read_vms(config, vms, mistakes);
}

bool config_read(struct config *config, const struct node *tree, struct mistakes *mistakes)
{
	static const char *const others[] = { "disks", "vms",     "nbd", "switches",
					      "nics",  "uplinks", NULL };
	unsigned cpus[CONFIG_CPUS];

	if (!reading_must_be(mistakes, tree, "", NODE_MAPPING,
			     "'disks:' or 'switches:', and 'vms:' or 'nbd:' at least"))
		return false;
	reading_options(mistakes, tree, "", config_options, config, others);
	if (config->cpus && !config_cpus(config->cpus, cpus))
		reading_wrong(
			mistakes, node_find(tree, "cpus"), "",
			"cpus: '%s' is not understood; expected cores such as 1, 0-3 or 0,2,4-7",
			config->cpus);
	read_disks(config, tree, mistakes);
	config_read_net(config, tree, mistakes);
	read_vms(config, tree, mistakes);
	config_check_net(config, tree, mistakes);
	if (node_find(tree, "nbd"))
		config_read_nbd(config, node_find(tree, "nbd"), mistakes);
	return !mistakes->fatal;
}

void config_release(struct config *config)
{
	config_release_disks(config);
	config_release_vms(config);
	config_release_net(config);
	config_release_nbd(config);
	state_free(config->kept);
	options_release(config_options, config);
	*config = (struct config){ 0 };
}
