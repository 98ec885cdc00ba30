/* SPDX-License-Identifier: BSD-3-Clause */
/* dma_test.c - transfers: mapped memory at once, announced memory by messages to a VMM of the
 * test's
 */
#include "memory/dma.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "memory/memory.h"
#include "util/error.h"

#define PAGE 4096ull

/* Pages 0 and 1 are mapped, 2 and 3 announced, 4 mapped, 5 is nowhere. @guest is what the guest
 * has. */
struct fixture {
	struct dma_space space;
	int fd;
	char guest[6 * PAGE];
	struct list sent;
	unsigned messages;
	int status; /* of messages from now on */
	unsigned ready, finished, drained;
	int ready_status, finished_status;
	uint64_t unshared; /* address + 1 */
};

static void send_message(struct dma_space *space, struct dma_message *message)
{
	struct fixture *f = space->transport;

	assert_in_range(message->length, 1, space->message_max);
	list_add(&f->sent, &message->link);
	f->messages++;
}

/* The VMM serves what was sent, and what is sent meanwhile; the last first. */
static void serve(struct fixture *f)
{
	while (!list_empty(&f->sent)) {
		struct dma_message *m = container_of(f->sent.prev, struct dma_message, link);

		list_remove(&m->link);
		assert_in_range(m->address + m->length, 1, sizeof f->guest);
		if (m->direction == DMA_FROM_GUEST)
			memcpy(m->bytes, f->guest + m->address, m->length);
		else if (!f->status)
			memcpy(f->guest + m->address, m->bytes, m->length);
		m->done(m, f->status);
	}
}

static void unshared(struct dma_space *space, uint64_t address)
{
	struct fixture *f = space->transport;

	assert_int_equal(f->unshared, 0);
	f->unshared = address + 1;
}

static void drained(struct dma_space *space)
{
	((struct fixture *)space->transport)->drained++;
}

static void add(struct fixture *f, uint64_t at, uint64_t pages, int fd)
{
	struct error err = { 0 };

	if (memory_add(&f->space.memory, at, pages * PAGE, at, fd, at, &err))
		fail_msg("%s", err.text);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	list_init(&f->sent);
	f->fd = memfd_create("guest", MFD_CLOEXEC);
	assert_int_equal(ftruncate(f->fd, 6 * PAGE), 0);
	for (unsigned i = 0; i < sizeof f->guest; i++)
		f->guest[i] = (char)(1 + i % 251);
	assert_int_equal(pwrite(f->fd, f->guest, sizeof f->guest, 0), sizeof f->guest);
	f->space = (struct dma_space){
		.memory = memory_empty(),
		.send = send_message,
		.message_max = 1000,
		.unshared = unshared,
		.drained = drained,
		.transport = f,
	};
	add(f, 0, 2, f->fd);
	add(f, 2 * PAGE, 2, -1);
	add(f, 4 * PAGE, 1, f->fd);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	serve(f);
	assert_int_equal(f->space.bounced, 0);
	assert_null(f->space.check);
	assert_null(f->space.active);
	assert_int_equal(f->space.memory->users, 1);
	memory_release(f->space.memory);
	close(f->fd);
	free(f);
	return 0;
}

static void ready(struct dma_transfer *t, int status)
{
	struct fixture *f = t->owner;

	f->ready++;
	f->ready_status = status;
}

static void finished(struct dma_transfer *t, int status)
{
	struct fixture *f = t->owner;

	f->finished++;
	f->finished_status = status;
}

/* --- mapped ------------------------------------------------------------------------- */

static void mapped_memory_is_there_at_once(void **state)
{
	struct fixture *f = *state;
	struct dma_transfer t = { .owner = f };
	struct iovec vec[2];
	char byte = 0;

	dma_begin(&t, &f->space, vec, 2);
	assert_int_equal(dma_add(&t, PAGE - 10, 20), 0);
	assert_int_equal(dma_add(&t, 0, 0), 0);
	assert_int_equal(dma_add(&t, 4 * PAGE, PAGE), 0);
	assert_int_equal(t.count, 2);
	assert_int_equal(t.length, PAGE + 20);
	dma_ready(&t, DMA_TO_GUEST, ready);
	assert_int_equal(f->ready, 1);
	memset(vec[1].iov_base, 'x', PAGE);
	/* Unmapped meanwhile: ours until the end. */
	assert_int_equal(memory_remove(&f->space.memory, 4 * PAGE, PAGE, 4 * PAGE, NULL), 0);
	memset(vec[1].iov_base, 'y', 1);
	assert_false(dma_drain(&f->space, (char *)vec[1].iov_base + PAGE, 1));
	assert_false(dma_drain(&f->space, (char *)vec[1].iov_base - 1, 1));
	assert_true(dma_drain(&f->space, (char *)vec[1].iov_base + PAGE - 1, 1));
	assert_true(dma_drain(&f->space, vec[1].iov_base, 1));
	assert_int_equal(f->drained, 0);
	dma_finish(&t, t.length, finished);
	assert_int_equal(f->finished, 1);
	assert_int_equal(f->drained, 1);
	assert_int_equal(pread(f->fd, &byte, 1, 4 * PAGE), 1);
	assert_int_equal(byte, 'y');
	dma_begin(&t, &f->space, vec, 2);
	assert_int_equal(dma_add(&t, 4 * PAGE, 1), -EFAULT);
	dma_cancel(&t);
}

static void refuses_what_is_nowhere(void **state)
{
	struct fixture *f = *state;
	struct dma_transfer t = { .owner = f };
	struct iovec vec[2];

	dma_begin(&t, &f->space, vec, 2);
	assert_int_equal(dma_add(&t, 5 * PAGE - 1, 2), -EFAULT);
	dma_cancel(&t);
	dma_begin(&t, &f->space, vec, 2);
	assert_int_equal(dma_add(&t, UINT64_MAX, 2), -EFAULT);
	dma_cancel(&t);
	dma_begin(&t, &f->space, vec, 2);
	assert_int_equal(dma_add(&t, 0, 4 * PAGE + 1), -E2BIG);
	dma_cancel(&t);
}

static void maps_one_piece(void **state)
{
	struct fixture *f = *state;

	assert_non_null(dma_map(&f->space, 0, 2 * PAGE));
	assert_null(dma_map(&f->space, 0, 2 * PAGE + 1));
	assert_null(dma_map(&f->space, 2 * PAGE, 1));
	assert_null(dma_map(&f->space, 5 * PAGE, 1));
	assert_null(dma_map(&f->space, 4 * PAGE, UINT64_MAX));
	/* Two regions, one piece. */
	assert_int_equal(memory_remove(&f->space.memory, 2 * PAGE, 2 * PAGE, 2 * PAGE, NULL), 0);
	add(f, 2 * PAGE, 2, f->fd);
	assert_non_null(dma_map(&f->space, PAGE, 4 * PAGE));
	serve(f);
}

/* --- by messages -------------------------------------------------------------------- */

static void fetches_what_is_announced(void **state)
{
	struct fixture *f = *state;
	struct dma_transfer t = { .owner = f };
	struct iovec vec[4];

	dma_begin(&t, &f->space, vec, 4);
	assert_int_equal(dma_add(&t, PAGE, 4 * PAGE), 0);
	assert_int_equal(t.count, 3);
	dma_ready(&t, DMA_FROM_GUEST, ready);
	assert_int_equal(f->ready, 0);
	serve(f);
	assert_int_equal(f->ready, 1);
	assert_int_equal(f->ready_status, 0);
	assert_in_range(f->messages, 9, 20);
	for (unsigned i = 0, at = PAGE; i < 3; at += (unsigned)vec[i++].iov_len)
		assert_memory_equal(vec[i].iov_base, f->guest + at, vec[i].iov_len);
	dma_finish(&t, 0, finished);
	assert_int_equal(f->finished, 1);
}

static void delivers_as_much_as_there_is(void **state)
{
	struct fixture *f = *state;
	struct dma_transfer t = { .owner = f };
	struct iovec vec[4];
	char after = f->guest[3 * PAGE + 5];

	dma_begin(&t, &f->space, vec, 4);
	assert_int_equal(dma_add(&t, 2 * PAGE, PAGE), 0);
	assert_int_equal(dma_add(&t, 3 * PAGE, 10), 0);
	assert_int_equal(dma_add(&t, 3 * PAGE + 20, 10), 0);
	dma_ready(&t, DMA_TO_GUEST, ready);
	assert_int_equal(f->ready, 1);
	for (unsigned i = 0; i < 3; i++)
		memset(vec[i].iov_base, 'a' + (char)i, vec[i].iov_len);
	dma_finish(&t, PAGE + 5, finished);
	assert_int_equal(f->finished, 0);
	serve(f);
	assert_int_equal(f->finished, 1);
	assert_int_equal(f->finished_status, 0);
	assert_int_equal(f->guest[2 * PAGE], 'a');
	assert_int_equal(f->guest[3 * PAGE - 1], 'a');
	assert_int_equal(f->guest[3 * PAGE + 4], 'b');
	assert_int_equal(f->guest[3 * PAGE + 5], after);
	assert_int_not_equal(f->guest[3 * PAGE + 20], 'c');
}

static void tells_of_failures(void **state)
{
	struct fixture *f = *state;
	struct dma_transfer t = { .owner = f };
	struct iovec vec[4];

	f->status = -EIO;
	dma_begin(&t, &f->space, vec, 4);
	assert_int_equal(dma_add(&t, 2 * PAGE, 2 * PAGE), 0);
	dma_ready(&t, DMA_FROM_GUEST, ready);
	serve(f);
	assert_int_equal(f->ready_status, -EIO);
	assert_int_equal(f->messages, 1);
	dma_begin(&t, &f->space, vec, 4);
	assert_int_equal(dma_add(&t, 2 * PAGE, 2 * PAGE), 0);
	dma_ready(&t, DMA_TO_GUEST, ready);
	dma_finish(&t, PAGE, finished);
	serve(f);
	assert_int_equal(f->finished_status, -EIO);
}

static void bounce_buffers_are_limited(void **state)
{
	struct fixture *f = *state;
	struct dma_transfer t = { .owner = f };
	struct iovec vec[2];

	add(f, 1ull << 40, 1ull << 20, -1);
	dma_begin(&t, &f->space, vec, 2);
	assert_int_equal(dma_add(&t, 1ull << 40, 1ull << 30), -ENOMEM);
	assert_int_equal(dma_add(&t, 1ull << 40, 64 << 20), 0);
	assert_int_equal(dma_add(&t, 1ull << 40, 1), -ENOMEM);
	dma_cancel(&t);
}

/* --- whether memory is shared ------------------------------------------------------- */

static void touch(struct fixture *f, uint64_t address)
{
	struct dma_transfer t = { .owner = f };
	struct iovec vec[1];

	dma_begin(&t, &f->space, vec, 1);
	assert_int_equal(dma_add(&t, address, 100), 0);
	dma_cancel(&t);
	serve(f);
}

static void believes_what_is_shared(void **state)
{
	struct fixture *f = *state;

	touch(f, 100);
	assert_int_equal(f->messages, 1);
	touch(f, 200); /* once is enough */
	touch(f, 4 * PAGE);
	assert_int_equal(f->messages, 1);
	assert_int_equal(f->unshared, 0);
}

static void finds_out_what_is_not(void **state)
{
	struct fixture *f = *state;

	/* Zeroes prove nothing. */
	assert_int_equal(ftruncate(f->fd, 0), 0);
	assert_int_equal(ftruncate(f->fd, 6 * PAGE), 0);
	memset(f->guest, 0, PAGE);
	for (unsigned i = 0; i < 10; i++)
		touch(f, 100);
	assert_int_equal(f->messages, 10);
	assert_int_equal(f->unshared, 0);
	touch(f, PAGE + 100);
	assert_int_equal(f->unshared, PAGE + 101);
	touch(f, PAGE + 100);
}

/* A transfer from memory that is not known to be the guest's waits. */
static void holds_back_what_is_not_certain(void **state)
{
	struct fixture *f = *state;
	struct dma_transfer t = { .owner = f }, u = { .owner = f };
	struct iovec vec[2];

	dma_begin(&t, &f->space, vec, 1);
	assert_int_equal(dma_add(&t, 100, 100), 0);
	dma_ready(&t, DMA_FROM_GUEST, ready);
	dma_begin(&u, &f->space, vec + 1, 1);
	assert_int_equal(dma_add(&u, 200, 100), 0);
	dma_ready(&u, DMA_FROM_GUEST, ready);
	assert_int_equal(f->ready, 0);
	serve(f);
	assert_int_equal(f->ready, 2);
	dma_finish(&t, 0, finished);
	dma_finish(&u, 0, finished);
	dma_begin(&t, &f->space, vec, 1);
	assert_int_equal(dma_add(&t, 100, 100), 0);
	dma_ready(&t, DMA_FROM_GUEST, ready);
	assert_int_equal(f->ready, 3);
	dma_cancel(&t);
	/* And it never is ready if it is not. */
	assert_int_equal(memory_remove(&f->space.memory, 0, 2 * PAGE, 0, NULL), 0);
	assert_int_equal(memory_remove(&f->space.memory, 4 * PAGE, PAGE, 4 * PAGE, NULL), 0);
	add(f, 0, 2, f->fd);
	memset(f->guest, 'z', PAGE);
	dma_begin(&t, &f->space, vec, 1);
	assert_int_equal(dma_add(&t, 100, 100), 0);
	dma_ready(&t, DMA_FROM_GUEST, ready);
	serve(f);
	assert_int_equal(f->ready_status, -EFAULT);
	assert_int_equal(f->unshared, 101);
}

/* A ring looks empty, for it is another's; a register is written whenever there is something in it.
 */
static void looks_at_rings_again(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(ftruncate(f->fd, 0), 0);
	assert_int_equal(ftruncate(f->fd, 6 * PAGE), 0);
	memset(f->guest, 0, sizeof f->guest);
	for (unsigned i = 0; i < 40; i++)
		assert_non_null(dma_map(&f->space, i % 2 * PAGE, PAGE));
	for (unsigned i = 0; i < 50; i++) {
		dma_recheck(&f->space);
		serve(f);
	}
	assert_int_equal(f->unshared, 0);
	f->guest[PAGE + 1] = 1;
	for (unsigned i = 0; i < DMA_UNCERTAIN && !f->unshared; i++) {
		dma_recheck(&f->space);
		serve(f);
	}
	assert_int_equal(f->unshared, PAGE + 1);
	/* Nothing is uncertain any more. */
	f->messages = 0;
	dma_recheck(&f->space);
	assert_int_equal(f->messages, 0);
	assert_int_equal(f->space.uncertain_count, 0);
}

static void gives_up_asking(void **state)
{
	struct fixture *f = *state;

	f->status = -EOPNOTSUPP;
	for (unsigned i = 0; i < 2000; i++)
		touch(f, 100);
	assert_in_range(f->messages, 1, 1000);
	assert_int_equal(f->unshared, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(mapped_memory_is_there_at_once),
		TEST(refuses_what_is_nowhere),
		TEST(maps_one_piece),
		TEST(fetches_what_is_announced),
		TEST(delivers_as_much_as_there_is),
		TEST(tells_of_failures),
		TEST(bounce_buffers_are_limited),
		TEST(believes_what_is_shared),
		TEST(finds_out_what_is_not),
		TEST(gives_up_asking),
		TEST(looks_at_rings_again),
		TEST(holds_back_what_is_not_certain),
	};

	return cmocka_run_group_tests_name("dma", tests, NULL, NULL);
}
