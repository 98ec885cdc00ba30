/* SPDX-License-Identifier: BSD-3-Clause */
/* inflight.c - what the inflight records of both ring formats have in common; see inflight.h */
#include "frontend/virtio/inflight.h"

#include <stdlib.h>

#include "frontend/virtio/virtqueue.h"

int inflight_recorded(struct virtqueue *vq)
{
	const struct inflight_header *header = vq->setup.inflight;

	if (!header->version)
		return 0;
	if (header->version != INFLIGHT_VERSION || header->desc_num != vq->size)
		return virtqueue_break(
			vq,
			"its inflight region is of version %u for %u entries; expected version %d for %u",
			header->version, header->desc_num, INFLIGHT_VERSION, vq->size);
	return 1;
}

void inflight_again(struct virtqueue *vq, uint16_t id, uint64_t counter)
{
	vq->again[vq->again_count++] = (struct again){ counter, id };
	if (counter >= vq->counter)
		vq->counter = counter + 1;
}

static int by_counter(const void *a, const void *b)
{
	const struct again *x = a, *y = b;

	return x->counter < y->counter ? -1 : x->counter > y->counter;
}

void inflight_again_sort(struct virtqueue *vq)
{
	qsort(vq->again, vq->again_count, sizeof *vq->again, by_counter);
}
