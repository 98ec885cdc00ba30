/* SPDX-License-Identifier: BSD-3-Clause */
/* switch_test.c - frames go where they should, on one loop and across loops; layers in between */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

#include "packet/testing.h"

static struct rig rig;
static unsigned loops; /* of this round of tests */

/* Three ports on as many loops as there are. */
static struct rig_port *plug(const char *name, unsigned n, const char *const *options)
{
	return rig_plug(&rig, name, n % loops, 0, options);
}

struct changing {
	struct rig_port *port;
	struct port_config config;
	sem_t done;
};

static void changed(void *data, int status)
{
	assert_int_equal(status, 0);
	sem_post(&((struct changing *)data)->done);
}

static void change_now(void *data)
{
	struct changing *changing = data;

	assert_int_equal(
		port_change(changing->port->port, &changing->config, changed, changing, NULL), 0);
}

static void change(struct rig_port *port, const char *const *options)
{
	struct changing changing = { .port = port };

	sem_init(&changing.done, 0, 0);
	rig_config(&changing.config, options);
	rig_do(rig.control, change_now, &changing);
	while (sem_wait(&changing.done)) {
	}
	sem_destroy(&changing.done);
}

static void test_learning(void **state)
{
	struct rig_port *a, *b, *c;

	(void)state;
	rig_begin(&rig, loops, NULL);
	a = plug("a", 0, NULL);
	b = plug("b", 1, NULL);
	c = plug("c", 2, NULL);
	rig_send_one(a, 2, 1); /* not known: to all others */
	assert_int_equal(a->seen, 0);
	assert_int_equal(b->seen, 1);
	assert_int_equal(c->seen, 1);
	assert_int_equal(b->frame[0].length, 100);
	assert_int_equal(b->frame[0].last, 99);
	assert_int_equal(b->frame[0].start[5], 2);
	rig_send_one(b, 1, 2); /* known by now */
	assert_int_equal(a->seen, 1);
	assert_int_equal(c->seen, 1);
	rig_send_one(a, 2, 1);
	assert_int_equal(b->seen, 2);
	assert_int_equal(c->seen, 1);
	rig_send_one(c, 0xff, 3); /* broadcast */
	assert_int_equal(a->seen, 2);
	assert_int_equal(b->seen, 3);
	rig_send_one(c, 3, 3); /* to itself */
	assert_int_equal(rig_drops(c, PACKET_IN, DROP_SELF), 1);
	rig_send_one(c, 2, 1); /* address 1 has moved to c */
	rig_send_one(b, 1, 2);
	assert_int_equal(a->seen, 2);
	assert_int_equal(c->seen, 2);
	assert_int_equal(a->released, 2);
	assert_int_equal(vswitch_address_count(rig.vswitch, NULL), 3);
	rig_unplug(c);
	assert_int_equal(vswitch_address_count(rig.vswitch, NULL), 1);
	rig_unplug(a);
	rig_unplug(b);
	rig_end(&rig);
}

static void test_whole_bursts(void **state)
{
	static uint8_t frames[PACKET_BURST][2000];
	struct rig_send send = { .count = PACKET_BURST };
	struct rig_port *a, *b;

	(void)state;
	rig_begin(&rig, loops, NULL);
	a = plug("a", 0, NULL);
	b = plug("b", 1, NULL);
	send.port = a;
	for (unsigned i = 0; i < PACKET_BURST; i++) {
		rig_frame(frames[i], 60 + 30 * i, 2, 1, 0x88b5);
		frames[i][20] = (uint8_t)i;
		send.frame[i].bytes = frames[i];
		send.frame[i].length = 60 + 30 * i;
	}
	for (unsigned turn = 0; turn < 20; turn++)
		rig_send(&send);
	assert_int_equal(b->seen, 20 * PACKET_BURST);
	for (unsigned i = 0; i < b->seen; i++) { /* in order, whole */
		assert_int_equal(b->frame[i].start[20], i % PACKET_BURST);
		assert_int_equal(b->frame[i].length, 60 + 30 * (i % PACKET_BURST));
		assert_int_equal(b->frame[i].last, (uint8_t)(b->frame[i].length - 1));
	}
	rig_unplug(a);
	rig_unplug(b);
	rig_end(&rig);
}

static void send_tagged(struct rig_port *port, uint8_t to, uint8_t from, uint16_t tag)
{
	uint8_t frame[104];
	struct rig_send send = { .port = port,
				 .count = 1,
				 .frame = { { .bytes = frame, .length = sizeof frame } } };

	rig_frame(frame, sizeof frame, to, from, 0x8100);
	frame[14] = (uint8_t)(tag >> 8);
	frame[15] = (uint8_t)tag;
	frame[16] = 0x88;
	frame[17] = 0xb5;
	rig_send(&send);
}

static void test_vlans(void **state)
{
	static const char *const ten[] = { "vlan", "10", NULL };
	static const char *const twenty[] = { "vlan", "20", NULL };
	static const char *const trunk[] = { "vlan", "0", "trunk", "10,15-17", NULL };
	struct rig_port *a, *b, *c, *t;

	(void)state;
	rig_begin(&rig, loops, NULL);
	a = plug("a", 0, ten);
	b = plug("b", 1, ten);
	c = plug("c", 2, twenty);
	t = plug("t", 3, trunk);
	rig_send_one(a, 0xff, 1);
	assert_int_equal(b->seen, 1);
	assert_int_equal(c->seen, 0);
	assert_int_equal(t->seen, 1);
	assert_false(b->frame[0].tagged);
	assert_true(t->frame[0].tagged);
	assert_int_equal(t->frame[0].tag, 10);
	rig_send_one(c, 0xff, 3); /* nobody else is in 20 */
	assert_int_equal(rig_drops(c, PACKET_IN, DROP_NOWHERE), 1);
	send_tagged(t, 1, 4, 0x6000 | 10);
	assert_int_equal(a->seen, 1);
	assert_int_equal(a->frame[0].length, 100);
	assert_false(a->frame[0].tagged);
	send_tagged(t, 1, 4, 20);
	assert_int_equal(rig_drops(t, PACKET_IN, DROP_VLAN), 1);
	rig_send_one(t, 1, 4); /* without a tag, on a trunk without a VLAN for that */
	assert_int_equal(rig_drops(t, PACKET_IN, DROP_VLAN), 2);
	send_tagged(a, 4, 1, 10); /* a tag where none is taken */
	assert_int_equal(rig_drops(a, PACKET_IN, DROP_VLAN), 1);
	send_tagged(a, 4, 1, 0x6000); /* a priority only */
	assert_int_equal(t->seen, 2);
	assert_int_equal(t->frame[1].tag, 0x6000 | 10);
	rig_unplug(a);
	rig_unplug(b);
	rig_unplug(c);
	rig_unplug(t);
	rig_end(&rig);
}

static void send_double_tagged(struct rig_port *port, uint16_t outer, uint16_t inner)
{
	uint8_t frame[108];
	struct rig_send send = { .port = port,
				 .count = 1,
				 .frame = { { .bytes = frame, .length = sizeof frame } } };

	rig_frame(frame, sizeof frame, 0xff, 1, 0x8100);
	frame[14] = (uint8_t)(outer >> 8);
	frame[15] = (uint8_t)outer;
	frame[16] = 0x81;
	frame[17] = 0;
	frame[18] = (uint8_t)(inner >> 8);
	frame[19] = (uint8_t)inner;
	rig_send(&send);
}

/* A second tag must not become the first one where the first is taken off. */
static void test_no_hop_by_inner_tag(void **state)
{
	static const char *const native[] = { "vlan", "10", "trunk", "all", NULL };
	struct rig_port *a, *t, *u;

	(void)state;
	rig_begin(&rig, loops, NULL);
	a = plug("a", 0, NULL);
	t = plug("t", 1, native);
	u = plug("u", 2, native);
	send_double_tagged(a, 0x6000, 20); /* a priority, and a tag */
	assert_int_equal(rig_drops(a, PACKET_IN, DROP_VLAN), 1);
	assert_int_equal(t->seen + u->seen, 0);
	send_double_tagged(t, 10, 20); /* the native VLAN, and a tag */
	assert_int_equal(u->seen, 1);
	assert_true(u->frame[0].tagged);
	assert_int_equal(u->frame[0].tag, 10);
	rig_unplug(a);
	rig_unplug(t);
	rig_unplug(u);
	rig_end(&rig);
}

static void test_isolation_mirror_statics(void **state)
{
	static const char *const alone[] = { "isolated", "true", NULL };
	static const char *const unlearned[] = { "isolated", "true", "learning", "false", NULL };
	static const char *const fixed[] = { "static", "02:00:00:00:00:09", NULL };
	static const char *const mirror[] = { "mirror", "a,u", NULL };
	struct rig_port *a, *b, *u, *m;

	(void)state;
	rig_begin(&rig, loops, NULL);
	a = plug("a", 0, alone);
	b = plug("b", 1, alone);
	u = plug("u", 2, fixed);
	m = plug("m", 3, mirror);
	rig_send_one(a, 0xff, 1);
	rig_send_one(b, 1, 2);
	assert_int_equal(a->seen, 0);
	assert_int_equal(rig_drops(b, PACKET_IN, DROP_ISOLATED), 1);
	assert_int_equal(u->seen, 1);
	assert_int_equal(m->seen, 1); /* once, though it went in at a and out at u */
	rig_send_one(a, 9, 1);        /* static */
	assert_int_equal(u->seen, 2);
	assert_int_equal(b->seen, 0);
	rig_send_one(b, 0xff, 9); /* somebody else's static address */
	assert_int_equal(rig_drops(b, PACKET_IN, DROP_SOURCE), 1);
	change(b, unlearned);
	rig_send_one(b, 0xff, 9); /* nor if nothing is learned there */
	assert_int_equal(rig_drops(b, PACKET_IN, DROP_SOURCE), 2);
	change(b, alone);
	rig_send_one(m, 0xff, 5);
	assert_int_equal(rig_drops(m, PACKET_IN, DROP_NOWHERE), 1);
	rig_send_one(b, 9, 2); /* out at u: mirrored there */
	assert_int_equal(u->seen, 3);
	assert_int_equal(m->seen, 3);
	rig_unplug(a);
	rig_unplug(b);
	rig_unplug(u);
	rig_unplug(m);
	rig_end(&rig);
}

static void test_address_cap_and_floods(void **state)
{
	static const char *const few[] = { "addresses", "4", "flood-limit", "10", NULL };
	static const char *const quiet[] = { "unknown", "false", NULL };
	struct rig_port *a, *b, *c;
	uint64_t limited;

	(void)state;
	rig_begin(&rig, loops, NULL);
	a = plug("a", 0, few);
	b = plug("b", 1, NULL);
	c = plug("c", 2, quiet);
	for (uint8_t i = 0; i < 50; i++)
		rig_send_one(a, 0xff, (uint8_t)(10 + i));
	assert_int_equal(vswitch_address_count(rig.vswitch, a->port), 4);
	limited = rig_drops(a, PACKET_IN, DROP_FLOOD_LIMIT);
	assert_true(limited >= 20 && limited <= 40); /* 10 a second, in 3 s at most */
	assert_int_equal(b->seen + limited, 50);
	assert_int_equal(c->seen, b->seen);
	rig_send_one(b, 77, 2); /* not known */
	assert_int_equal(c->seen + limited, 50);
	rig_unplug(a);
	rig_unplug(b);
	rig_unplug(c);
	rig_end(&rig);
}

static void test_layers_come_and_go(void **state)
{
	static const char *const two[] = { "count", NULL, "count", "direction", "in", NULL, NULL };
	static const char *const one[] = { "count", "direction", "in", NULL, NULL };
	static const char *const none[] = { NULL };
	struct rig_port *a, *b;
	struct packet_layer *kept;

	(void)state;
	rig_begin(&rig, loops, NULL);
	a = plug("a", 0, NULL);
	b = plug("b", 1, NULL);
	assert_int_equal(rig_set_layers(a, two, NULL), 0);
	rig_send_one(a, 2, 1);
	rig_send_one(b, 1, 2);
	assert_int_equal(a->port->layer_count, 2);
	assert_int_equal(
		stats_read(&a->port->layers[0]->places[0]->stats.direction[PACKET_IN].seen), 1);
	assert_int_equal(
		stats_read(&a->port->layers[0]->places[0]->stats.direction[PACKET_OUT].seen), 1);
	assert_int_equal(
		stats_read(&a->port->layers[1]->places[0]->stats.direction[PACKET_OUT].seen), 0);
	kept = a->port->layers[1];
	assert_int_equal(rig_set_layers(a, one, NULL), 0);
	assert_int_equal(a->port->layer_count, 1);
	assert_ptr_equal(a->port->layers[0], kept);
	rig_send_one(a, 2, 1);
	assert_int_equal(stats_read(&kept->places[0]->stats.direction[PACKET_IN].seen), 2);
	assert_int_equal(rig_set_layers(a, none, NULL), 0);
	rig_send_one(a, 2, 1);
	assert_int_equal(b->seen, 3);
	assert_int_equal(rig_set_layers(a, two, NULL), 0); /* and gone with the port */
	rig_unplug(a);
	rig_unplug(b);
	rig_end(&rig);
}

static void test_ports_change(void **state)
{
	static const char *const down[] = { "up", "false", NULL };
	static const char *const short_one[] = { "mtu", "80", NULL };
	static const char *const other[] = { "vlan", "2", NULL };
	struct rig_port *a, *b;

	(void)state;
	rig_begin(&rig, loops, NULL);
	a = plug("a", 0, NULL);
	b = plug("b", 1, NULL);
	change(b, down);
	rig_send_one(a, 0xff, 1);
	rig_send_one(b, 0xff, 2);
	assert_int_equal(b->seen + a->seen, 0);
	assert_int_equal(rig_drops(b, PACKET_IN, DROP_DOWN), 1);
	change(b, short_one);
	rig_send_one(a, 0xff, 1);
	assert_int_equal(b->seen, 0);
	assert_int_equal(rig_drops(b, PACKET_OUT, DROP_TOO_LONG), 1);
	change(b, other);
	rig_send_one(a, 0xff, 1);
	assert_int_equal(b->seen, 0);
	change(b, NULL);
	rig_send_one(a, 0xff, 1);
	assert_int_equal(b->seen, 1);
	rig_unplug(a);
	rig_unplug(b);
	rig_end(&rig);
}

/* What the first passes on as it leaves does not come to the second, which has left as well. */
static void test_layers_leave_together(void **state)
{
	static const char *const two[] = { "impair", "delay", "20ms", NULL, "impair",
					   "delay",  "20ms",  NULL,   NULL };
	static const char *const none[] = { NULL };
	struct rig_port *a, *b;

	(void)state;
	rig_begin(&rig, loops, NULL);
	a = plug("a", 0, NULL);
	b = plug("b", 1, NULL);
	assert_int_equal(rig_set_layers(a, two, NULL), 0);
	rig_send_one(a, 2, 1);
	rig_send_one(b, 1, 2);
	assert_int_equal(a->seen + b->seen, 0);
	assert_int_equal(rig_set_layers(a, none, NULL), 0);
	rig_settle(&rig);
	assert_int_equal(a->seen, 1);
	assert_int_equal(b->seen, 1);
	nanosleep(&(struct timespec){ .tv_nsec = 60000000 }, NULL); /* no timer is left */
	rig_send_one(a, 2, 1);
	assert_int_equal(b->seen, 2);
	rig_unplug(a);
	rig_unplug(b);
	rig_end(&rig);
}

static void test_nobody_there(void **state)
{
	struct rig_port *a, *b;

	(void)state;
	rig_begin(&rig, loops, NULL);
	a = plug("a", 0, NULL);
	b = plug("b", 1, NULL);
	rig_do(b->lane->loop, rig_down_now, b);
	rig_send_one(a, 0xff, 1);
	assert_int_equal(b->seen, 0);
	assert_int_equal(rig_drops(b, PACKET_OUT, DROP_DOWN), 1);
	assert_int_equal(a->released, 1);
	rig_unplug(a);
	rig_unplug(b);
	rig_end(&rig);
}

#define ALL                                                                                        \
	cmocka_unit_test(test_learning), cmocka_unit_test(test_whole_bursts),                      \
		cmocka_unit_test(test_vlans), cmocka_unit_test(test_no_hop_by_inner_tag),          \
		cmocka_unit_test(test_layers_leave_together),                                      \
		cmocka_unit_test(test_isolation_mirror_statics),                                   \
		cmocka_unit_test(test_address_cap_and_floods),                                     \
		cmocka_unit_test(test_layers_come_and_go), cmocka_unit_test(test_ports_change),    \
		cmocka_unit_test(test_nobody_there)

int main(void)
{
	static const struct CMUnitTest tests[] = { ALL };
	int failed;

	loops = 1;
	failed = cmocka_run_group_tests_name("one loop", tests, NULL, NULL);
	loops = 3;
	return failed + cmocka_run_group_tests_name("three loops", tests, NULL, NULL);
}
