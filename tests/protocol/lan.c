/* SPDX-License-Identifier: BSD-3-Clause */
/* lan.c - a daemon with a switch and cards on it; see lan.h */
#include "lan.h"

#include <stdio.h>
#include <unistd.h>

struct lan lan;

static const char *or_else(const char *text, const char *otherwise)
{
	return text ? text : otherwise;
}

void lan_open(const struct lan_plan *place)
{
	static char path[DAEMON_PATH]; /* lasts for a restart */
	char config[6000];
	size_t at = 0;

	daemon_deadline(60);
	daemon_prepare(&lan.daemon);
#define ADD(...) at += (size_t)snprintf(config + at, sizeof(config) - at, __VA_ARGS__)
	ADD("switches: {lan: {%s}}\n", or_else(place->lan, ""));
	ADD("nics:\n");
	for (unsigned i = 0; place->card[i].name; i++)
		ADD("  %s: {switch: lan%s%s}\n", place->card[i].name,
		    place->card[i].options ? ", " : "", or_else(place->card[i].options, ""));
	ADD("vms:\n");
	for (unsigned i = 0; place->card[i].name; i++)
		ADD("  vm-%s: [{virtio-net: %s, socket: %s%s%s}]\n", place->card[i].name,
		    place->card[i].name, daemon_path(&lan.daemon, place->card[i].name),
		    place->device ? ", " : "", or_else(place->device, ""));
	ADD("%s", or_else(place->more, ""));
#undef ADD
	assert_true(at < sizeof(config));
	daemon_write_file(&lan.daemon, "net.yaml", "api: %s\n%s", daemon_path(&lan.daemon, "api"),
			  config);
	snprintf(path, sizeof(path), "%s", daemon_path(&lan.daemon, "net.yaml"));
	const char *args[] = { "run",      path,
			       "--loops",  or_else(place->loops, "1"),
			       "--engine", or_else(place->engine, "auto"),
			       NULL };
	daemon_start(&lan.daemon, args);
	daemon_mark_log(&lan.daemon);
}

int lan_close(void **state)
{
	int status = 0;

	(void)state;
	for (unsigned i = 0; i < CARDS_MAX; i++)
		net_close(&lan.card[i]);
	if (lan.daemon.pid) {
		status = daemon_stop(&lan.daemon);
		if (status)
			daemon_show_log(&lan.daemon);
	}
	daemon_clean(&lan.daemon);
	return status;
}

/*
 * A daemon answers before its loops have taken the rings into service, and drops what comes for
 * them meanwhile. A pair's receive ring is in service before its transmit ring, on the same loop:
 * so it is once a frame of no use to anybody, from a group's address, has been taken.
 */
static void wait_in_service(struct net *net)
{
	static const uint8_t group[6] = { 0x03, 0, 0, 0, 0, 0 };

	frame_make(lan.out, group, group, 60, 0);
	for (unsigned pair = 0; pair < net->pairs; pair++) {
		must_net(net, net_send(net, pair, NULL, lan.out, 60));
		must_net(net, net_drain(net, pair));
	}
}

struct net *lan_plug(unsigned index, const char *name, struct net_options options)
{
	struct net *net = &lan.card[index];

	options.socket = daemon_path(&lan.daemon, name);
	must_net(net, net_open(net, &options));
	wait_in_service(net);
	return net;
}

void lan_unplug(unsigned index)
{
	net_close(&lan.card[index]);
}

void lan_send(unsigned card, const uint8_t to[6], const uint8_t from[6], uint32_t length,
	      uint64_t number)
{
	struct net *net = &lan.card[card];

	frame_make(lan.out, to, from, length, number);
	must_net(net, net_send(net, 0, NULL, lan.out, length));
}

void lan_expect(unsigned card, const uint8_t to[6], const uint8_t from[6], uint32_t length,
		uint64_t number)
{
	struct net *net = &lan.card[card];
	unsigned pair;

	frame_make(lan.out, to, from, length, number);
	must_net(net, net_receive_any(net, &pair, &lan.frame, NET_WAIT_MS));
	if (lan.frame.length != length || memcmp(lan.frame.bytes, lan.out, length)) {
		unsigned at = 0;
		while (at < length && at < lan.frame.length && lan.frame.bytes[at] == lan.out[at])
			at++;
		fail_msg("card %u got %u bytes in place of %u; they differ from byte %u on; number "
			 "%llu in place of %llu",
			 card, lan.frame.length, length, at,
			 (unsigned long long)frame_number(lan.frame.bytes),
			 (unsigned long long)number);
	}
}

void lan_expect_nothing(unsigned card)
{
	struct net *net = &lan.card[card];
	unsigned pair;
	int ret = net_receive_any(net, &pair, &lan.frame, QUIET_MS);

	if (!ret)
		fail_msg("card %u got a frame of %u bytes, number %llu, that is not for it", card,
			 lan.frame.length, (unsigned long long)frame_number(lan.frame.bytes));
	if (ret != -ETIMEDOUT)
		must_net(net, ret);
}

void lan_flush(unsigned card)
{
	struct net *net = &lan.card[card];
	unsigned pair;
	int ret;

	while (!(ret = net_receive_any(net, &pair, &lan.frame, QUIET_MS)))
		;
	if (ret != -ETIMEDOUT)
		must_net(net, ret);
}

void lan_learn(unsigned card, const uint8_t mac[6])
{
	static const uint8_t unknown[6] = { 0x02, 0x50, 0xee, 0xee, 0xee, 0xee };

	lan_send(card, unknown, mac, 60, 0);
	must_net(&lan.card[card], net_drain(&lan.card[card], 0));
	sleep_ms(QUIET_MS / 3);
	for (unsigned i = 0; i < CARDS_MAX; i++)
		if (i != card && lan.card[i].driver)
			lan_flush(i);
}

int lan_command(const char *const *words)
{
	const char *args[DAEMON_ARGS] = { NULL };
	unsigned count = 0;

	args[count++] = words[0];
	args[count++] = "--api";
	args[count++] = daemon_path(&lan.daemon, "api");
	for (unsigned i = 1; words[i]; i++)
		args[count++] = words[i];
	return daemon_command(&lan.daemon, args);
}
