/* SPDX-License-Identifier: BSD-3-Clause */
/* pvscsi_scene.h - a PVSCSI adapter behind vfio-user, and its driver: connected, mapped, started */
#pragma once

#include "pvscsi_driver.h"
#include "vfio_user_client.h"

struct pvscsi_scene {
	struct vfu_client vmm;
	struct hba hba;
	char *memory; /* at guest address PVSCSI_SCENE_GUEST */
	uint64_t bytes;
	int memory_fd, event_fd; /* MSI-X vector 0 */
	bool waits;              /* for register writes; else they are posted, as QEMU does */
	char error[200];
};

#define PVSCSI_SCENE_GUEST 0x100000ull

/*
 * Connects to `socket`. The caller has set hba.pages, .msg_pages, .slots, .slot_bytes and
 * .threshold. 0 or -errno with scene->error.
 */
int pvscsi_scene_open(struct pvscsi_scene *scene, const char *socket);
/* Bus mastering, interrupts, rings: again after a reset. */
int pvscsi_scene_start(struct pvscsi_scene *scene);
void pvscsi_scene_close(struct pvscsi_scene *scene);
