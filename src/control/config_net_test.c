/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config_net_test.c - networks in a configuration: what they become, and what is said of those that
 * are wrong
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "control/config.h"
#include "control/mistakes.h"
#include "control/yaml.h"

/* A switch, and a VM with the NIC "a", for what is wrong elsewhere. */
#define LAN    "switches: {lan: {}}\n"
#define VMS    "vms: {v: [{virtio-net: a, socket: s}]}\n"
#define NIC(x) LAN "nics:\n  a: {switch: lan, " x "}\n" VMS

/* --- help --------------------------------------------------------------------------- */

/* All mistakes in @text, a line each; "" if it is good. The config is the caller's. */
static const char *said_of(const char *text, struct config *config)
{
	static char said[8192];
	struct mistakes mistakes = { .file = "f" };
	struct node *tree = yaml_parse(text, strlen(text), &mistakes);
	size_t n = 0;
	bool good;

	*config = (struct config){ 0 };
	config_init(config);
	good = tree && config_read(config, tree, &mistakes);
	assert_int_equal(good, !mistakes.fatal);
	node_free(tree);
	*said = 0;
	for (unsigned i = 0; i < mistakes.count && n < sizeof said; i++)
		n += (size_t)snprintf(said + n, sizeof said - n, "%s\n", mistakes.texts[i]);
	mistakes_release(&mistakes);
	return said;
}

/* --- files that are good ------------------------------------------------------------ */

static void everything(void **state)
{
	static const char text[] =
		"vms:\n" /* before what they name */
		"  web:\n"
		"    - {virtio-net: web0, socket: a}\n"
		"    - {virtio-net: web1, socket: b}\n"
		"  db:\n"
		"    - {virtio-net: db0, socket: c}\n"
		"nics:\n"
		"  web0:\n"
		"    switch: lan\n"
		"    mac: \"52:54:00:00:00:01\"\n"
		"    mtu: 9000\n"
		"    vlan: 10\n"
		"    trunk: \"20-29\"\n"
		"    layers: [count, count: {direction: in}, {count: }, count: {}]\n"
		"  web1: {switch: wan}\n"
		"  db0: {switch: lan, static: \"52:54:00:00:00:09, 52:54:00:00:00:08/20\", mirror: web0}\n"
		"switches:\n"
		"  lan: {ageing: 60s, addresses: 100}\n"
		"  wan:\n";
	struct config config;
	const struct config_port *nic;
	struct port_facts facts;
	uint8_t mac[6];

	(void)state;
	assert_string_equal(said_of(text, &config), "");
	assert_int_equal(config.switch_count, 2);
	assert_string_equal(config.switches[0].name, "lan");
	assert_int_equal(config.switches[0].config.ageing, 60000000000ull);
	assert_int_equal(config.switches[0].config.addresses, 100);
	assert_int_equal(config.nic_count, 3);
	nic = &config.nics[0];
	assert_string_equal(nic->config.switch_name, "lan");
	assert_int_equal(nic->config.mtu, 9000);
	assert_int_equal(nic->config.vlan, 10);
	assert_string_equal(nic->config.trunk, "20-29");
	assert_int_equal(nic->layer_count, 4);
	assert_string_equal(nic->layers[1].ops->name, "count");
	assert_int_equal(((struct layer_settings *)nic->layers[1].settings)->direction, LAYER_IN);
	facts = config_port_facts(nic);
	assert_true(facts.has_mac);
	assert_memory_equal(facts.mac, "\x52\x54\x00\x00\x00\x01", 6);
	assert_int_equal(facts.mtu, 9000);
	/* An address that is made from the name is one station's, and local. */
	nic_mac(&config.nics[1].nic, "web1", mac);
	assert_int_equal(mac[0] & 3, 2);
	assert_int_equal(config.vms[0].devices[1].units[0].nic, 1);
	assert_int_equal(config.vms[0].devices[1].units[0].disk, CONFIG_NO_DISK);
	assert_int_equal(config.vms[1].devices[0].units[0].nic, 2);
	assert_int_equal(config.disk_count, 0);
	config_release(&config);
}

/* Settings are copied with texts of their own. */
static void copies(void **state)
{
	struct port_config config = { 0 }, *copy;

	(void)state;
	options_init(port_options, &config);
	assert_int_equal(options_set(port_options, &config, "trunk", "10,20", NULL), 0);
	assert_int_equal(options_set(port_options, &config, "mtu", "1400", NULL), 0);
	copy = config_copy_settings(port_options, sizeof config, &config);
	options_release(port_options, &config);
	assert_non_null(copy);
	assert_string_equal(copy->trunk, "10,20");
	assert_int_equal(copy->mtu, 1400);
	assert_null(copy->mirror);
	options_release(port_options, copy);
	free(copy);
}

/* --- files that are wrong ------------------------------------------------------------- */

static void wrong(void **state)
{
	static const struct {
		const char *text, *said;
	} files[] = {
		/* switches */
		{ "switches: []\nnics: {a: {switch: lan}}\n" VMS,
		  "f:1: switches: found a list; expected a name with options for each switch" },
		{ "switches:\n  lan: x\nnics: {a: {switch: lan}}\n" VMS,
		  "f:2: switch 'lan': found a single value; expected its options, or {}" },
		{ "switches:\n  lan: {agein: 5s}\nnics: {a: {switch: lan}}\n" VMS,
		  "f:2: switch 'lan': no option 'agein'; did you mean 'ageing'?" },
		{ "switches:\n  lan: {ageing: 5}\nnics: {a: {switch: lan}}\n" VMS,
		  "f:2: switch 'lan': ageing: '5' is not understood" },
		{ "switches:\n  lan 1: {}\nnics: {a: {switch: lan}}\n" VMS,
		  "f:2: switches: 'lan 1' cannot be a name" },
		/* NICs */
		{ LAN "nics:\n  a: {}\n" VMS, "f:3: nic 'a': option 'switch' is missing" },
		{ LAN "nics:\n  a: x\n" VMS, "f:3: nic 'a': found a single value" },
		{ LAN "nics:\n  a: {switch: lam}\n" VMS,
		  "f:3: nic 'a': switch: no switch 'lam' (did you mean 'lan'?); expected the name "
		  "of one under 'switches'" },
		{ NIC("macs: x"), "f:3: nic 'a': no option 'macs'; did you mean 'mac'?" },
		{ NIC("mac: \"52:54:00:00:00\""), "f:3: nic 'a': mac: '52:54:00:00:00' is not" },
		{ NIC("mac: \"53:54:00:00:00:01\""), "mac: '53:54:00:00:00:01' is not understood; "
						     "expected the address of one station" },
		{ NIC("mac: \"00:00:00:00:00:00\""), "f:3: nic 'a': mac: '00:00:00:00:00:00'" },
		{ NIC("mtu: 60"), "f:3: nic 'a': mtu: '60' is out of range" },
		{ NIC("vlan: 4095"), "f:3: nic 'a': vlan: '4095' is out of range" },
		{ NIC("vlan: 0"), "f:3: nic 'a': vlan: 0" },
		{ NIC("trunk: \"30-20\""), "f:3: nic 'a': trunk: '30-20' is not understood" },
		{ NIC("static: x"), "f:3: nic 'a': static: 'x' is not understood" },
		{ NIC("mirror: b"),
		  "f:3: nic 'a': mirror: there is no other port 'b' on switch 'lan'" },
		{ NIC("mirror: a"),
		  "f:3: nic 'a': mirror: there is no other port 'a' on switch 'lan'" },
		{ NIC("layers: count"), "f:3: nic 'a': layers: found a single value" },
		{ NIC("layers: [cuont]"),
		  "f:3: nic 'a': layers: no layer of packets 'cuont'; did you mean 'count'?" },
		{ NIC("layers: [crypt]"), "f:3: nic 'a': layers: no layer of packets 'crypt'" },
		{ NIC("layers: [count: {direktion: in}]"),
		  "f:3: nic 'a': layers: count: no option 'direktion'; did you mean 'direction'?" },
		{ NIC("layers: [count: {direction: up}]"),
		  "f:3: nic 'a': layers: count: direction: 'up' is not understood" },
		{ NIC("layers: [count: x]"), "f:3: nic 'a': layers: count: found a single value" },
		{ NIC("layers: [{count: {}, x: {}}]"), "f:3: nic 'a': layers: expected one layer" },
		/* what they are to others */
		{ LAN "nics:\n  a: {switch: lan, mac: \"52:54:00:00:00:01\"}\n"
		      "  b: {switch: lan, mac: \"52:54:00:00:00:01\"}\n" VMS,
		  "f:4: nic 'b': mac: 52:54:00:00:00:01 is that of NIC 'a' on the same switch" },
		{ LAN "nics:\n  a: {switch: lan, static: \"52:54:00:00:00:01\"}\n"
		      "  b: {switch: lan, mac: \"52:54:00:00:00:01\"}\n" VMS,
		  "f:4: nic 'b': mac: 52:54:00:00:00:01 is a static address of 'a'" },
		{ LAN "nics:\n  a: {switch: lan}\n  b: {switch: lan}\n" VMS,
		  "f:4: warning: nic 'b': no device of a VM uses it" },
		{ LAN "nics:\n  a: {switch: lan}\ndisks:\n  a: {stack: [null]}\n" VMS,
		  "f:3: nic 'a': 'a' is the name of a disk already" },
		{ LAN "nics:\n  a: {switch: lan}\nuplinks:\n  a: {switch: lan}\n" VMS,
		  "f:5: uplink 'a': 'a' is the name of a NIC already" },
		/* uplinks */
		{ LAN "uplinks:\n  u: {switch: lan}\n",
		  "f:3: uplink 'u': the kind of the uplink is missing; expected one of:" },
		{ LAN "uplinks:\n  u: {switch: lan, nonesuch: {}}\n",
		  "f:3: uplink 'u': no kind of uplink 'nonesuch'" },
		{ LAN "uplinks:\n  u: x\n", "f:3: uplink 'u': found a single value" },
		/* devices */
		{ NIC("up: true") "\n", "" },
		{ LAN
		  "nics:\n  abc: {switch: lan}\nvms:\n  v:\n    - {virtio-net: abd, socket: s}\n",
		  "f:6: VM 'v': virtio-net: no NIC 'abd' (did you mean 'abc'?); expected the name of "
		  "one under 'nics'" },
		{ LAN "nics:\n  a: {switch: lan}\nvms:\n  v: [{virtio-net: a, socket: s}]\n"
		      "  w:\n    - {virtio-net: a, socket: t}\n",
		  "f:7: VM 'w': virtio-net: NIC 'a' is a device of VM 'v' already" },
		{ LAN "nics:\n  a: {switch: lan}\nvms:\n  v:\n    - {virtio-net: [a], socket: s}\n",
		  "f:6: VM 'v': found a list; expected the name of a NIC" },
		{ LAN "nics:\n  a: {switch: lan}\nvms:\n  v:\n    - {virtio-blk: a, socket: s}\n",
		  "f:6: VM 'v': virtio-blk: no disk 'a'" },
		{ LAN "nics:\n  a: {switch: lan}\n", "f:1: 'vms' is missing" },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
		struct config config;
		const char *said = said_of(files[i].text, &config);

		config_release(&config);
		if (!strstr(said, files[i].said) || (!*files[i].said && *said))
			fail_msg("'%s' is not in:\n%s--- said of:\n%s", files[i].said, said,
				 files[i].text);
	}
}

static void all_at_once(void **state)
{
	struct config config;
	const char *said = said_of("switches:\n"
				   "  lan: {ageing: x}\n"
				   "nics:\n"
				   "  a: {switch: lam, vlam: 1, layers: [cuont, {count: {x: 1}}]}\n"
				   "uplinks:\n"
				   "  u: {switch: lan, tpa: {}}\n"
				   "vms:\n"
				   "  v: [{virtio-net: b, socket: s}]\n",
				   &config);
	static const char *const parts[] = { "f:2: switch 'lan': ageing",
					     "f:4: nic 'a': no option 'vlam'",
					     "f:4: nic 'a': switch: no switch 'lam'",
					     "f:4: nic 'a': layers: no layer of packets 'cuont'",
					     "f:4: nic 'a': layers: count: no option 'x'",
					     "f:6: uplink 'u': no kind of uplink 'tpa'",
					     "f:8: VM 'v': virtio-net: no NIC 'b'" };

	(void)state;
	config_release(&config);
	for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++)
		if (!strstr(said, parts[i]))
			fail_msg("'%s' is not in:\n%s", parts[i], said);
}

/* --- examples -------------------------------------------------------------------------- */

/* What man pages show is good; of files that they name nothing is opened. */
static void examples(void **state)
{
	struct config config;

	(void)state;
	for (unsigned i = 0; packet_layer_registry[i]; i++) {
		assert_string_equal(said_of(packet_layer_registry[i]->example, &config), "");
		config_release(&config);
	}
	for (unsigned i = 0; uplink_registry[i]; i++) {
		assert_string_equal(said_of(uplink_registry[i]->example, &config), "");
		config_release(&config);
	}
}

/* The common row of all layers, and what it means, is there; each kind has a name of its own. */
static void tables(void **state)
{
	(void)state;
	for (unsigned i = 0; packet_layer_registry[i]; i++) {
		const struct packet_layer_ops *ops = packet_layer_registry[i];

		assert_non_null(options_find(ops->options, "direction"));
		assert_null(layer_find(ops->name));
		assert_null(uplink_find(ops->name));
	}
	for (unsigned i = 0; uplink_registry[i]; i++) {
		assert_null(layer_find(uplink_registry[i]->name));
		/* A kind is told from an option by its name. */
		assert_null(options_find(port_options, uplink_registry[i]->name));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything),  cmocka_unit_test(copies),   cmocka_unit_test(wrong),
		cmocka_unit_test(all_at_once), cmocka_unit_test(examples), cmocka_unit_test(tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
