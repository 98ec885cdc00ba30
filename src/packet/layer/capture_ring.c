/* SPDX-License-Identifier: BSD-3-Clause */
/* capture_ring.c - see capture_ring.h */
#include "packet/layer/capture_ring.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct capture_ring *capture_ring_create(void)
{
	struct capture_ring *ring = aligned_alloc(64, sizeof *ring);
	void *bytes = mmap(NULL, CAPTURE_RING, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (!ring || bytes == MAP_FAILED) {
		if (bytes != MAP_FAILED)
			munmap(bytes, CAPTURE_RING);
		free(ring);
		return NULL;
	}
	memset(ring, 0, sizeof *ring);
	ring->bytes = bytes;
	return ring;
}

void capture_ring_free(struct capture_ring *ring)
{
	if (ring)
		munmap(ring->bytes, CAPTURE_RING);
	free(ring);
}
