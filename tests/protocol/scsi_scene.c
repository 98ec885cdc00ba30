/* SPDX-License-Identifier: BSD-3-Clause */
/* scsi_scene.c - a daemon with one virtio-scsi device, and drivers on it; see scsi_scene.h */
#include "scsi_scene.h"

struct daemon scene_daemon;
struct driver *driver;

int scene_start(void **state)
{
	(void)state;
	daemon_prepare(&scene_daemon);
	daemon_deadline(60);
	daemon_make_image(&scene_daemon, "disk.img", SCENE_BYTES);
	daemon_write_file(&scene_daemon, "config.yaml",
			  "loops: 2\n"
			  "disks:\n"
			  "  system:\n"
			  "    stack:\n"
			  "      - file: {path: %s/disk.img}\n"
			  "  one:\n"
			  "    stack:\n"
			  "      - memory: {size: 8M}\n"
			  "  five:\n"
			  "    stack:\n"
			  "      - memory: {size: 4M}\n"
			  "  far:\n"
			  "    stack:\n"
			  "      - memory: {size: 1M}\n"
			  "  spare:\n"
			  "    stack:\n"
			  "      - memory: {size: 2M}\n"
			  "  disc:\n"
			  "    stack:\n"
			  "      - memory: {size: 1M}\n"
			  "  slow:\n"
			  "    stack:\n"
			  "      - flaky: {delay: %dms}\n"
			  "      - memory: {size: 1M}\n"
			  "vms:\n"
			  "  guest:\n"
			  "    - virtio-scsi:\n"
			  "        - system\n"
			  "        - {disk: one, target: 1, serial: first}\n"
			  "        - {disk: five, target: 1, lun: 5}\n"
			  "        - {disk: far, target: 3, lun: 300}\n"
			  "        - {disk: slow, target: %d}\n"
			  "        - {disk: disc, target: 2, type: cdrom}\n"
			  "      socket: %s/s\n"
			  "      queues: %d\n"
			  "      units: 8\n",
			  scene_daemon.dir, SLOW_MS, SLOW_TARGET, scene_daemon.dir,
			  SCENE_QUEUES - SCSI_REQUESTS);
	const char *args[] = { "run", daemon_path(&scene_daemon, "config.yaml"), "--api",
			       daemon_path(&scene_daemon, "api"), NULL };
	daemon_start(&scene_daemon, args);
	return 0;
}

int scene_stop(void **state)
{
	(void)state;
	driver_close(driver);
	driver = NULL;
	daemon_clean(&scene_daemon);
	return 0;
}

struct driver_options scene_options(unsigned queues)
{
	return (struct driver_options){ .socket = daemon_path(&scene_daemon, "s"),
					.scsi = true,
					.queues = queues ? queues : SCENE_QUEUES,
					.queue_size = 64,
					.segments = 6,
					.slots = 8 };
}

void scene_settle(void)
{
	static const uint16_t unit[][2] = {
		{ 0, 0 }, { 1, 0 }, { 1, 5 }, { 3, 300 }, { SLOW_TARGET, 0 }
	};

	for (unsigned i = 0; i < sizeof(unit) / sizeof(*unit); i++)
		must(driver, scsi_settle(request_queue(0), unit[i][0], unit[i][1]));
}

void scene_open(const struct driver_options *options)
{
	int ret = driver_open(&driver, options);

	must(driver, ret);
	scene_settle();
	daemon_mark_log(&scene_daemon);
}

struct virtq *control_queue(void)
{
	return &driver->queue[SCSI_CONTROL];
}

struct virtq *event_queue(void)
{
	return &driver->queue[SCSI_EVENTS];
}

struct virtq *request_queue(unsigned index)
{
	return &driver->queue[SCSI_REQUESTS + index];
}

struct scsi_answer scene_command(struct virtq *queue, unsigned target, unsigned lun,
				 const uint8_t *cdb, unsigned cdb_bytes, uint32_t in)
{
	static uint8_t bytes[65536];
	struct scsi_answer answer = { 0 };

	must(driver, scsi_command(queue, target, lun, cdb, cdb_bytes, in ? SCSI_IN : SCSI_NONE,
				  bytes, in, &answer));
	return answer;
}

struct scsi_answer scene_test_unit_ready(unsigned target, unsigned lun)
{
	static const uint8_t cdb[6] = { 0 };

	return scene_command(request_queue(0), target, lun, cdb, sizeof(cdb), 0);
}

void scene_fill(uint8_t *bytes, size_t count, unsigned seed)
{
	for (size_t i = 0; i < count; i++)
		bytes[i] = (uint8_t)((i * 31 + seed * 7 + (i >> 8)) | 1);
}
