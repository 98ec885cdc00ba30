/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config_test.c - what files and command lines become, and what is said of those that
 * are wrong: by mistake, or on purpose
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "control/config.h"
#include "control/mistakes.h"
#include "control/serve.h"
#include "control/yaml.h"

/* A disk and a VM, for what is wrong elsewhere. */
#define DISKS "disks: {a: {stack: [null]}}\n"
#define VMS   "vms: {v: [{virtio-blk: a, socket: s}]}\n"

/* A device of several units, and disks for them. */
#define SCSI(units)                                                                                \
	"disks:\n  a: {stack: [null]}\n  b: {stack: [null]}\n  cd: {stack: [iso: {path: x}]}\n"    \
	"vms: {v: [\n    {virtio-scsi: " units ", socket: s}]}\n"

/* An option of the device as text, good until the next call. */
static const char *setting(const struct config_device *device, const char *name)
{
	static char text[100];

	options_get(options_find(device->frontend->options, name), device->settings, text,
		    sizeof text);
	return text;
}

/* --- help --------------------------------------------------------------------------- */

/* All mistakes in @text, a line each; "" if it is good. The config is the caller's. */
static const char *said_of(const char *text, size_t length, struct config *config)
{
	static char said[8192];
	struct mistakes mistakes = { .file = "f" };
	struct node *tree = yaml_parse(text, length, &mistakes);
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

static void assert_good(const char *text)
{
	struct config config;
	const char *said = said_of(text, strlen(text), &config);

	config_release(&config);
	if (*said)
		fail_msg("%s--- said of:\n%s", said, text);
}

/* @wanted is part of what is said of @text. */
static void assert_says(const char *text, const char *wanted)
{
	struct config config;
	const char *said = said_of(text, strlen(text), &config);

	config_release(&config);
	if (!strstr(said, wanted))
		fail_msg("'%s' is not in:\n%s--- said of:\n%s", wanted, said, text);
}

/* --- files that are good ------------------------------------------------------------ */

static void everything(void **state)
{
	static const char text[] =
		"loops: 2\n"
		"cpus: 0,2-3\n"
		"engine: threads\n"
		"poll: 0\n"
		"api: /run/p.sock\n"
		"log-level: debug\n"
		"vms:\n" /* before the disks */
		"  web:\n"
		"    - {virtio-blk: db, socket: /run/a, queues: 4, queue-size: 64, serial: x}\n"
		"    - virtio-blk: iso\n"
		"      socket: /run/b\n"
		"  log:\n"
		"    - {virtio-blk: iso, socket: /run/c}\n"
		"disks:\n"
		"  db:\n"
		"    size: 20G\n"
		"    block-size: 4096\n"
		"    cache: writethrough\n"
		"    stack:\n"
		"      - pass\n"
		"      - pass:\n"
		"      - pass: {}\n"
		"      - file: {path: 'a b.img', create: yes}\n"
		"  iso:\n"
		"    stack: [pass, iso: {path: c.iso}]\n";
	struct config config;

	(void)state;
	assert_string_equal(said_of(text, strlen(text), &config), "");
	assert_int_equal(config.loops, 2);
	assert_string_equal(config.cpus, "0,2-3");
	assert_int_equal(config.engine, LOOP_THREADS);
	assert_int_equal(config.poll, 0);
	assert_string_equal(config.api, "/run/p.sock");

	assert_int_equal(config.disk_count, 2);
	assert_string_equal(config.disks[0].name, "db");
	assert_int_equal(config.disks[0].config.size, 20ull << 30);
	assert_int_equal(config.disks[0].config.block_size, DISK_BLOCK_4096);
	assert_int_equal(config.disks[0].config.cache, DISK_WRITETHROUGH);
	assert_int_equal(config.disks[0].stack.count, 4);
	assert_string_equal(config.disks[0].stack.layers[2].ops->name, "pass");
	assert_string_equal(config.disks[0].stack.layers[3].ops->name, "file");
	assert_int_equal(config.disks[0].stack.layers[3].count, 2);
	assert_string_equal(config.disks[0].stack.layers[3].settings[0].value, "a b.img");
	assert_int_equal(config.disks[0].stack.layers[3].settings[1].line, 23);
	assert_true(config.disks[1].config.read_only);

	assert_int_equal(config.vm_count, 2);
	assert_int_equal(config.vms[0].count, 2);
	assert_int_equal(config.vms[0].devices[0].units[0].disk, 0);
	assert_string_equal(setting(&config.vms[0].devices[0], "queues"), "4");
	assert_string_equal(setting(&config.vms[0].devices[0], "queue-size"), "64");
	assert_string_equal(config.vms[0].devices[1].socket, "/run/b");
	assert_int_equal(config.vms[1].devices[0].units[0].disk, 1);
	config_release(&config);
}

/* One unit, several, empty drives, none; a disk that cannot be written is in two VMs. */
static void units(void **state)
{
	static const char text[] =
		"disks:\n"
		"  a: {stack: [null]}\n"
		"  cd: {stack: [iso: {path: x}]}\n"
		"vms:\n"
		"  v:\n"
		"    - {virtio-scsi: [a, {disk: cd, target: 3, lun: 1}, {type: cdrom, target: 4}], socket: s}\n"
		"    - {virtio-scsi: [], socket: t}\n"
		"  w:\n"
		"    - {virtio-scsi: cd, socket: u}\n";
	const struct config_device *device;
	struct config config;
	char value[20];

	(void)state;
	assert_string_equal(said_of(text, strlen(text), &config), "");
	device = &config.vms[0].devices[0];
	assert_string_equal(device->name, "virtio-scsi0");
	assert_int_equal(device->count, 3);
	assert_int_equal(device->units[0].disk, 0);
	assert_int_equal(device->units[1].disk, 1);
	assert_int_equal(device->units[2].disk, CONFIG_NO_DISK);
	options_get(options_find(device->frontend->unit_options, "lun"), device->units[1].settings,
		    value, sizeof value);
	assert_string_equal(value, "1");
	assert_string_equal(config.vms[0].devices[1].name, "virtio-scsi1");
	assert_int_equal(config.vms[0].devices[1].count, 0);
	assert_int_equal(config.vms[1].devices[0].count, 1);
	assert_true(config.disks[1].config.read_only);
	config_release(&config);
}

/* The embedded configuration, the example that is installed, and those of every layer and device.
 */
static void examples(void **state)
{
	char text[8192], *vms;
	FILE *file = fopen(EXAMPLE, "r");

	(void)state;
	assert_good(config_embedded);
	assert_non_null(file);
	text[fread(text, 1, sizeof text - 1, file)] = 0;
	fclose(file);
	assert_good(text);
	for (unsigned i = 0; layer_registry[i]; i++) {
		const char *example = layer_registry[i]->example;
		char name[64];

		/* "disks:\n  NAME:" */
		assert_int_equal(sscanf(example, "disks: %63[^:]", name), 1);
		assert_true(asprintf(&vms, "%svms: {v: [{virtio-blk: %s, socket: s}]}\n", example,
				     name) > 0);
		assert_good(vms);
		assert_non_null(strstr(example, layer_registry[i]->name));
		free(vms);
	}
	for (unsigned i = 0; frontend_registry[i]; i++)
		assert_good(frontend_registry[i]->example);
}

/* --- files that are wrong ----------------------------------------------------------- */

static void wrong_files(void **state)
{
	static const struct {
		const char *text, *said;
	} files[] = {
		{ "", "f:1: the file is empty" },
		{ "# nothing\n", "f:1: the file is empty" },
		{ "text",
		  "f:1: found a single value; expected 'disks:' or 'switches:', and 'vms:' or 'nbd:' at least" },
		{ "- a\n", "f:1: found a list" },
		{ DISKS, "f:1: 'vms' is missing" },
		{ VMS, "f:1: 'disks' is missing" },
		{ "disks: []\n" VMS, "f:1: disks: found a list" },
		{ "disks:\n" VMS, "f:1: disks: found nothing" },
		{ DISKS "vms: x\n", "f:2: vms: found a single value" },
		{ DISKS VMS "loop: 1\n", "f:3: no option 'loop'; did you mean 'loops'?" },
		{ DISKS VMS "loops: x\n", "f:3: loops: 'x' is not understood" },
		{ DISKS VMS "loops: {}\n", "f:3: loops: found a mapping" },
		{ DISKS VMS "cpus: 3-1\n", "f:3: cpus: '3-1'" },
		{ DISKS VMS "poll: 2000000\n", "f:3: poll: '2000000' is out of range" },
		{ DISKS VMS "api: ''\n", "f:3: api: ''" },
		/* disks */
		{ "disks:\n  a: {stack: [null]}\n  'a/b': {stack: [null]}\n" VMS,
		  "f:3: disks: 'a/b' cannot be a name" },
		{ "disks: {'': {stack: [null]}}\n" VMS, "'' cannot be a name" },
		{ "disks: {\"a\\n\": {stack: [null]}}\n" VMS, "cannot be a name" },
		{ "disks: {-a: {stack: [null]}}\n" VMS, "'-a' cannot be a name" },
		{ "disks: {a: null}\n" VMS, "disk 'a': found a single value" },
		{ "disks:\n  a:\n    size: 1000\n    stack: [null]\n" VMS,
		  "f:3: disk 'a': size: '1000' is out of range" },
		{ "disks:\n  a:\n    size: 4608\n    block-size: 4096\n    stack: [null]\n" VMS,
		  "f:3: disk 'a': size: '4608' is not a multiple of the block size, 4096" },
		{ "disks:\n  a:\n    size: 5K\n    stack: [iso: {path: x}]\n" VMS,
		  "f:3: disk 'a': size: '5K' is not a multiple of the block size, 2048" },
		{ "disks:\n  a:\n    block-size: 1024\n    stack: [null]\n" VMS,
		  "f:3: disk 'a': block-size: '1024'" },
		{ "disks:\n  a:\n    stack: [iso: {path: x, create: true}]\n" VMS,
		  "f:3: disk 'a': stack: iso: no option 'create'; expected: path" },
		{ "disks:\n  a: {}\n" VMS, "f:2: disk 'a': option 'stack' is missing" },
		{ "disks:\n  a:\n    stack: null\n" VMS,
		  "f:3: disk 'a': stack: found a single value" },
		{ "disks:\n  a:\n    stack: []\n" VMS, "f:3: disk 'a': stack: the list is empty" },
		{ "disks:\n  a:\n    stack:\n      - pas\n      - null\n" VMS,
		  "f:4: disk 'a': stack: no layer or back-end 'pas'; did you mean 'pass'?" },
		{ "disks:\n  a:\n    stack:\n      - null\n      - null\n" VMS,
		  "f:4: disk 'a': stack: null is a back-end" },
		{ "disks:\n  a:\n    stack:\n      - null\n      - pass\n" VMS,
		  "f:5: disk 'a': stack: pass is not a back-end" },
		{ "disks:\n  a:\n    stack:\n      - {pass: {}, null: {}}\n" VMS,
		  "f:4: disk 'a': stack: expected one layer" },
		{ "disks:\n  a:\n    stack:\n      - [null]\n" VMS,
		  "f:4: disk 'a': stack: expected one" },
		{ "disks:\n  a:\n    stack:\n      - pass: {speed: 9}\n      - null\n" VMS,
		  "f:4: disk 'a': stack: pass: no option 'speed'; there are none here" },
		{ "disks:\n  a:\n    stack:\n      - null:\n          sise: 4G\n" VMS,
		  "f:5: disk 'a': stack: null: no option 'sise'; did you mean 'size'?" },
		{ "disks:\n  a:\n    stack:\n      - file: x.img\n" VMS,
		  "f:4: disk 'a': stack: file: found a single value" },
		{ "disks:\n  a:\n    stack:\n      - file: {size: 1G}\n" VMS,
		  "f:4: disk 'a': stack: file: option 'path' is missing" },
		{ "disks:\n  a:\n    stack:\n      - file: {path: [x]}\n" VMS,
		  "f:4: disk 'a': stack: file: path: found a list; expected a text" },
		/* VMs */
		{ DISKS "vms:\n  v: []\n", "f:3: VM 'v': the list is empty" },
		{ DISKS "vms:\n  v:\n    - s\n", "f:4: VM 'v': found a single value" },
		{ DISKS "vms:\n  v:\n    - {socket: s}\n",
		  "f:4: VM 'v': the kind of the device is missing" },
		{ DISKS "vms:\n  v:\n    - {virtio-blk: a}\n",
		  "f:4: VM 'v': option 'socket' is missing" },
		{ DISKS "vms:\n  v:\n    - {virtio-blk: [a], socket: s}\n",
		  "f:4: VM 'v': found a list; expected virtio-blk: the name of a disk" },
		{ DISKS "vms:\n  v:\n    - {virtio-nat: a, virtio-blk: a, socket: s}\n",
		  "f:4: VM 'v': no option 'virtio-nat'" },
		{ DISKS "vms:\n  v:\n    - virtio-blk: a\n      socket: s\n      queue-size: 48\n",
		  "f:6: VM 'v': queue-size: '48' is not a power of two" },
		{ DISKS
		  "vms:\n  v:\n    - {virtio-blk: a, socket: s}\n    - {virtio-blk: a, socket: t}\n",
		  "f:5: VM 'v': disk 'a' is a device of VM 'v' already" },
		{ "disks: {a: {read-only: true, stack: [null]}}\n"
		  "vms:\n  v:\n    - {virtio-blk: a, socket: s}\n    - {virtio-blk: a, socket: t}\n",
		  "f:5: VM 'v': disk 'a' is a device of VM 'v' already" },
		/* units */
		{ SCSI("[a, {disk: b, lun: 1}, {disk: a, lun: 2}]"),
		  "f:6: VM 'v': disk 'a' is a device of VM 'v' already" },
		{ SCSI("[{disk: b, lnu: 1}]"),
		  "f:6: VM 'v': no option 'lnu'; did you mean 'lun'?" },
		{ SCSI("[{disk: b, lun: x}]"), "f:6: VM 'v': lun: 'x'" },
		{ SCSI("[{disk: b, type: floppy}]"), "f:6: VM 'v': type: 'floppy'" },
		{ SCSI("[{disk: [b]}]"), "f:6: VM 'v': found a list; expected the name of a disk" },
		{ SCSI("[[b]]"), "f:6: VM 'v': found a list; expected virtio-scsi" },
		{ SCSI("[c]"), "f:6: VM 'v': virtio-scsi: no disk 'c'" },
		{ SCSI("[{disk: c}]"), "f:6: VM 'v': virtio-scsi: no disk 'c'" },
		{ SCSI("[cd, {disk: cd, target: 1}]"), "disk 'cd' is a device of VM 'v' already" },
		{ SCSI("a, socket: t}, {virtio-blk: a"),
		  "f:6: VM 'v': disk 'a' is a device of VM 'v' already" },
		{ DISKS "vms: {v: [{virtio-blk: a, socket: "
			"/a2345678901234567890123456789012345678901234567890123456789/"
			"a2345678901234567890123456789012345678901234567890123456789}]}\n",
		  "socket: the path has 120 bytes" },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof files / sizeof *files; i++)
		assert_says(files[i].text, files[i].said);
}

/* What YAML can do and a configuration has no use for; and what is no YAML. */
static void nasty_yaml(void **state)
{
	static const struct {
		const char *text, *said;
	} files[] = {
		{ "a: &x 1\nb: 2\n", "f:1: anchors (&)" },
		{ "a: *x\n", "f:1: anchors (&), aliases (*)" },
		{ "a: !!int 1\n", "f:1: anchors (&), aliases (*) and tags (!)" },
		{ "a: !<tag:x,2000:y> [1]\n", "f:1: anchors" },
		{ "a: 1\na: 2\n", "f:2: 'a' is given twice (first on line 1)" },
		{ "? [a]\n: 1\n", "f:1: expected the name of an option, not a list" },
		{ "{{a: 1}: 2}\n", "f:1: expected the name of an option, not a mapping" },
		{ "a: 1\n---\nb: 2\n", "f:2: a second document begins" },
		{ "a: 1\n...\nb: 2\n", "f:3: not YAML" },
		{ "a: [1\n", "not YAML" },
		{ "a: 'b\n", "not YAML" },
		{ "\ta: 1\n", "f:1: not YAML" },
		{ "a: b: c\n", "f:1: not YAML" },
		{ "a: \"\\0\"\n", "f:1: a text must not contain a NUL" },
		{ "a: \xff\xfe\n", "not YAML" },
		{ "[[[[[[[[[[[[[[[[[[[[", "f:1: nested more than 16 deep" },
		{ "%TAG ! tag:x:\n--- !a b\n", "anchors" },
	};
	static const char nul[] = "a: b\0c\n";
	struct config config;

	(void)state;
	for (unsigned i = 0; i < sizeof files / sizeof *files; i++)
		assert_says(files[i].text, files[i].said);
	assert_non_null(strstr(said_of(nul, sizeof nul - 1, &config), "not YAML"));
	config_release(&config);
}

/* As large as a file may be, of what costs most, it ends soon and with a message. */
static void large_yaml(void **state)
{
	size_t length = 1 << 20, n = 0;
	char *text = malloc(length + 32);
	struct config config;

	(void)state;
	assert_non_null(text);
	for (unsigned i = 0; n < length; i++)
		n += (size_t)sprintf(text + n, "%x:\n", i);
	assert_non_null(strstr(said_of(text, n, &config), "more than 8192 names"));
	config_release(&config);
	memset(text, '[', length);
	assert_non_null(strstr(said_of(text, length, &config), "deep"));
	config_release(&config);
	memset(text, 'a', length);
	assert_non_null(strstr(said_of(text, length, &config), "found a single value"));
	config_release(&config);
	free(text);
}

/* Any beginning of a good file is good or has a mistake; nothing else happens. */
static void cut_off(void **state)
{
	struct config config;

	(void)state;
	for (size_t length = 0; length <= strlen(config_embedded); length++) {
		said_of(config_embedded, length, &config);
		config_release(&config);
	}
}

static void all_mistakes_at_once(void **state)
{
	static const char text[] = "lops: 1\n"
				   "disks: {a: {cache: fast, stack: [nul]}}\n"
				   "vms: {v: [{virtio-blk: b, socket: s, queues: 0}]}\n";
	struct config config;
	const char *said = said_of(text, strlen(text), &config);
	unsigned lines = 0;

	(void)state;
	config_release(&config);
	for (const char *c = said; *c; c++)
		lines += *c == '\n';
	assert_int_equal(lines, 5);
}

/* --- the command line --------------------------------------------------------------- */

/* What is said of `penstock serve PATH --socket s OPTION...`; the config is the caller's. */
static const char *said_of_serve(const char *path, const char *const *options, unsigned count,
				 struct config *config)
{
	static char said[2048];
	struct mistakes mistakes = { 0 };
	const struct serve_at at = { .socket = "s" };
	struct node *tree = serve_tree(path, &at, (char *const *)options, count, &mistakes);

	*config = (struct config){ 0 };
	config_init(config);
	if (tree)
		config_read(config, tree, &mistakes);
	node_free(tree);
	snprintf(said, sizeof said, "%s", mistakes.count ? mistakes.texts[0] : "");
	mistakes_release(&mistakes);
	return said;
}

static void serve_options(void **state)
{
	static const char *const options[] = { "size=4G", "block-size=4096", "queues=2",
					       "stack=pass,pass", "serial=q" };
	static const char *const image[] = { "size=4G", "direct=off", "create=true" };
	struct config config;

	(void)state;
	assert_string_equal(said_of_serve("null:", options, 5, &config), "");
	assert_string_equal(config.disks[0].name, SERVE_DISK);
	assert_int_equal(config.disks[0].config.size, 0); /* it is the back-end's */
	assert_int_equal(config.disks[0].config.block_size, DISK_BLOCK_4096);
	assert_int_equal(config.disks[0].stack.count, 3);
	assert_string_equal(config.disks[0].stack.layers[0].ops->name, "pass");
	assert_string_equal(config.disks[0].stack.layers[2].ops->name, "null");
	assert_string_equal(config.disks[0].stack.layers[2].settings[0].value, "4G");
	assert_string_equal(config.vms[0].name, SERVE_VM);
	assert_string_equal(config.vms[0].devices[0].socket, "s");
	assert_string_equal(setting(&config.vms[0].devices[0], "queues"), "2");
	config_release(&config);

	/* Of an image that is there the size is the disk's; of one to be made, the back-end's. */
	assert_string_equal(said_of_serve(EXAMPLE, image, 2, &config), "");
	assert_int_equal(config.disks[0].config.size, 4ull << 30);
	assert_string_equal(config.disks[0].stack.layers[0].settings[0].value, EXAMPLE);
	config_release(&config);
	assert_string_equal(said_of_serve("/nonesuch/new.img", image, 3, &config), "");
	assert_int_equal(config.disks[0].config.size, 0);
	assert_int_equal(config.disks[0].stack.layers[0].count, 4);
	config_release(&config);
}

static void serve_mistakes(void **state)
{
	static const struct {
		const char *path, *option, *said;
	} wrong[] = {
		{ "null:", "sise=4G", "no option 'sise'; did you mean 'size'?" },
		{ "null:", "direct=on", "no option 'direct'" },
		{ "null:", "size", "'size' is not understood; expected option=value" },
		{ "null:", "size=", "size: '' is not understood" },
		{ "null:", "=4G", "no option ''" },
		{ "null:", "queues=0", "queues: '0' is out of range" },
		{ "iso:", "queues=1", "iso:: no such image" },
		{ "null:", "stack=null", "null is a back-end" },
		{ "null:", "stack=pas", "no layer or back-end 'pas'; did you mean 'pass'?" },
		{ "null:", "socket=t", "'socket' is given twice" },
		{ "/nonesuch/x.img", "queues=1",
		  "/nonesuch/x.img: no such image; to make a new one" },
		{ "/nonesuch/x.img", "create=true", "its size is missing" },
		{ "", "queues=1", "no such image" },
		{ "nul:", "queues=1", "nul:: no such image" },
	};
	struct config config;

	(void)state;
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		const char *said = said_of_serve(wrong[i].path, &wrong[i].option, 1, &config);

		config_release(&config);
		if (!strstr(said, wrong[i].said))
			fail_msg("%s %s: '%s' is not in: %s", wrong[i].path, wrong[i].option,
				 wrong[i].said, said);
	}
}

static void cpus(void **state)
{
	static const char *const bad[] = { "",
					   ",",
					   "1,",
					   ",1",
					   "-1",
					   "1-",
					   "2-1",
					   "1024",
					   "a",
					   "1 2",
					   "0-1-2",
					   "0-1023,0",
					   "99999999999999999999" };
	unsigned list[CONFIG_CPUS];

	(void)state;
	assert_int_equal(config_cpus("3", list), 1);
	assert_int_equal(list[0], 3);
	assert_int_equal(config_cpus("2,0-1,7", list), 4);
	assert_int_equal(list[0], 2);
	assert_int_equal(list[2], 1);
	assert_int_equal(list[3], 7);
	assert_int_equal(config_cpus("0-1023", list), 1024);
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
		if (config_cpus(bad[i], list))
			fail_msg("'%s' is taken", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything),    cmocka_unit_test(units),
		cmocka_unit_test(examples),      cmocka_unit_test(wrong_files),
		cmocka_unit_test(nasty_yaml),    cmocka_unit_test(large_yaml),
		cmocka_unit_test(cut_off),       cmocka_unit_test(all_mistakes_at_once),
		cmocka_unit_test(serve_options), cmocka_unit_test(serve_mistakes),
		cmocka_unit_test(cpus),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
