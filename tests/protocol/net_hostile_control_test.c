/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_hostile_control_test.c - a guest whose commands lie, and a VMM that takes memory away, or the
 * card itself, or sends messages that make no sense
 *
 * See net_hostile.h for what has to come of it.
 */
#include "net_hostile.h"

#include <endian.h>
#include <unistd.h>

/* ---- commands ---- */

static void command_lengths(void **state)
{
	struct net_options options = liar_options(state);
	uint8_t data[64];

	options.control = true;
	liars_open("1");
	struct net *liar = liar_plug(options);
	for (unsigned fill = 0; fill < 2; fill++) {
		memset(data, fill ? 0xff : 0, sizeof(data));
		for (unsigned class = 0; class < 8; class ++)
			for (unsigned command = 0; command < 8; command++)
				for (uint32_t length = 0; length < 24; length++) {
					int ret = net_control(liar, (uint8_t) class,
							      (uint8_t)command, data, length);
					if (ret != VIRTIO_NET_OK && ret != VIRTIO_NET_ERR)
						fail_msg("command %u:%u of %u bytes: %d", class,
							 command, length, ret);
				}
	}
	assert_false(liar_is_broken());
	others_expect();
}

static void tables_that_overflow(void **state)
{
	static const uint32_t counts[] = { 0xffffffff, 0x2aaaaaab, 0x2aaaaaaa, 0x80000000,
					   0x10000,    100,        11 };
	struct net_options options = liar_options(state);
	uint8_t data[68] = { 0 };

	options.control = true;
	liars_open("1");
	struct net *liar = liar_plug(options);
	for (unsigned second = 0; second < 2; second++)
		for (unsigned i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
			uint32_t count = htole32(counts[i]);
			memset(data, 0, sizeof(data));
			memcpy(data + 4 * second, &count, sizeof(count));
			assert_int_equal(net_control(liar, VIRTIO_NET_CTRL_MAC,
						     VIRTIO_NET_CTRL_MAC_TABLE_SET, data,
						     sizeof(data)),
					 VIRTIO_NET_ERR);
		}
	/* One of the two tables only. */
	memset(data, 0, sizeof(data));
	assert_int_equal(
		net_control(liar, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, data, 4),
		VIRTIO_NET_ERR);
	assert_int_equal(
		net_control(liar, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, data, 8),
		VIRTIO_NET_OK);
	others_expect();
}

/* Pieces of a command: `answer` bytes for the answer; `cut`: each byte in a piece of its own. */
static void put_command(struct virtq *queue, uint32_t bytes, uint32_t answer, bool cut)
{
	struct slot *slot = &queue->slot[0];
	struct piece piece[8];
	unsigned count = 0;

	slot->data[0] = VIRTIO_NET_CTRL_RX;
	slot->data[1] = VIRTIO_NET_CTRL_RX_PROMISC;
	slot->data[2] = 1;
	slot->data[64] = 0xff;
	for (uint32_t at = 0; at < bytes; at += cut ? 1 : bytes)
		piece[count++] = (struct piece){ slot->data_guest + at, cut ? 1 : bytes,
						 VRING_DESC_F_NEXT, 0 };
	if (answer)
		piece[count++] =
			(struct piece){ slot->data_guest + 64, answer, VRING_DESC_F_WRITE, 0 };
	piece[count - 1].flags &= (uint16_t)~VRING_DESC_F_NEXT;
	slot->busy = true;
	slot->pieces = (uint16_t)count;
	virtq_raw_chain(queue, piece, count);
}

static void commands_in_pieces(void **state)
{
	struct net_options options = liar_options(state);

	options.control = true;
	options.queue_size = 64;
	liars_open("1");
	struct net *liar = liar_plug(options);
	struct virtq *queue = liar->control;
	/* Any layout will do (virtio 1.2, 2.7.4). */
	for (unsigned i = 0; i < 4; i++) {
		uint16_t done;
		put_command(queue, 3, i & 1 ? 100 : 1, i & 2);
		must_net(liar, virtq_wait(queue, NET_WAIT_MS));
		assert_int_equal(virtq_reap(queue, &done, 1), 1);
		assert_int_equal(queue->slot[0].data[64], VIRTIO_NET_OK);
		assert_int_equal(queue->slot[0].used, 1);
	}
	put_command(queue, 1, 1, false);
	liar_expect_settled(queue, 1);
	others_expect();
	/* No room for the answer; nothing but room. */
	liar = liar_plug(options);
	put_command(liar->control, 3, 0, false);
	liar_expect_broken();
	others_expect();
	liar = liar_plug(options);
	put_command(liar->control, 0, 1, false);
	liar_expect_settled(liar->control, 1);
	others_expect();
}

/* ---- VMMs ---- */

/* The memory of frames under way, and of receive buffers, is cut off. */
static void memory_taken_away(void **state)
{
	liars_open("2");
	for (unsigned i = 0; i < 6; i++) {
		struct net *liar = liar_plug(liar_options(state));
		for (unsigned n = 0; n < 30; n++)
			lan_send(LIAR, n % 2 ? mac_peer : mac_broadcast, mac_liar, 20000, n);
		for (unsigned region = 2; region < 4; region++)
			if (i % 3 != region - 2)
				assert_int_equal(ftruncate(liar->driver->region[region].fd, 0), 0);
		for (unsigned n = 0; n < 30; n++)
			lan_send(PEER, mac_liar, mac_peer, 20000, n);
		must_net(&lan.card[PEER], net_drain(&lan.card[PEER], 0));
		sleep_ms(10);
		/* Not a byte of it may be touched here any more. */
		peer_expect_sense(1000);
		others_expect();
	}
}

/* A card goes while its frames are on their way to other loops. */
static void gone_in_the_middle(void **state)
{
	liars_open("2");
	for (unsigned i = 0; i < 30; i++) {
		struct net *liar = liar_plug(liar_options(state));
		for (unsigned n = 0; n < 40; n++) {
			frame_make(lan.out, n % 2 ? mac_peer : mac_broadcast, mac_liar, 9000, n);
			must_net(liar, net_put(liar, 0, NULL, lan.out, 9000));
		}
		net_publish(liar, 0);
		if (i % 3 == 0)
			must(liar->driver, driver_stop(liar->driver));
		if (i % 3 == 1)
			driver_remove_region(liar->driver, &liar->driver->region[3]);
		lan_unplug(LIAR);
		peer_expect_sense(10000);
	}
	liar_plug(liar_options(state));
	others_expect();
}

/* Messages that only a network device has, of any size, and before anything was negotiated. */
static void messages_that_lie(void **state)
{
	static const uint32_t requests[] = { VU_SEND_RARP, VU_NET_SET_MTU };

	liars_open("1");
	for (unsigned i = 0; i < 2 * 20; i++) {
		struct vu_message message = { .request = requests[i % 2],
					      .flags = VU_VERSION | VU_NEED_REPLY,
					      .size = i / 2 };
		memset(message.payload.bytes, 0xff, sizeof(message.payload.bytes));
		struct net *liar = liar_plug(liar_options(state));
		must(liar->driver, vu_send_raw(&liar->driver->vu, &message,
					       VU_HEADER_BYTES + message.size, NULL, 0));
		others_expect();
	}
	for (unsigned i = 0; i < 2; i++) {
		struct vu_client vu = { .fd = -1 };
		uint64_t payload = ~0ull;
		assert_int_equal(vu_connect(&vu, daemon_path(&lan.daemon, "liar")), 0);
		vu_request(&vu, requests[i], &payload, sizeof(payload), NULL, 0);
		vu_disconnect(&vu);
		others_expect();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RINGS(command_lengths),   RINGS(tables_that_overflow), RINGS(commands_in_pieces),
		RINGS(memory_taken_away), RINGS(gone_in_the_middle),   RINGS(messages_that_lie),
	};

	return cmocka_run_group_tests_name("hostile control", tests, NULL, NULL);
}
