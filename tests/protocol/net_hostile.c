/* SPDX-License-Identifier: BSD-3-Clause */
/* net_hostile.c - one switch with a liar on it, and others; see net_hostile.h */
#include "net_hostile.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

enum { WINDOW = 16, SETTLE_MS = 5000, PROGRESS = 20, LOST_MS = 10000, SHORT_MS = 10 };

const uint8_t mac_liar[6] = { 0x02, 0x50, 0, 0, 0, 1 };
const uint8_t mac_peer[6] = { 0x02, 0x50, 0, 0, 0, 2 };

/* ---- the two that are honest ---- */

static struct {
	struct net card[2];
	pthread_t thread;
	bool running;
	atomic_bool stop, failed, may_lose;
	atomic_ullong exchanges, passed, lost;
	uint8_t out[NET_FRAME_MAX];
	struct net_frame frame;
	char error[300];
} two;

static void two_mac(uint8_t mac[6], unsigned card)
{
	mac_make(mac, 0x20 + card);
}

static bool two_fail(const char *what, int ret, struct net *net)
{
	snprintf(two.error, sizeof(two.error), "%s: %s (%s)", what, strerror(-ret),
		 net->driver->error);
	atomic_store(&two.failed, true);
	return false;
}

static uint32_t two_length(uint64_t number)
{
	return number % 7 ? 60 + (uint32_t)(number * 2654435761u >> 20) % 1400
			  : 2000 + (uint32_t)(number * 2654435761u >> 16) % 30000;
}

/* The next frame of the other one's; others' frames (broadcasts) are passed over. */
static int two_receive(struct net *to, const uint8_t from[6], bool may_lose)
{
	/* Who may lose frames does not wait for them for long. */
	int64_t end = clock_ms() + (may_lose ? SHORT_MS : LOST_MS);

	for (;;) {
		int left = (int)(end - clock_ms());
		int ret = net_receive(to, 0, &two.frame, left > 0 ? left : 0);
		if (ret || !memcmp(two.frame.bytes + 6, from, 6))
			return ret;
		if (left <= 0)
			return -ETIMEDOUT;
	}
}

/* A window of frames from one to the other. */
static bool two_pass(unsigned from, uint64_t first)
{
	struct net *sender = &two.card[from], *receiver = &two.card[!from];
	bool may_lose = atomic_load(&two.may_lose);
	uint8_t source[6], target[6];
	uint64_t next = first, missing = 0;
	int ret;

	two_mac(source, from);
	two_mac(target, !from);
	for (uint64_t n = first; n < first + WINDOW; n++) {
		frame_make(two.out, target, source, two_length(n), n);
		ret = net_put(sender, 0, NULL, two.out, two_length(n));
		if (ret)
			return two_fail("sending", ret, sender);
	}
	net_publish(sender, 0);
	while (next < first + WINDOW) {
		ret = two_receive(receiver, source, may_lose);
		if (ret == -ETIMEDOUT)
			break;
		if (ret)
			return two_fail("receiving", ret, receiver);
		uint64_t number = frame_number(two.frame.bytes);
		if (number < first && may_lose)
			continue; /* late */
		frame_make(two.out, target, source, two_length(number), number);
		if (number < next || number >= first + WINDOW ||
		    two.frame.length != two_length(number) ||
		    memcmp(two.frame.bytes, two.out, two.frame.length))
			return two_fail("another frame came", -EBADMSG, receiver);
		missing += number - next;
		next = number + 1;
		atomic_fetch_add(&two.passed, 1);
	}
	missing += first + WINDOW - next;
	atomic_fetch_add(&two.lost, missing);
	if (missing && !may_lose)
		return two_fail("frames were lost", -ETIMEDOUT, receiver);
	return true;
}

static void *be_honest(void *unused)
{
	uint64_t number = 1;

	(void)unused;
	while (!atomic_load(&two.stop)) {
		if (!two_pass(0, number) || !two_pass(1, number))
			break;
		number += WINDOW;
		atomic_fetch_add(&two.exchanges, 1);
	}
	return NULL;
}

unsigned long long others_count(void)
{
	return atomic_load(&two.passed);
}

void others_may_lose(bool may)
{
	/* Until what was lost is known, and nothing is lost any more. */
	for (int64_t end = clock_ms() + SETTLE_MS; !may && clock_ms() < end;) {
		atomic_store(&two.lost, 0);
		sleep_ms(10 * SHORT_MS);
		if (!atomic_load(&two.lost))
			break;
	}
	atomic_store(&two.may_lose, may);
}

void others_expect(void)
{
	unsigned long long before = atomic_load(&two.exchanges);
	int64_t end = clock_ms() + SETTLE_MS;

	while (clock_ms() < end && !atomic_load(&two.failed) &&
	       atomic_load(&two.exchanges) < before + PROGRESS)
		sleep_ms(1);
	if (!daemon_alive(&lan.daemon)) {
		daemon_show_log(&lan.daemon);
		fail_msg("the daemon died");
	}
	if (atomic_load(&two.failed))
		fail_msg("the two others: %s", two.error);
	if (atomic_load(&two.exchanges) < before + PROGRESS)
		fail_msg("the two others stand still");
	lan_unplug(LIAR);
	liar_plug((struct net_options){ .decline = FEATURE(VIRTIO_NET_F_MQ) });
	liar_expect_works();
	lan_unplug(LIAR);
}

/* ---- the scene ---- */

void liars_open(const char *loops)
{
	const struct lan_plan place = { .loops = loops,
					.device = "queue-pairs: 2",
					.card = { { "liar" }, { "peer" }, { "x" }, { "y" } } };
	static const char *const names[] = { "x", "y" };

	lan_open(&place);
	lan_plug(PEER, "peer", (struct net_options){ .decline = FEATURE(VIRTIO_NET_F_MQ) });
	memset(&two, 0, sizeof(two));
	for (unsigned i = 0; i < 2; i++) {
		/* By way of the scene, which waits for them to be in service. */
		two.card[i] =
			*lan_plug(2 + i, names[i],
				  (struct net_options){ .queue_size = 512,
							.decline = FEATURE(VIRTIO_NET_F_MQ) });
		memset(&lan.card[2 + i], 0, sizeof(struct net));
	}
	assert_int_equal(pthread_create(&two.thread, NULL, be_honest, NULL), 0);
	two.running = true;
	others_may_lose(false);
}

int liars_close(void **state)
{
	if (two.running) {
		atomic_store(&two.stop, true);
		pthread_join(two.thread, NULL);
	}
	for (unsigned i = 0; i < 2; i++)
		net_close(&two.card[i]);
	two.running = false;
	return lan_close(state);
}

/* Throws away what has come to a card. */
static void drop_all(unsigned card)
{
	struct net *net = &lan.card[card];
	int ret;

	while (!(ret = net_receive(net, 0, &lan.frame, SHORT_MS)))
		;
	if (ret != -ETIMEDOUT)
		must_net(net, ret);
}

struct net_options liar_options(void **state)
{
	const char *how = *state;

	return (struct net_options){ .packed = how[0] == 'p',
				     .indirect = how[1] == 'i',
				     .decline = FEATURE(VIRTIO_NET_F_MQ) };
}

struct net *liar_plug(struct net_options options)
{
	static const uint8_t unknown[6] = { 0x02, 0x50, 0xee, 0xee, 0xee, 0xee };

	daemon_mark_log(&lan.daemon);
	struct net *net = lan_plug(LIAR, "liar", options);
	lan_send(LIAR, unknown, mac_liar, 60, 0);
	must_net(net, net_drain(net, 0));
	lan_send(PEER, unknown, mac_peer, 60, 0);
	must_net(&lan.card[PEER], net_drain(&lan.card[PEER], 0));
	return net;
}

/* ---- what came of it ---- */

bool liar_is_broken(void)
{
	struct driver *driver = lan.card[LIAR].driver;
	uint64_t status = 0;

	must(driver, vu_query_u64(&driver->vu, VU_GET_STATUS, &status));
	return status & STATUS_NEEDS_RESET;
}

void liar_expect_broken(void)
{
	for (int64_t end = clock_ms() + SETTLE_MS; clock_ms() < end; sleep_ms(1))
		if (liar_is_broken()) {
			if (!daemon_logged(&lan.daemon, "vm-liar", SETTLE_MS))
				fail_msg("a card broke, and nothing says why");
			return;
		}
	fail_msg("the card did not break");
}

void liar_expect_settled(struct virtq *queue, unsigned chains)
{
	uint16_t done[NET_BATCH];

	for (int64_t end = clock_ms() + SETTLE_MS; clock_ms() < end; sleep_ms(1)) {
		int count = virtq_reap(queue, done, NET_BATCH);
		if (count < 0)
			fail_msg("%s", queue->driver->error);
		chains -= (unsigned)count < chains ? (unsigned)count : chains;
		if (!chains)
			return;
		if (liar_is_broken()) {
			liar_expect_broken();
			return;
		}
	}
	fail_msg("%u chains are neither done nor has the card broken", chains);
}

void peer_expect_sense(unsigned most)
{
	struct net *net = &lan.card[PEER];
	int ret;

	while (!(ret = net_receive(net, 0, &lan.frame, SHORT_MS))) {
		const struct virtio_net_hdr_v1 *header = &lan.frame.header;
		uint32_t length = lan.frame.length;
		if (!memcmp(lan.frame.bytes + 6, "\x02\x50\0\0\0\x20", 5))
			continue; /* of the two others */
		if (!most--)
			fail_msg("a frame of %u bytes too many", length);
		assert_in_range(length, ETHERNET, NET_FRAME_MAX);
		if (header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
			assert_true((uint32_t)header->csum_start + header->csum_offset + 2 <=
				    length);
		if (header->gso_type) {
			assert_true(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM);
			assert_int_not_equal(header->gso_size, 0);
			assert_in_range(header->hdr_len, ETHERNET, length);
			assert_true(header->hdr_len > header->csum_start);
		}
	}
	assert_int_equal(ret, -ETIMEDOUT);
}

void liar_expect_works(void)
{
	static uint64_t number = 1;

	drop_all(PEER);
	drop_all(LIAR);
	number++;
	lan_send(LIAR, mac_peer, mac_liar, 777, number);
	lan_expect(PEER, mac_peer, mac_liar, 777, number);
	lan_send(PEER, mac_liar, mac_peer, 7777, number);
	lan_expect(LIAR, mac_liar, mac_peer, 7777, number);
}
