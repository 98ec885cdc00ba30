/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * reservation_fuzz.c - files of persistent reservations of any bytes
 *
 * The first byte of an input, if odd, has the right checksum added to the rest, so that what is
 * behind it is reached. What is taken must be the same after it was stored and read again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "frontend/scsi/reservation.h"
#include "fuzz.h"
#include "util/error.h"

#define DISK "d"

static int fd;
static char path[64], kept[64];

static uint32_t checksum(const uint8_t *bytes, size_t n)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < n * 8; i++) {
		if (i % 8 == 0)
			crc ^= bytes[i / 8];
		crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	(void)count;
	(void)arguments;
	fd = memfd_create("reservations", MFD_CLOEXEC);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	snprintf(kept, sizeof kept, "/tmp/penstock-fuzz-%d", (int)getpid());
	return fd < 0;
}

/* Too slow for each input, as it syncs: for those only that are taken. */
static void check_stored(const struct reservations *state)
{
	struct reservations again;
	struct error err = { 0 };

	if (reservation_store(kept, DISK, state, &err) ||
	    reservation_load(kept, DISK, &again, &err) || memcmp(state, &again, sizeof again)) {
		fprintf(stderr, "reservation_fuzz: not the same: %s\n", err.text);
		abort();
	}
	unlink(kept);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reservations state;
	struct error err = { 0 };

	if (!size || ftruncate(fd, 0) || pwrite(fd, data + 1, size - 1, 0) != (ssize_t)size - 1)
		return 0;
	if (data[0] & 1) {
		char line[32];
		int n = snprintf(line, sizeof line, "crc32c %08x\n", checksum(data + 1, size - 1));

		if (pwrite(fd, line, (size_t)n, (off_t)size - 1) != n)
			return 0;
	}
	if (!reservation_load(path, DISK, &state, &err))
		check_stored(&state);
	else if (!*err.text)
		abort();
	return 0;
}
