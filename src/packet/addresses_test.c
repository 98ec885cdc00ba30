/* SPDX-License-Identifier: BSD-3-Clause */
/* addresses_test.c - the table of addresses: learned, moved, aged, capped; read while it changes */
#include "packet/addresses.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define AGEING 300u
#define PORTS  16u

static void test_learn_find_move(void **state)
{
	struct addresses *a = addresses_create(100, AGEING, PORTS);
	uint64_t key = address_key(1, 0x525400000001), other = address_key(2, 0x525400000001);

	(void)state;
	assert_non_null(a);
	assert_int_equal(addresses_find(a, key, 1000), ADDRESS_UNKNOWN);
	assert_int_equal(addresses_learn(a, key, 3, 1000, 10, false), ADDRESS_REFUSED);
	assert_int_equal(addresses_learn(a, key, 3, 1000, 10, true), ADDRESS_NEW);
	assert_int_equal(addresses_find(a, key, 1000), 3);
	assert_int_equal(addresses_find(a, other, 1000), ADDRESS_UNKNOWN); /* another VLAN */
	assert_int_equal(addresses_learn(a, key, 3, 1001, 10, false), ADDRESS_KNOWN);
	assert_int_equal(addresses_learn(a, key, 4, 1001, 10, true), ADDRESS_NEW); /* moved */
	assert_int_equal(addresses_find(a, key, 1001), 4);
	assert_int_equal(addresses_count(a, 3), 0);
	assert_int_equal(addresses_count(a, 4), 1);
	assert_int_equal(addresses_count(a, -1), 1);
	/* Seen again it stays; not seen it goes. */
	assert_int_equal(addresses_learn(a, key, 4, 1001 + AGEING, 10, true), ADDRESS_KNOWN);
	assert_int_equal(addresses_find(a, key, 1001 + 2 * AGEING), 4);
	assert_int_equal(addresses_find(a, key, 1002 + 2 * AGEING), ADDRESS_UNKNOWN);
	addresses_free(a);
}

static void test_caps(void **state)
{
	struct addresses *a = addresses_create(64, AGEING, PORTS);
	unsigned known = 0;

	(void)state;
	for (uint64_t i = 0; i < 20; i++)
		known += addresses_learn(a, address_key(1, i), 1, 1000, 8, true) == ADDRESS_NEW;
	assert_int_equal(known, 8);
	assert_int_equal(addresses_count(a, 1), 8);
	/* Another port has its own share, and the table an end. */
	for (uint64_t i = 100; i < 300; i++)
		known += addresses_learn(a, address_key(1, i), 2, 1000, 1000, true) == ADDRESS_NEW;
	assert_true(known <= 64);
	assert_true(known >= 60);
	/* When they are old their places are given away. */
	assert_int_equal(addresses_learn(a, address_key(1, 500), 1, 1001 + AGEING, 8, true),
			 ADDRESS_NEW);
	assert_int_equal(addresses_count(a, -1), 1);
	addresses_free(a);
}

/* A router has one address in as many VLANs as there are. */
static void test_one_address_in_all_vlans(void **state)
{
	struct addresses *a = addresses_create(16384, AGEING, PORTS);

	(void)state;
	for (uint16_t vlan = 1; vlan <= 4094; vlan++)
		assert_int_equal(
			addresses_learn(a, address_key(vlan, 0x525400000001), 1, 1000, 8192, true),
			ADDRESS_NEW);
	addresses_free(a);
}

static void test_full_table_lets_move(void **state)
{
	struct addresses *a = addresses_create(16, AGEING, PORTS);

	(void)state;
	for (uint64_t i = 0; i < 16; i++)
		addresses_learn(a, address_key(1, i), 1, 1000, 100, true);
	assert_int_equal(addresses_count(a, -1), 16);
	assert_int_equal(addresses_learn(a, address_key(1, 99), 2, 1000, 100, true),
			 ADDRESS_REFUSED);
	assert_int_equal(addresses_learn(a, address_key(1, 7), 2, 1000, 100, true), ADDRESS_NEW);
	/* One that is too old, and moves to a port that is full: it is forgotten once, not twice.
	 */
	assert_int_equal(addresses_learn(a, address_key(1, 7), 3, 1001 + AGEING, 0, true),
			 ADDRESS_REFUSED);
	assert_int_equal(addresses_count(a, -1), 0);
	addresses_free(a);
}

static void test_static_and_forget(void **state)
{
	struct addresses *a = addresses_create(64, AGEING, PORTS);
	uint64_t fixed = address_key(1, 77), learned = address_key(1, 78);

	(void)state;
	assert_true(addresses_set(a, fixed, 5));
	assert_int_equal(addresses_find(a, fixed, 1 << 30), 5); /* it does not age */
	assert_int_equal(addresses_learn(a, fixed, 6, 1000, 10, true), ADDRESS_STATIC);
	assert_int_equal(addresses_learn(a, fixed, 5, 1000, 10, true), ADDRESS_KNOWN);
	assert_int_equal(addresses_learn(a, learned, 5, 1000, 10, true), ADDRESS_NEW);
	assert_int_equal(addresses_forget(a, 6, true), 0);
	assert_int_equal(addresses_forget(a, 5, false), 1);
	assert_int_equal(addresses_find(a, fixed, 1000), 5);
	assert_int_equal(addresses_forget(a, -1, true), 1);
	assert_int_equal(addresses_find(a, fixed, 1000), ADDRESS_UNKNOWN);
	addresses_free(a);
}

/*
 * Keys whose port follows from the key come and go while others read: whatever is found is right.
 * The table is small, so that entries are given to one key after another.
 */
static struct addresses *shared;
static atomic_bool ending;

static unsigned port_of_key(uint64_t mac)
{
	return (unsigned)(mac % PORTS);
}

static void *writer(void *data)
{
	uint32_t now = 1000;

	(void)data;
	for (uint64_t i = 0; i < 60000; i++) {
		uint64_t mac = i * 7 % 200;

		now += i % 50 == 0 ? AGEING : 0;
		addresses_learn(shared, address_key(1, mac), port_of_key(mac), now, 1000, true);
		if (i % 1000 == 0)
			addresses_forget(shared, (int)(i / 1000 % PORTS), false);
	}
	atomic_store(&ending, true);
	return NULL;
}

static void *reader(void *data)
{
	uintptr_t wrong = 0;

	(void)data;
	while (!atomic_load(&ending))
		for (uint64_t mac = 0; mac < 200; mac++) {
			int found = addresses_find(shared, address_key(1, mac), 0);

			wrong += found != ADDRESS_UNKNOWN && (unsigned)found != port_of_key(mac);
		}
	return (void *)wrong;
}

static void test_read_while_it_changes(void **state)
{
	pthread_t threads[3];
	void *wrong;

	(void)state;
	shared = addresses_create(64, AGEING, PORTS);
	pthread_create(&threads[0], NULL, writer, NULL);
	pthread_create(&threads[1], NULL, reader, NULL);
	pthread_create(&threads[2], NULL, reader, NULL);
	pthread_join(threads[0], NULL);
	for (unsigned i = 1; i < 3; i++) {
		pthread_join(threads[i], &wrong);
		assert_null(wrong);
	}
	addresses_free(shared);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_learn_find_move),
		cmocka_unit_test(test_caps),
		cmocka_unit_test(test_one_address_in_all_vlans),
		cmocka_unit_test(test_full_table_lets_move),
		cmocka_unit_test(test_static_and_forget),
		cmocka_unit_test(test_read_while_it_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
