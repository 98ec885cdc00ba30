/* SPDX-License-Identifier: BSD-3-Clause */
/* memory_test.c - tables of guest memory, the checked gather, and memory that is truncated under us
 */
#include "memory/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "util/error.h"

#define PAGE 4096ull

static int make_file(uint64_t size)
{
	int fd = memfd_create("memory", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

/* One more region. */
static void add(struct memory **memory, uint64_t guest, uint64_t size, uint64_t user, int fd,
		uint64_t offset)
{
	struct error err = { 0 };

	if (memory_add(memory, guest, size, user, fd, offset, &err))
		fail_msg("%s", err.text);
}

static void refused(struct memory *memory, uint64_t guest, uint64_t size, uint64_t user, int fd,
		    uint64_t offset, const char *why)
{
	struct error err = { 0 };

	assert_int_not_equal(memory_add(&memory, guest, size, user, fd, offset, &err), 0);
	if (!strstr(err.text, why))
		fail_msg("refused with '%s', not '%s'", err.text, why);
}

/*
 * Guest 0..2 pages, 2..3 pages (adjacent, another place in the file), a hole, 8..9 pages. In
 * the VMM at the same addresses plus 1 MiB.
 */
#define USER (1ull << 20)

static struct memory *make_table(int fd)
{
	struct memory *memory = memory_empty();

	/* Not in order: the table is sorted all the same. */
	add(&memory, 2 * PAGE, PAGE, USER + 2 * PAGE, fd, 5 * PAGE);
	add(&memory, 8 * PAGE, PAGE, USER + 8 * PAGE, fd, 3 * PAGE);
	add(&memory, 0, 2 * PAGE, USER, fd, 0);
	return memory;
}

static void gathers(void **unused)
{
	int fd = make_file(8 * PAGE);
	struct memory *memory = make_table(fd);
	struct iovec vec[4];
	char byte = 0;

	(void)unused;
	assert_int_equal(memory_gather(memory, 10, 0, vec, 4), 0);
	assert_int_equal(memory_gather(memory, 10, 100, vec, 4), 1);
	assert_int_equal(vec[0].iov_len, 100);
	/* Across two that are neighbours for the guest alone. */
	assert_int_equal(memory_gather(memory, PAGE, 2 * PAGE, vec, 4), 2);
	assert_int_equal(vec[0].iov_len, PAGE);
	assert_int_equal(vec[1].iov_len, PAGE);
	memset(vec[1].iov_base, 'x', 1);
	assert_int_equal(pread(fd, &byte, 1, 5 * PAGE), 1);
	assert_int_equal(byte, 'x');
	assert_int_equal(memory_gather(memory, PAGE, 2 * PAGE, vec, 1), -E2BIG);
	/* The last byte, and one more. */
	assert_int_equal(memory_gather(memory, 9 * PAGE - 1, 1, vec, 4), 1);
	assert_int_equal(memory_gather(memory, 9 * PAGE - 1, 2, vec, 4), -EFAULT);
	/* Into the hole, out of it, beyond all, around the end of addresses. */
	assert_int_equal(memory_gather(memory, 3 * PAGE - 1, 2, vec, 4), -EFAULT);
	assert_int_equal(memory_gather(memory, 8 * PAGE - 1, 2, vec, 4), -EFAULT);
	assert_int_equal(memory_gather(memory, 5 * PAGE, 1, vec, 4), -EFAULT);
	assert_int_equal(memory_gather(memory, UINT64_MAX, 1, vec, 4), -EFAULT);
	assert_int_equal(memory_gather(memory, 8 * PAGE, UINT64_MAX, vec, 4), -EFAULT);
	memory_release(memory);
	close(fd);
}

static void looks_up_user_addresses(void **unused)
{
	int fd = make_file(8 * PAGE);
	struct memory *memory = make_table(fd);
	struct iovec vec;

	(void)unused;
	assert_int_equal(memory_gather(memory, PAGE, PAGE, &vec, 1), 1);
	assert_ptr_equal(memory_user(memory, USER + PAGE, PAGE), vec.iov_base);
	assert_null(memory_user(memory, USER + PAGE, PAGE + 1)); /* no ring lies across two */
	assert_non_null(memory_user(memory, USER + 9 * PAGE - 1, 1));
	assert_null(memory_user(memory, USER + 9 * PAGE, 1));
	assert_null(memory_user(memory, USER - 1, 2));
	assert_null(memory_user(memory, USER, UINT64_MAX));
	assert_null(memory_user(memory, UINT64_MAX, 2));
	memory_release(memory);
	close(fd);
}

static void refuses_what_does_not_fit(void **unused)
{
	int fd = make_file(8 * PAGE);
	struct memory *memory = make_table(fd);

	(void)unused;
	refused(memory, PAGE, PAGE, 1ull << 30, fd, 0, "overlaps");
	refused(memory, 3 * PAGE - 1, PAGE, 1ull << 30, fd, 0, "overlaps");
	refused(memory, 7 * PAGE, PAGE + 1, 1ull << 30, fd, 0, "overlaps");
	refused(memory, 1ull << 30, PAGE, USER + PAGE, fd, 0, "overlaps");
	refused(memory, 1ull << 30, 0, 1ull << 30, fd, 0, "impossible");
	refused(memory, UINT64_MAX - 10, PAGE, 1ull << 30, fd, 0, "impossible");
	refused(memory, 1ull << 30, PAGE, UINT64_MAX - 10, fd, 0, "impossible");
	refused(memory, 1ull << 30, PAGE, 1ull << 30, fd, 7 * PAGE + 1, "file");
	refused(memory, 1ull << 30, PAGE, 1ull << 30, fd, UINT64_MAX - 10, "too large");
	assert_int_equal(memory->count, 3);
	memory_release(memory);
	close(fd);
}

static void removes_exactly_one(void **unused)
{
	int fd = make_file(8 * PAGE);
	struct memory *memory = make_table(fd), *old;
	struct error err = { 0 };
	struct iovec vec[2];

	(void)unused;
	assert_int_equal(memory_remove(&memory, 8 * PAGE, PAGE - 1, USER + 8 * PAGE, &err),
			 -EINVAL);
	assert_int_equal(memory_remove(&memory, 8 * PAGE, PAGE, USER, &err), -EINVAL);
	assert_int_equal(memory_remove(&memory, 7 * PAGE, PAGE, USER + 8 * PAGE, &err), -EINVAL);
	old = memory_hold(memory);
	assert_int_equal(memory_remove(&memory, 2 * PAGE, PAGE, USER + 2 * PAGE, &err), 0);
	/* The old table stands until it is let go, the new one after that. */
	assert_ptr_not_equal(memory, old);
	assert_int_equal(memory_gather(old, 2 * PAGE, 1, vec, 2), 1);
	memory_release(old);
	assert_int_equal(memory_gather(memory, 2 * PAGE, 1, vec, 2), -EFAULT);
	assert_int_equal(memory_gather(memory, 0, PAGE, vec, 2), 1);
	memset(vec[0].iov_base, 1, PAGE);
	assert_ptr_equal(memory_hold(memory), memory);
	memory_release(memory);
	/* Alone with it again: in place. */
	old = memory;
	add(&memory, 2 * PAGE, PAGE, USER + 2 * PAGE, fd, 5 * PAGE);
	assert_ptr_equal(memory, old);
	memory_release(memory);
	memory_release(NULL);
	close(fd);
}

/* A virtual IOMMU has one a page, in any order. */
static void holds_so_many_regions(void **unused)
{
	int fd = make_file(PAGE);
	struct memory *memory = memory_empty();
	struct error err = { 0 };
	struct iovec vec;

	(void)unused;
	for (uint64_t i = 0; i < 4000; i++)
		add(&memory, i * 7 % 4000 * 2 * PAGE, PAGE, i * 2 * PAGE, fd, 0);
	for (uint64_t i = 0; i < 4000; i++) {
		assert_int_equal(memory_gather(memory, i * 2 * PAGE, PAGE, &vec, 1), 1);
		assert_int_equal(memory_gather(memory, (i * 2 + 1) * PAGE, 1, &vec, 1), -EFAULT);
	}
	for (unsigned i = 1; i < 4000; i++)
		assert_ptr_equal(memory->region[i].map, memory->region[0].map);
	for (uint64_t i = 0; i < 4000; i++)
		assert_int_equal(
			memory_remove(&memory, i * 7 % 4000 * 2 * PAGE, PAGE, i * 2 * PAGE, &err),
			0);
	assert_int_equal(memory->count, 0);
	memory_release(memory);
	close(fd);
}

/* Regions that the VMM has announced without a descriptor. */
static void knows_what_is_only_announced(void **unused)
{
	int fd = make_file(8 * PAGE);
	struct memory *memory = make_table(fd);
	struct iovec vec[4];

	(void)unused;
	add(&memory, 3 * PAGE, 2 * PAGE, USER + 3 * PAGE, -1, 0);
	refused(memory, 4 * PAGE, PAGE, 1ull << 30, -1, 0, "overlaps");
	assert_int_equal(memory_gather(memory, 2 * PAGE, PAGE, vec, 4), 1);
	assert_int_equal(memory_gather(memory, 4 * PAGE, 1, vec, 4), -EREMOTE);
	assert_int_equal(memory_gather(memory, PAGE, 3 * PAGE, vec, 4), -EREMOTE);
	assert_int_equal(memory_gather(memory, 4 * PAGE, 2 * PAGE, vec, 4), -EFAULT);
	assert_null(memory_user(memory, USER + 3 * PAGE, 1));
	assert_null(memory_find(memory, 4 * PAGE)->map);
	assert_null(memory_find(memory, 5 * PAGE));
	assert_false(memory_broken(memory));
	memory_release(memory);
	close(fd);
}

/* The offset in the file need be no multiple of a page. */
static void maps_odd_places(void **unused)
{
	int fd = make_file(3 * PAGE);
	struct memory *memory = memory_empty();
	struct iovec vec;
	char byte = 0;

	(void)unused;
	add(&memory, 0x1000, 0x1800, 0x1000, fd, 0x801);
	assert_int_equal(memory_gather(memory, 0x1000, 0x1800, &vec, 1), 1);
	memset(vec.iov_base, 'a', vec.iov_len);
	assert_int_equal(pread(fd, &byte, 1, 0x800), 1);
	assert_int_equal(byte, 0);
	assert_int_equal(pread(fd, &byte, 1, 0x801 + 0x17ff), 1);
	assert_int_equal(byte, 'a');
	memory_release(memory);
	close(fd);
}

/* --- the guard: each test installs it, for cmocka has handlers of its own --------------- */

#define THREADS 4

static void *touch_all(void *data)
{
	struct iovec *vec = data;
	volatile char *at = vec->iov_base;
	unsigned sum = 0;

	for (unsigned round = 0; round < 20; round++)
		for (size_t i = 0; i < vec->iov_len; i += 512) {
			sum += (unsigned)at[i];
			at[i] = (char)round;
		}
	return (void *)(uintptr_t)(sum & 1);
}

static void survives_truncated_memory(void **unused)
{
	int gone = make_file(64 * PAGE), whole = make_file(PAGE);
	struct memory *memory = memory_empty(), *other = memory_empty();
	unsigned before = atomic_load(&memory_faults);
	pthread_t thread[THREADS];
	struct iovec vec;

	(void)unused;
	memory_guard_install();
	add(&memory, 0, 64 * PAGE, 0, gone, 0);
	add(&other, 0, PAGE, 0, whole, 0);
	assert_int_equal(memory_gather(memory, 0, 64 * PAGE, &vec, 1), 1);
	assert_false(memory_broken(memory));
	assert_int_equal(ftruncate(gone, PAGE), 0);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, touch_all, &vec), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	assert_true(memory_broken(memory));
	assert_true(atomic_load(&memory_faults) > before);
	assert_false(memory_broken(other));
	memory_release(memory);
	memory_release(other);
	close(gone);
	close(whole);
}

/* A SIGBUS that is none of the guard's business ends the process. */
static void a_real_fault_is_fatal(void **unused)
{
	int fd = make_file(PAGE), status;
	volatile char *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	pid_t child;

	(void)unused;
	memory_guard_install();
	assert_ptr_not_equal(at, MAP_FAILED);
	assert_int_equal(ftruncate(fd, 0), 0);
	child = fork();
	if (!child) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
		alarm(10);
		*at = 1;
		_exit(0);
	}
	waitpid(child, &status, 0);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGBUS);
	munmap((void *)at, PAGE);
	close(fd);
}

static void guard_slots_are_used_again(void **unused)
{
	int fd = make_file(PAGE);
	struct iovec vec;

	(void)unused;
	memory_guard_install();
	for (unsigned i = 0; i < 10000; i++) { /* there are 4096 */
		struct memory *memory = memory_empty();

		add(&memory, 0, PAGE, 0, fd, 0);
		if (i % 1000 == 0) {
			assert_int_equal(memory_gather(memory, 0, 1, &vec, 1), 1);
			assert_int_equal(ftruncate(fd, 0), 0);
			*(volatile char *)vec.iov_base = 1;
			assert_true(memory_broken(memory));
			assert_int_equal(ftruncate(fd, PAGE), 0);
		}
		memory_release(memory);
	}
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gathers),
		cmocka_unit_test(looks_up_user_addresses),
		cmocka_unit_test(refuses_what_does_not_fit),
		cmocka_unit_test(removes_exactly_one),
		cmocka_unit_test(holds_so_many_regions),
		cmocka_unit_test(knows_what_is_only_announced),
		cmocka_unit_test(maps_odd_places),
		cmocka_unit_test(survives_truncated_memory),
		cmocka_unit_test(a_real_fault_is_fatal),
		cmocka_unit_test(guard_slots_are_used_again),
	};

	return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
