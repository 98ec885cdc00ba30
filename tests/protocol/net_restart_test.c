/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_restart_test.c - the daemon is killed under traffic, and comes back
 *
 * A network device has no crash record: its rings are completed in order, and the next daemon goes
 * on behind what was used. So a frame that was under way is lost or comes twice; but none comes
 * changed, those of a flow stay in order but for one step back, every buffer comes back, and
 * frames sent afterwards all arrive.
 */
#include "lan.h"

#include <stdio.h>

enum { KILLS = 12, FLOWS = 3 };

struct direction {
	unsigned from, to;
	uint32_t sent[FLOWS], seen[FLOWS]; /* numbers; seen: the next one, if none is lost */
	unsigned may_repeat[FLOWS];        /* so often the flow may still go back: once a kill */
	uint64_t received, repeated, lost;
};

static uint64_t random_state;

static uint32_t random_below(uint32_t limit)
{
	random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)((random_state >> 33) % limit);
}

static void flow_mac(uint8_t mac[6], unsigned card, unsigned flow)
{
	mac_make(mac, 0x100 * (card + 1) + flow);
}

static void make(const struct direction *d, unsigned flow, uint32_t length, uint64_t number)
{
	uint8_t to[6], from[6];

	flow_mac(from, d->from, flow);
	flow_mac(to, d->to, flow);
	frame_make(lan.out, to, from, length, number);
}

static void send_some(struct direction *d)
{
	struct net *net = &lan.card[d->from];

	for (unsigned count = random_below(40); count; count--) {
		unsigned flow = random_below(FLOWS);
		uint32_t length = random_below(8) ? 60 + random_below(1400)
						  : 60 + random_below(20000);
		uint64_t number = (uint64_t)flow << 60 | (uint64_t)length << 32 | d->sent[flow];
		/* A full ring is no reason to wait: its device may be dead. */
		must_net(net, net_reap(net, 0) < 0 ? -EPROTO : 0);
		if (!net->pair[0].tx->free_count)
			break;
		make(d, flow, length, number);
		must_net(net, net_put(net, 0, NULL, lan.out, length));
		d->sent[flow]++;
	}
	net_publish(net, 0);
}

/* Looks at the frame that came. */
static void check(struct direction *d)
{
	uint64_t number = frame_number(lan.frame.bytes);
	unsigned flow = number >> 60 & 3;
	uint32_t index = (uint32_t)number, length = number >> 32 & 0xfffffff;

	if (flow >= FLOWS || length != lan.frame.length || index >= d->sent[flow])
		fail_msg("a frame of %u bytes, number %#llx, that nobody sent", lan.frame.length,
			 (unsigned long long)number);
	make(d, flow, length, number);
	assert_memory_equal(lan.frame.bytes, lan.out, length);
	if (index < d->seen[flow]) {
		if (!d->may_repeat[flow])
			fail_msg("flow %u: frame %u came after %u", flow, index, d->seen[flow] - 1);
		d->may_repeat[flow]--;
		d->repeated++;
	}
	d->lost += index > d->seen[flow] ? index - d->seen[flow] : 0;
	d->seen[flow] = index + 1;
	d->received++;
}

static void receive_some(struct direction *d)
{
	struct net *net = &lan.card[d->to];
	int ret;

	while (!(ret = net_receive(net, 0, &lan.frame, 0)))
		check(d);
	if (ret != -ETIMEDOUT)
		must_net(net, ret);
}

static void again(struct direction *d)
{
	for (unsigned flow = 0; flow < FLOWS; flow++)
		d->may_repeat[flow]++;
	lan.card[d->from].may_miss++;
	must_net(&lan.card[d->from], net_reconnect(&lan.card[d->from]));
}

/* All that is under way ends, and then nothing is lost. */
static void settle(struct direction *d)
{
	struct net *to = &lan.card[d->to];
	int ret;

	must_net(&lan.card[d->from], net_drain(&lan.card[d->from], 0));
	while (!(ret = net_receive(to, 0, &lan.frame, QUIET_MS)))
		check(d);
	assert_int_equal(ret, -ETIMEDOUT);
	assert_int_equal(lan.card[d->from].pair[0].tx->free_count,
			 lan.card[d->from].pair[0].tx->slots);
	for (unsigned i = 0; i < 100; i++) {
		unsigned flow = i % FLOWS;
		uint64_t number = (uint64_t)flow << 60 | 500ull << 32 | d->sent[flow]++;
		make(d, flow, 500, number);
		must_net(&lan.card[d->from], net_send(&lan.card[d->from], 0, NULL, lan.out, 500));
		must_net(to, net_receive(to, 0, &lan.frame, NET_WAIT_MS));
		assert_int_equal(frame_number(lan.frame.bytes), number);
		d->seen[flow] = d->sent[flow];
	}
}

static void killed_under_traffic(void **state)
{
	struct direction d[2] = { { .from = 0, .to = 1 }, { .from = 1, .to = 0 } };
	const char *how = *state;
	struct lan_plan place = { .loops = how[0] == '2' ? "2" : "1",
				  .card = { { "a" }, { "b" } } };
	struct net_options options = {
		.packed = how[4] == 'p',
		.event_idx = how[1] == 'e',
		.indirect = how[2] == 'i',
		.decline = FEATURE(VIRTIO_NET_F_MQ) |
			   (how[3] == 'm' ? 0 : FEATURE(VIRTIO_NET_F_MRG_RXBUF)),
	};

	random_state = choose_seed();
	lan_open(&place);
	lan_plug(0, "a", options);
	lan_plug(1, "b", options);
	for (unsigned kill = 0; kill < KILLS; kill++) {
		for (unsigned turns = random_below(60) + 3; turns; turns--) {
			unsigned which = random_below(2);
			send_some(&d[which]);
			receive_some(&d[random_below(2)]);
			if (!random_below(4))
				sleep_ms(1);
		}
		if (random_below(2)) /* in the middle of it, or a little later */
			sleep_ms((int)random_below(3));
		daemon_kill(&lan.daemon);
		if (random_below(2))
			send_some(&d[0]);
		daemon_restart(&lan.daemon);
		again(&d[0]);
		again(&d[1]);
	}
	settle(&d[0]);
	settle(&d[1]);
	print_message("# %llu frames came, %llu of them again, %llu were lost\n",
		      (unsigned long long)(d[0].received + d[1].received),
		      (unsigned long long)(d[0].repeated + d[1].repeated),
		      (unsigned long long)(d[0].lost + d[1].lost));
}

/* Stopped and started by its VMM, a card loses nothing that is in its transmit ring. */
static void stopped_and_started(void **state)
{
	struct lan_plan place = { .card = { { "a" }, { "b" } } };
	struct net_options options = { .packed = **(char **)state == 'p',
				       .decline = FEATURE(VIRTIO_NET_F_MQ) };
	struct direction d = { .from = 0, .to = 1 };
	struct net *net = &lan.card[0];

	random_state = choose_seed();
	lan_open(&place);
	lan_plug(0, "a", options);
	lan_plug(1, "b", options);
	for (unsigned i = 0; i < 50; i++) {
		send_some(&d);
		must(net->driver, driver_stop(net->driver));
		receive_some(&d);
		must(net->driver, driver_start(net->driver));
		virtq_kick(net->pair[0].tx);
		receive_some(&d);
		must_net(net, net_drain(net, 0));
		while (d.seen[0] + d.seen[1] + d.seen[2] < d.sent[0] + d.sent[1] + d.sent[2]) {
			must_net(&lan.card[1],
				 net_receive(&lan.card[1], 0, &lan.frame, NET_WAIT_MS));
			check(&d);
		}
	}
	assert_int_equal(d.lost, 0);
	assert_int_equal(d.repeated, 0);
}

int main(void)
{
#define KILLED(how)                                                                                \
	{                                                                                          \
		"killed_under_traffic, " how, killed_under_traffic, NULL, lan_close, (void *)how   \
	}
	const struct CMUnitTest tests[] = {
		KILLED("1e-m"),
		KILLED("1-im"),
		KILLED("1---"),
		KILLED("2ei-"),
		KILLED("2--m"),
		KILLED("1e-mp"),
		KILLED("1-imp"),
		KILLED("1---p"),
		KILLED("2ei-p"),
		{ "stopped_and_started, split", stopped_and_started, NULL, lan_close, (void *)"s" },
		{ "stopped_and_started, packed", stopped_and_started, NULL, lan_close,
		  (void *)"p" },
	};

	return cmocka_run_group_tests_name("restart", tests, NULL, NULL);
}
