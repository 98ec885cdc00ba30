/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scsi_scene.h - a daemon with one virtio-scsi device, and drivers on it, for the tests of it
 *
 *     0:0   a file of 16 MiB, in 512-byte blocks
 *     1:0   memory, 8 MiB
 *     1:5   memory, 4 MiB
 *     3:300 memory, 1 MiB
 *     4:0   each request takes SLOW_MS
 *     2:0   a CD-ROM drive, with a disc of 1 MiB
 *
 * on two loops, with four request queues, and room for two more units: 5:0, 6:0. The disk
 * "spare" is nobody's.
 */
#pragma once

#include "check.h"
#include "scsi_driver.h"

enum {
	SCENE_BYTES = 16 << 20,
	SCENE_BLOCKS = SCENE_BYTES / 512,
	SCENE_QUEUES = SCSI_REQUESTS + 4,
	SLOW_MS = 400,
	SLOW_TARGET = 4,
};

extern struct daemon scene_daemon;
extern struct driver *driver;

/* cmocka setup and teardown: the daemon. */
int scene_start(void **state);
int scene_stop(void **state);

/* Options for a driver of so many queues; 0: all. */
struct driver_options scene_options(unsigned queues);
/* Attaches a driver; each unit has been settled. */
void scene_open(const struct driver_options *options);
void scene_settle(void);

/* Queues of `driver`. */
struct virtq *control_queue(void);
struct virtq *event_queue(void);
struct virtq *request_queue(unsigned index);

/* A command with no data, or whose data are dropped, to a unit: its answer. */
struct scsi_answer scene_command(struct virtq *queue, unsigned target, unsigned lun,
				 const uint8_t *cdb, unsigned cdb_bytes, uint32_t in);
struct scsi_answer scene_test_unit_ready(unsigned target, unsigned lun);

/* Bytes that depend on their place and a seed. */
void scene_fill(uint8_t *bytes, size_t count, unsigned seed);
