/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * guard.c - survives a VMM that truncates the memory it shares with us
 *
 * Memory comes as a file descriptor that the other side keeps and can shrink; a load or
 * store beyond its end then raises SIGBUS, which would end the process and with it every
 * other VM. The handler looks the address up among the guarded mappings, puts anonymous
 * zero pages over the whole mapping, marks it broken and returns: the instruction is
 * tried again and succeeds. A SIGBUS anywhere else is a real one and ends the process.
 *
 * The handler runs on the thread that faulted, at any instruction, so the table is an
 * array of atomics. A slot's base is written last when it is filled and cleared first.
 * System calls that are given such memory fail with EFAULT and need none of this.
 */
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#include "memory/memory.h"

#define SLOTS 4096

static struct slot {
	_Atomic(char *) base;
	_Atomic size_t length;
	_Atomic(atomic_bool *) broken;
	atomic_bool taken;
} slots[SLOTS];

static atomic_int slots_used; /* one more than the highest that was ever taken */

atomic_uint memory_faults;

static void caught(int number, siginfo_t *info, void *context)
{
	int used = atomic_load(&slots_used), saved = errno;
	char *at = info->si_addr;

	(void)context;
	for (int i = 0; i < used; i++) {
		char *base = atomic_load(&slots[i].base);
		size_t length = atomic_load(&slots[i].length);

		if (!base || at < base || at >= base + length)
			continue;
		if (mmap(base, length, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
			 0) == MAP_FAILED)
			break;
		atomic_store(slots[i].broken, true);
		atomic_fetch_add(&memory_faults, 1);
		errno = saved;
		return;
	}
	signal(number, SIG_DFL); /* it comes again at once, and ends us with a core */
}

void memory_guard_install(void)
{
	struct sigaction action = { .sa_sigaction = caught, .sa_flags = SA_SIGINFO };

	sigemptyset(&action.sa_mask);
	sigaction(SIGBUS, &action, NULL);
}

int memory_guard_add(char *base, size_t length, atomic_bool *broken)
{
	for (int i = 0; i < SLOTS; i++) {
		bool taken = false;
		int used = i;

		if (!atomic_compare_exchange_strong(&slots[i].taken, &taken, true))
			continue;
		atomic_store(&slots[i].length, length);
		atomic_store(&slots[i].broken, broken);
		atomic_store(&slots[i].base, base);
		while (used <= i && !atomic_compare_exchange_weak(&slots_used, &used, i + 1))
			;
		return i;
	}
	return -ENOSPC;
}

void memory_guard_remove(int slot)
{
	atomic_store(&slots[slot].base, NULL);
	atomic_store(&slots[slot].taken, false);
}
