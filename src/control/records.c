/* SPDX-License-Identifier: BSD-3-Clause */
/* records.c - what the control side keeps of each disk beside the disk; see records.h */
#include "control/records.h"

#include <errno.h>
#include <stdlib.h>

#include "control/daemon.h"
#include "control/moves.h"
#include "layer/disk.h"
#include "util/error.h"

bool record_add(struct daemon *daemon, struct disk *disk)
{
	struct disk_record *record = calloc(1, sizeof *record);

	if (!record)
		return false;
	record->disk = disk;
	list_add(&daemon->records, &record->link);
	return true;
}

struct disk_record *record_of(const struct daemon *daemon, const struct disk *disk)
{
	list_for_each (link, &daemon->records) {
		struct disk_record *record = container_of(link, struct disk_record, link);

		if (record->disk == disk)
			return record;
	}
	return NULL;
}

void record_remove(struct daemon *daemon, const struct disk *disk)
{
	struct disk_record *record = record_of(daemon, disk);

	moves_forget(record->move);
	list_remove(&record->link);
	free(record);
}

int record_take(struct daemon *daemon, struct disk *disk, const char *what, struct error *err)
{
	struct disk_record *record = record_of(daemon, disk);

	if (record->busy)
		return error_set(err, EBUSY, "disk '%s': %s; one thing at a time", disk->name,
				 record->busy);
	record->busy = what;
	return 0;
}

void record_done(struct daemon *daemon, struct disk *disk)
{
	record_of(daemon, disk)->busy = NULL;
}

void record_change(struct daemon *daemon, const struct disk *disk, uint64_t pause)
{
	struct disk_record *record = record_of(daemon, disk);

	record->changes++;
	record->pause = pause;
	record->all_pauses += pause;
	if (pause > record->longest_pause)
		record->longest_pause = pause;
}
