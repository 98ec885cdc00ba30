/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * qemu.c - the options that attach a VM of QEMU to its devices
 *
 * vhost-user needs the guest's memory to be shared, so it is a memory object of QEMU's, and
 * -m must say the same size. Paths become absolute, for QEMU to be started anywhere.
 * reconnect-ms=1000 lets the guest go on after a restart of penstock, where the device can do that
 * (frontend.h, reconnects). QEMU knows it since 9.2; before it was reconnect=1, which QEMU 10 does
 * not know any more. Devices on vfio-user take a QEMU of 10.1 or later in any case.
 *
 * A NIC has a netdev between its chardev and its device. What stands for {queue-pairs} and the like
 * in the front-end's row are its options; {vectors} is what that many pairs need: one for each
 * queue, the control queue and changes of the configuration.
 */
#include "control/qemu.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/client_private.h"
#include "control/config.h"
#include "control/daemon.h"
#include "control/invocation.h"
#include "packet/frame.h"
#include "util/must.h"
#include "util/suggest.h"

static int append(json_t *args, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int append(json_t *args, const char *format, ...)
{
	va_list list;
	json_t *text;

	va_start(list, format);
	text = json_vsprintf(format, list);
	va_end(list);
	return json_array_append_new(args, text);
}

/* In an option of QEMU's that is no JSON a comma is doubled. */
static void absolute_path(const char *path, bool commas, char *text, size_t size)
{
	char directory[PATH_MAX] = "";
	size_t n = 0;

	if (*path != '/' && getcwd(directory, sizeof directory) && !strncmp(path, "./", 2))
		path += 2;
	if (*directory)
		n = (size_t)snprintf(text, size, "%s/", directory);
	for (; *path && n < size - 2; path++) {
		if (*path == ',' && commas)
			text[n++] = ',';
		text[n++] = *path;
	}
	text[n] = 0;
}

/* The NIC of a device, or NULL. */
static const struct config_port *nic_of(const struct config *config,
					const struct config_device *device)
{
	return device->frontend->nic ? &config->nics[device->units[0].nic] : NULL;
}

static uint64_t queue_pairs(const struct config_device *device)
{
	const struct option *row = options_find(device->frontend->options, "queue-pairs");

	return row ? *(const uint64_t *)((const char *)device->settings + row->offset) : 1;
}

/* What stands for {@name} in the front-end's -device: an option of the device, or what joins it to
 * what is before it on the command line. */
static void value_of(const struct config *config, const struct config_device *device,
		     const char *chardev, const char *name, char *text, size_t size)
{
	const struct option *row = options_find(device->frontend->options, name);
	const struct config_port *nic = nic_of(config, device);
	uint8_t mac[6];

	*text = 0;
	if (!strcmp(name, "chardev")) {
		snprintf(text, size, "%s", chardev);
	} else if (nic && !strcmp(name, "netdev")) {
		snprintf(text, size, "%s-net", chardev);
	} else if (nic && !strcmp(name, "mac")) {
		nic_mac(&nic->nic, nic->name, mac);
		mac_format(mac, text);
	} else if (nic && !strcmp(name, "vectors")) {
		snprintf(text, size, "%" PRIu64, 2 * queue_pairs(device) + 2);
	} else if (row) {
		options_get(row, device->settings, text, size);
	}
}

/* The front-end's -device, with all names in braces replaced. The caller's. */
static char *device_text(const struct config *config, const struct config_device *device,
			 const char *chardev)
{
	const char *at = device->frontend->qemu_device;
	char *text = NULL, name[64], value[256];
	size_t length;
	FILE *out = must(open_memstream(&text, &length));

	while (*at) {
		size_t plain = strcspn(at, "{");

		fwrite(at, 1, plain, out);
		at += plain;
		if (!*at)
			break;
		length = strcspn(at, "}");
		snprintf(name, sizeof name, "%.*s", (int)length - 1, at + 1);
		value_of(config, device, chardev, name, value, sizeof value);
		fputs(value, out);
		at += length + 1;
	}
	fclose(out);
	return text;
}

/* ",host_mtu=9000" if the NIC has another MTU than all have. */
static void write_mtu(const struct daemon *daemon, const struct config_port *nic, char *text,
		      size_t size)
{
	const struct port *port = nic && daemon ? daemon_port(daemon, nic->name) : NULL;
	struct port_config usual = { 0 };
	uint64_t now;

	*text = 0;
	if (!nic)
		return;
	now = port ? port->config.mtu : nic->config.mtu;
	options_init(port_options, &usual);
	if (now != usual.mtu)
		snprintf(text, size, ",host_mtu=%" PRIu64, now);
	options_release(port_options, &usual);
}

static bool takes_vfio_user(const struct config_vm *vm)
{
	for (unsigned i = 0; i < vm->count; i++)
		if (!vm->devices[i].frontend->qemu_device)
			return true;
	return false;
}

/* vhost-user: a socket as a chardev, and a device on it; of a NIC a netdev between them. */
static int append_chardev(json_t *args, const struct config *config, const struct daemon *daemon,
			  const struct config_vm *vm, unsigned index, const char *path,
			  const struct qemu_wish *wish)
{
	const struct config_device *device = &vm->devices[index];
	const struct config_port *nic = nic_of(config, device);
	bool new = wish->version >= QEMU_VERSION(9, 2) || takes_vfio_user(vm);
	char chardev[128], mtu[40], *text;
	int failed;

	snprintf(chardev, sizeof chardev, "%s-%u", vm->name, index);
	text = device_text(config, device, chardev);
	write_mtu(daemon, nic, mtu, sizeof mtu);
	failed = append(args, "-chardev") | append(args, "socket,id=%s,path=%s%s", chardev, path,
						   !device->frontend->reconnects ? ""
						   : new ? ",reconnect-ms=1000"
							 : ",reconnect=1");
	if (nic)
		failed |= append(args, "-netdev") |
			  append(args, "type=vhost-user,id=%s-net,chardev=%s,queues=%" PRIu64,
				 chardev, chardev, queue_pairs(device));
	failed |= append(args, "-device") | append(args, "%s%s", text, mtu);
	free(text);
	return failed;
}

/* vfio-user: the device connects itself, and takes its options as JSON only. */
static int append_vfio(json_t *args, const char *path)
{
	json_t *json = json_pack("{s:s, s:{s:s, s:s}}", "driver", "vfio-user-pci", "socket", "type",
				 "unix", "path", path);
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	int failed = !text || append(args, "-device") || append(args, "%s", text);

	json_decref(json);
	free(text);
	return failed;
}

static int append_device(json_t *args, const struct config *config, const struct daemon *daemon,
			 const struct config_vm *vm, unsigned index, const struct qemu_wish *wish)
{
	const struct config_device *device = &vm->devices[index];
	char path[PATH_MAX + 256];

	if (!device->frontend->qemu_device) {
		absolute_path(device->socket, false, path, sizeof path);
		return append_vfio(args, path);
	}
	absolute_path(device->socket, true, path, sizeof path);
	return append_chardev(args, config, daemon, vm, index, path, wish);
}

/* What not every QEMU can do; NULL if each can. The caller's. */
static json_t *note_of(const struct config_vm *vm)
{
	char names[300] = "";
	size_t n = 0;

	for (unsigned i = 0; i < vm->count && n < sizeof names; i++)
		if (!vm->devices[i].frontend->qemu_device)
			n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "",
					      vm->devices[i].name);
	return n ? json_sprintf("%s: this takes QEMU 10.1 or later, which has vfio-user-pci", names)
		 : NULL;
}

json_t *qemu_args(const struct config *config, const struct daemon *daemon,
		  const struct config_vm *vm, const struct qemu_wish *wish)
{
	json_t *args = json_array();
	char size[32];
	int failed;

	/* QEMU's suffixes are ours. */
	format_size(wish->memory, size, sizeof size);
	failed = append(args, "-m") | append(args, "size=%s", size) | append(args, "-object") |
		 append(args, "memory-backend-memfd,id=mem0,size=%s,share=on", size) |
		 append(args, "-machine") | append(args, "memory-backend=mem0");
	for (unsigned i = 0; i < vm->count; i++)
		failed |= append_device(args, config, daemon, vm, i, wish);
	if (!failed)
		return json_pack("{s:s, s:o, s:o*}", "vm", vm->name, "args", args, "note",
				 note_of(vm));
	json_decref(args);
	return NULL;
}

/* As a shell would read it back: in single quotes, where anything in it is special. */
static void print_quoted(const char *text)
{
	if (!text[strspn(
		    text,
		    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=,./:+@%")]) {
		fputs(text, stdout);
		return;
	}
	putchar('\'');
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*text);
	}
	putchar('\'');
}

void qemu_print_args(const json_t *answer)
{
	const json_t *args = json_object_get(answer, "args");
	const char *note = client_text(answer, "note");

	for (size_t i = 0; i < json_array_size(args); i++) {
		const char *text = json_string_value(json_array_get(args, i));

		if (i)
			fputs(*text == '-' ? " \\\n" : " ", stdout);
		print_quoted(text);
	}
	putchar('\n');
	if (*note)
		fprintf(stderr, "penstock: note: %s\n", note);
}

/* What the user said of the QEMU; what is installed here, if nothing. 0, or 2 and a complaint. */
static int wish_of(const struct invocation *in, struct qemu_wish *wish)
{
	wish->memory = in->memory;
	if (!in->qemu) {
		wish->version = qemu_version_here();
	} else if (!qemu_version_parse(in->qemu, &wish->version)) {
		fprintf(stderr,
			"penstock: --qemu: '%s' is not understood; expected a version such as 7.2\n",
			in->qemu);
		return 2;
	}
	return 0;
}

int qemu_print(const struct config *config, const struct invocation *in)
{
	const char *name = in->arguments[0];
	struct suggestion nearest = suggest_for(name);
	struct qemu_wish wish;

	if (wish_of(in, &wish))
		return 2;
	for (unsigned i = 0; i < config->vm_count; i++) {
		json_t *args;

		suggest_offer(&nearest, config->vms[i].name);
		if (strcmp(config->vms[i].name, name))
			continue;
		args = must(qemu_args(config, NULL, &config->vms[i], &wish));
		qemu_print_args(args);
		json_decref(args);
		return 0;
	}
	fprintf(stderr, "penstock: %s: no VM '%s'%s%s%s\n", config->file, name,
		nearest.best ? "; did you mean '" : "", nearest.best ? nearest.best : "",
		nearest.best ? "'?" : "");
	return 2;
}

int client_qemu_args(const struct invocation *in)
{
	struct qemu_wish wish;
	json_t *answer;
	char *path;

	if (!client_name(in->arguments[0]) || wish_of(in, &wish))
		return 2;
	path = client_path("/v1/vms/%s/qemu-args?memory=%" PRIu64 "&qemu=%u.%u", in->arguments[0],
			   wish.memory, wish.version / 100, wish.version % 100);
	answer = client_ask(in, "GET", path, "");
	free(path);
	if (!answer)
		return 1;
	qemu_print_args(answer);
	json_decref(answer);
	return 0;
}
