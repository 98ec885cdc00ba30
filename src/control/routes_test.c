/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * routes_test.c - the control API without its server: paths, disks that come and go, and units of
 * devices that change, on a device that does what the test tells it
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "control/config.h"
#include "control/daemon.h"
#include "control/json_tree.h"
#include "control/mistakes.h"
#include "control/records.h"
#include "control/routes.h"
#include "control/yaml.h"
#include "frontend/device.h"
#include "transport/transport.h"
#include "util/error.h"

#define UNITS  "/v1/vms/web/devices/fake0/units/"
#define OTHERS "/v1/vms/db/devices/fake0/units/"

/* --- a device that does as it is told -------------------------------------------------- */

static struct device_change *pending; /* under way, until end() */
static struct device_unit *pending_unit;
static struct disk *pending_disk;
static bool pending_detach;
static int refusal; /* what it answers next: 0 takes it */

/* The change ends as the device says. */
static void end(int status)
{
	struct device_change *change = pending;

	assert_non_null(change);
	pending = NULL;
	if (!status) {
		pending_unit->disk = pending_disk;
		pending_unit->present = !pending_detach;
	}
	change->status = status;
	change->done(change);
}

static int take(struct device *device, unsigned unit, struct disk *disk, bool detach,
		struct device_change *change, struct error *err)
{
	if (refusal)
		return error_set(err, -refusal, "the fake refuses");
	assert_null(pending);
	pending = change;
	pending_unit = &device->units[unit];
	pending_disk = disk;
	pending_detach = detach;
	return 0;
}

static int set_disk(struct device *device, unsigned unit, struct disk *disk,
		    struct device_change *change, struct error *err)
{
	return take(device, unit, disk, false, change, err);
}

static int detach(struct device *device, unsigned unit, struct device_change *change,
		  struct error *err)
{
	return take(device, unit, NULL, true, change, err);
}

static int attach(struct device *device, unsigned unit, struct disk *disk, struct error *err)
{
	if (refusal)
		return error_set(err, -refusal, "the fake refuses");
	device->units[unit].present = true;
	device->units[unit].disk = disk;
	return 0;
}

static const struct device_ops fake_ops = { .set_disk = set_disk,
					    .attach = attach,
					    .detach = detach };
static const struct device_ops stiff_ops = { 0 };
static const struct transport fake_transport = { .name = "none" };
static const struct frontend fake_frontend = { .name = "fake",
					       .transport = &fake_transport,
					       .units = 4,
					       .empty_units = true,
					       .hot_plug = true };

/* --- two VMs with such a device each, and disks ---------------------------------------- */

static struct config_vm vms[] = { { .name = (char *)"web" }, { .name = (char *)"db" } };
static struct config_device device_config = { .frontend = &fake_frontend };
static struct config config = { .vms = vms, .vm_count = 2 };
static struct daemon daemon_of_test;

static int set_up(void **state)
{
	static const char *const names[] = { "master", "slave", "2:0", "3:0" };
	struct loop_config loop = { .name = "test", .engine = LOOP_THREADS, .cpu = -1 };
	struct daemon *d = &daemon_of_test;

	(void)state;
	*d = (struct daemon){ .config = &config, .holds = 1, .device_count = 2 };
	list_init(&d->openings);
	list_init(&d->closings);
	list_init(&d->records);
	list_init(&d->changes);
	d->control = loop_create(&loop, NULL);
	d->loops = &d->control;
	d->loop_count = 1;
	d->devices = calloc(2, sizeof *d->devices);
	for (unsigned i = 0; i < 2; i++) {
		struct device_plan plan = { .vm = vms[i].name, .name = "fake0", .socket = "s" };
		struct device *device = calloc(1, sizeof *device);

		device->kind = "fake";
		device->transport = "none";
		device->ops = &fake_ops;
		assert_int_equal(device_init(device, &plan, 4, 1, NULL), 0);
		for (unsigned u = 0; u < 4; u++) {
			snprintf(device->units[u].name, sizeof device->units[u].name, "%s",
				 names[u]);
			device->units[u].present = u < 2;
		}
		d->devices[i] = (struct daemon_device){ &vms[i], &device_config, device, NULL };
	}
	pending = NULL;
	refusal = 0;
	return 0;
}

static int tear_down(void **state)
{
	struct daemon *d = &daemon_of_test;

	(void)state;
	assert_null(pending);
	assert_int_equal(d->holds, 1);
	for (unsigned i = 0; i < 2; i++) {
		device_release(d->devices[i].device);
		free(d->devices[i].device);
	}
	free(d->devices);
	for (unsigned i = 0; i < d->disk_count; i++) {
		record_remove(d, d->disks[i]);
		disk_close(d->disks[i]);
	}
	free(d->disks);
	loop_destroy(d->control);
	return 0;
}

/* --- requests -------------------------------------------------------------------------- */

struct request {
	struct call call; /* first */
	unsigned status;  /* of an answer that came later */
};

static void answered(struct call *call, unsigned status)
{
	((struct request *)call)->status = status;
	loop_stop(call->daemon->control);
}

static unsigned begin(struct request *r, const char *method, const char *path, const char *body)
{
	*r = (struct request){ .call = { .daemon = &daemon_of_test,
					 .method = method,
					 .path = path,
					 .body = body,
					 .length = strlen(body),
					 .answered = answered,
					 .patience = 10000000000 } };
	return routes_answer(&r->call);
}

static void finish(struct request *r, const char *wanted)
{
	char *text = json_dumps(r->call.json, JSON_COMPACT);

	assert_non_null(text);
	if (!strstr(text, wanted))
		fail_msg("'%s' is not in the answer to %s %s:\n%s", wanted, r->call.method,
			 r->call.path, text);
	free(text);
	json_decref(r->call.json);
}

/* The answer, at once, is @status with @wanted in it. */
static void expect(const char *method, const char *path, const char *body, unsigned status,
		   const char *wanted)
{
	struct request r;

	assert_int_equal(begin(&r, method, path, body), status);
	finish(&r, wanted);
}

#define NULL_DISK "{\"stack\": [\"null\"]}"

/* Opens a disk, which takes a thread; the control loop runs here. */
static void add_disk(const char *name, const char *body, unsigned status, const char *wanted)
{
	struct request r;
	char path[100];

	snprintf(path, sizeof path, "/v1/disks/%s", name);
	assert_int_equal(begin(&r, "POST", path, body), 0);
	expect("POST", path, body, 409, "being opened");
	loop_run(daemon_of_test.control, NULL);
	assert_int_equal(r.status, status);
	finish(&r, wanted);
}

/* Closes one, likewise. */
static void remove_disk(const char *name)
{
	struct request r;
	char path[100];

	snprintf(path, sizeof path, "/v1/disks/%s", name);
	assert_int_equal(begin(&r, "DELETE", path, ""), 0);
	expect("DELETE", path, "", 404, "no disk");
	expect("POST", path, NULL_DISK, 409, "being closed");
	while (!r.status)
		loop_run(daemon_of_test.control, NULL);
	assert_int_equal(r.status, 200);
	finish(&r, name);
}

/* --- paths ----------------------------------------------------------------------------- */

static void paths(void **state)
{
	(void)state;
	expect("GET", "/v1/disks", "", 200, "[]");
	expect("HEAD", "/v1/disks", "", 200, "[]");
	expect("GET", "/v1/disk", "", 404, "there is no /v1/disk");
	expect("GET", "/v1/disks/", "", 404, "there is no");
	expect("GET", "/v1/disks/a/b/c", "", 404, "there is no");
	expect("GET", "", "", 404, "there is no");
	expect("GET", "/v1/disks/a", "", 404, "no disk 'a'");
	expect("PUT", "/v1/disks/a", "", 405, "only GET, HEAD, POST, DELETE");
	expect("GET", "/v1/vms/wbe", "", 404, "no VM 'wbe'; did you mean 'web'?");
	expect("GET", "/v1/vms/web", "", 200, "\"free-units\":[\"2:0\",\"3:0\"]");
	expect("GET", UNITS "master", "", 200, "\"unit\":\"master\"");
	expect("GET", UNITS "2:0", "", 200, "\"present\":false");
	expect("GET", UNITS "mastre", "", 404, "no unit 'mastre'; did you mean 'master'?");
	expect("GET", "/v1/vms/web/devices/fake1/units/master", "", 404,
	       "VM 'web': no device 'fake1'; did you mean 'fake0'?");
	expect("GET", "/v1/vms/wb/devices/fake0/units/master", "", 404, "no VM 'wb'");
	expect("POST", UNITS "master", "", 405, "only GET, HEAD, PUT");
	expect("GET", UNITS "master/attach", "", 405, "only POST");
}

/* --- disks ----------------------------------------------------------------------------- */

static void disks_come_and_go(void **state)
{
	(void)state;
	add_disk("a",
		 "{\"size\": 1048576, \"read-only\": true, \"stack\": [{\"pass\": null}, "
		 "{\"null\": {\"size\": \"1G\"}}]}",
		 200, "\"size\":1048576");
	expect("POST", "/v1/disks/a", NULL_DISK, 409, "there is a disk 'a' already");
	add_disk("b", "{\"stack\": [{\"file\": {\"path\": \"/nonesuch/x.img\"}}]}", 400,
		 "disk 'b': file: /nonesuch/x.img does not exist");
	expect("GET", "/v1/disks/b", "", 404, "no disk 'b'");
	expect("GET", "/v1/disks/a", "", 200, "\"read-only\":true");
	remove_disk("a");
	expect("DELETE", "/v1/disks/a", "", 404, "no disk 'a'");
	add_disk("a", NULL_DISK, 200, "\"name\":\"a\"");
}

static void disks_that_are_wrong(void **state)
{
	static const struct {
		const char *body, *said;
	} wrong[] = {
		{ "", "the body is not JSON" },
		{ "[]", "no object" },
		{ "{}", "disk 'a': option 'stack' is missing" },
		{ "{\"stack\": []}", "the list is empty" },
		{ "{\"stack\": \"null\"}", "disk 'a': stack: found a single value" },
		{ "{\"stack\": [\"nul\"]}", "did you mean 'null'?" },
		{ "{\"stack\": [\"null\"], \"sise\": 4096}", "disk 'a': no option 'sise'" },
		{ "{\"stack\": [\"null\"], \"size\": -1}", "size: '-1' is not understood" },
		{ "{\"stack\": [\"null\"], \"size\": 1e300}", "size: '1e+300'" },
		{ "{\"stack\": [\"null\"], \"cache\": true}", "cache: 'true'" },
		{ "{\"stack\": [\"null\"], \"cache\": {}}", "cache: found a mapping" },
		{ "{\"stack\": [\"null\"], \"stack\": [\"null\"]}", "the body is not JSON" },
		{ "{\"stack\": [{\"null\": {\"size\": null}}]}", "size: ''" },
		{ "{\"stack\": [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}", "nested more than 16" },
		{ "{\"cache\": 1, \"size\": 1, \"stack\": []}", "; disk 'a': " },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++)
		expect("POST", "/v1/disks/a", wrong[i].body, 400, wrong[i].said);
	expect("POST", "/v1/disks/-a", NULL_DISK, 400, "'-a' cannot be a name");
	expect("GET", "/v1/disks", "", 200, "[]");
}

/* What is there as YAML and as JSON is one tree; and back. */
static void trees(void **state)
{
	static const char text[] = "{a: [1, true, x, '', {b: 0.5}], c: {}, d: []}";
	static const char same[] =
		"{\"a\": [1, true, \"x\", null, {\"b\": 0.5}], \"c\": {}, \"d\": []}";
	struct mistakes mistakes = { 0 };
	struct node *yaml = yaml_parse(text, strlen(text), &mistakes), *read;
	json_t *json = json_loads(same, 0, NULL), *one, *two;

	(void)state;
	read = json_tree_read(json, &mistakes);
	assert_non_null(yaml);
	assert_non_null(read);
	one = json_tree_write(yaml);
	two = json_tree_write(read);
	assert_true(json_equal(one, two));
	json_decref(one);
	json_decref(two);
	json_decref(json);
	node_free(yaml);
	node_free(read);

	json = json_array();
	for (unsigned i = 0; i < 1025; i++)
		json_array_append_new(json, json_true());
	assert_null(json_tree_read(json, &mistakes));
	assert_non_null(strstr(mistakes.texts[0], "more than 1024"));
	json_decref(json);
	mistakes_release(&mistakes);
}

/* --- units ----------------------------------------------------------------------------- */

static void insert_and_eject(void **state)
{
	struct request r, other;

	(void)state;
	add_disk("a", NULL_DISK, 200, "a");
	add_disk("b", NULL_DISK, 200, "b");
	assert_int_equal(begin(&r, "PUT", UNITS "slave", "{\"disk\": \"a\"}"), 0);
	/* Both disks count as used until it is done, and the unit changes one thing at a time. */
	expect("DELETE", "/v1/disks/a", "", 409, "disk 'a' is in use: VM 'web': fake0/slave");
	expect("PUT", UNITS "slave", "{\"disk\": null}", 409, "a change of it is under way");
	expect("PUT", UNITS "master", "{\"disk\": \"a\"}", 409, "is a device of VM 'web' already");
	end(0);
	assert_int_equal(r.status, 200);
	finish(&r, "\"disk\":\"a\"");

	expect("PUT", UNITS "slave", "{\"disk\": \"a\"}", 200, "\"disk\":\"a\""); /* it is there */
	expect("DELETE", "/v1/disks/a", "", 409, "in use");
	expect("GET", "/v1/disks/a", "", 200,
	       "\"units\":[{\"vm\":\"web\",\"device\":\"fake0\",\"unit\":\"slave\"}]");
	assert_int_equal(begin(&r, "PUT", UNITS "slave", "{\"disk\": \"b\"}"), 0);
	assert_int_equal(begin(&other, "PUT", UNITS "master", "{\"disk\": \"a\"}"), 409);
	finish(&other, "is a device of VM 'web' already"); /* a is not free yet */
	end(0);
	finish(&r, "\"disk\":\"b\"");
	remove_disk("a");

	assert_int_equal(begin(&r, "PUT", UNITS "slave", "{\"disk\": null, \"force\": true}"), 0);
	assert_true(pending->force);
	end(0);
	assert_int_equal(r.status, 200);
	finish(&r, "\"unit\":\"slave\"");
	remove_disk("b");
}

static void what_cannot_be_done(void **state)
{
	static const struct {
		int status;
		const char *body, *said;
		unsigned http;
	} ends[] = {
		{ -EBUSY, "{\"disk\": null}", "the guest has locked the drive", 409 },
		{ -EBUSY, "{\"disk\": null, \"force\": true}", "busy with an earlier change", 409 },
		{ -EINVAL, "{\"disk\": null}", "its medium cannot be taken out", 400 },
		{ -EINVAL, "{\"disk\": \"b\"}", "it cannot take this disk", 400 },
		{ -ENODEV, "{\"disk\": null}", "nothing is attached", 409 },
		{ -EIO, "{\"disk\": null}", "VM 'web': fake0/slave: Input/output error", 500 },
	};
	static const char *const bodies[] = {
		"",
		"7",
		"{}",
		"{\"disk\": 1}",
		"{\"disk\": \"a\", \"force\": 1}",
		"{\"disk\": \"a\", \"dsk\": \"b\"}",
		"{\"force\": true}",
	};
	struct device *device = daemon_of_test.devices[0].device;
	struct request r;

	(void)state;
	add_disk("a", NULL_DISK, 200, "a");
	add_disk("b", NULL_DISK, 200, "b");
	device->units[1].disk = daemon_of_test.disks[0];
	for (unsigned i = 0; i < sizeof ends / sizeof *ends; i++) {
		assert_int_equal(begin(&r, "PUT", UNITS "slave", ends[i].body), 0);
		end(ends[i].status);
		assert_int_equal(r.status, ends[i].http);
		finish(&r, ends[i].said);
		assert_ptr_equal(device->units[1].disk, daemon_of_test.disks[0]);
	}
	for (unsigned i = 0; i < sizeof bodies / sizeof *bodies; i++)
		expect("PUT", UNITS "slave", bodies[i], 400, "error");
	expect("PUT", UNITS "slave", "{\"disk\": \"ab\"}", 404, "no disk 'ab'");
	expect("PUT", UNITS "2:0", "{\"disk\": null}", 409, "nothing is attached there");
	expect("POST", UNITS "2:0/attach", "{\"disk\": null, \"force\": true}", 400, "expected");
	expect("POST", UNITS "slave/attach", "{\"disk\": \"b\"}", 409, "it is there already");
	expect("POST", UNITS "slave/detach", "{}", 400, "there is a body");
	refusal = -EBUSY;
	expect("PUT", UNITS "slave", "{\"disk\": null}", 409, "fake0/slave: the fake refuses");
	expect("POST", UNITS "2:0/attach", "{\"disk\": null}", 409, "fake0/2:0: the fake refuses");
	expect("POST", UNITS "slave/detach", "", 409, "the fake refuses");
	device->ops = &stiff_ops;
	expect("PUT", UNITS "slave", "{\"disk\": null}", 409, "of this kind keeps its disk");
	expect("POST", UNITS "2:0/attach", "{\"disk\": null}", 409, "keeps its units");
	expect("POST", UNITS "slave/detach", "", 409, "keeps its units");
	device->ops = &fake_ops;
}

static void hot_plug(void **state)
{
	struct request r;

	(void)state;
	add_disk("a", NULL_DISK, 200, "a");
	expect("POST", UNITS "2:0/attach", "{\"disk\": \"a\"}", 200, "\"disk\":\"a\"");
	expect("POST", UNITS "3:0/attach", "{\"disk\": \"a\"}", 409, "is a device of VM 'web'");
	expect("POST", UNITS "3:0/attach", "{\"disk\": null}", 200, "\"present\":true");
	assert_int_equal(begin(&r, "POST", UNITS "2:0/detach", ""), 0);
	expect("POST", UNITS "2:0/attach", "{\"disk\": null}", 409, "a change of it is under way");
	end(0);
	assert_int_equal(r.status, 200);
	finish(&r, "\"present\":false");
	expect("GET", "/v1/vms/web", "", 200, "\"free-units\":[\"2:0\"]");
}

/* Once, or once in each VM: as configurations are held to. */
static void one_disk_twice(void **state)
{
	static const char *const mild[] = { "\"read-only\": true", "\"shared\": true" };
	struct request r;
	char body[100];

	(void)state;
	add_disk("a", NULL_DISK, 200, "a");
	expect("POST", UNITS "2:0/attach", "{\"disk\": \"a\"}", 200, "a");
	expect("POST", OTHERS "2:0/attach", "{\"disk\": \"a\"}", 409, "of VM 'web' already");
	expect("PUT", OTHERS "slave", "{\"disk\": \"a\"}", 409, "of VM 'web' already");
	for (unsigned i = 0; i < 2; i++) {
		const char *unit = i ? OTHERS "3:0/attach" : OTHERS "2:0/attach";
		const char *own = i ? UNITS "slave" : UNITS "3:0/attach";

		snprintf(body, sizeof body, "{%s, \"stack\": [\"null\"]}", mild[i]);
		add_disk(i ? "c" : "b", body, 200, "stack");
		snprintf(body, sizeof body, "{\"disk\": \"%s\"}", i ? "c" : "b");
		expect("POST", unit, body, 200, "disk");
		if (i) {
			assert_int_equal(begin(&r, "PUT", own, body), 0);
			end(0);
			finish(&r, "\"disk\":\"c\"");
		} else {
			expect("POST", own, body, 200, "disk");
		}
		expect("PUT", UNITS "master", body, 409, "of VM 'web' already");
	}
}

/* --- patience -------------------------------------------------------------------------- */

static void says_what_it_waits_for(void **state)
{
	struct request r;

	(void)state;
	add_disk("a", NULL_DISK, 200, "a");
	daemon_of_test.devices[0].device->units[1].disk = daemon_of_test.disks[0];
	assert_int_equal(begin(&r, "PUT", UNITS "slave", "{\"disk\": null}"), 0);
	loop_timer_set(daemon_of_test.control, &r.call.timer, 1); /* long ago */
	loop_run(daemon_of_test.control, NULL);
	assert_int_equal(r.status, 504);
	finish(&r, "under way on disk 'a'");
	expect("PUT", UNITS "slave", "{\"disk\": null}", 409, "under way");
	end(0); /* it goes on, and nobody is told */
	expect("GET", UNITS "slave", "", 200, "slave");
}

static void ends_with_the_server(void **state)
{
	struct request r;

	(void)state;
	add_disk("a", NULL_DISK, 200, "a");
	assert_int_equal(begin(&r, "PUT", UNITS "slave", "{\"disk\": \"a\"}"), 0);
	assert_int_equal(daemon_of_test.holds, 2);
	assert_int_equal(routes_cancel(&r.call), 503);
	finish(&r, "penstock is ending");
	end(0);
	assert_int_equal(r.status, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(paths),
		TEST(disks_come_and_go),
		TEST(disks_that_are_wrong),
		TEST(trees),
		TEST(insert_and_eject),
		TEST(what_cannot_be_done),
		TEST(hot_plug),
		TEST(one_disk_twice),
		TEST(says_what_it_waits_for),
		TEST(ends_with_the_server),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
