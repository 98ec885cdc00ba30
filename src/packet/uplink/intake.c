/* SPDX-License-Identifier: BSD-3-Clause */
#include "packet/uplink/intake.h"

#include <errno.h>
#include <stdlib.h>

static void came_back(struct burst *burst)
{
	struct intake_burst *one = burst->owner;
	struct intake *intake = one->intake;

	one->next = intake->free;
	intake->free = one;
	intake->busy--;
	intake->returned(intake, one);
}

int intake_init(struct intake *intake, unsigned count, size_t area,
		void (*returned)(struct intake *intake, struct intake_burst *one))
{
	*intake = (struct intake){ .area = area, .returned = returned };
	intake->all = calloc(count, sizeof *intake->all);
	if (!intake->all)
		return -ENOMEM;
	for (; intake->count < count; intake->count++) {
		struct intake_burst *one = &intake->all[intake->count];

		one->intake = intake;
		one->burst = burst_create(came_back, one);
		/* malloc() takes so much from mmap(): pages that no frame needs stay unused. */
		one->area = area ? malloc(area) : NULL;
		if (!one->burst || (area && !one->area)) {
			intake->count++;
			intake_release(intake);
			return -ENOMEM;
		}
		one->next = intake->free;
		intake->free = one;
	}
	return 0;
}

void intake_release(struct intake *intake)
{
	for (unsigned i = 0; i < intake->count; i++) {
		if (intake->all[i].burst)
			burst_free(intake->all[i].burst);
		free(intake->all[i].area);
	}
	free(intake->all);
	*intake = (struct intake){ 0 };
}

struct intake_burst *intake_begin(struct intake *intake)
{
	struct intake_burst *one = intake->free;

	if (!one)
		return NULL;
	intake->free = one->next;
	intake->busy++;
	one->used = 0;
	one->slots = 0;
	burst_begin(one->burst);
	return one;
}
