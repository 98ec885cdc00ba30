/* SPDX-License-Identifier: BSD-3-Clause */
/* pvscsi_scene.c - a PVSCSI adapter behind vfio-user, and its driver; see pvscsi_scene.h */
#include "pvscsi_scene.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint32_t bus_read(void *owner, uint32_t offset)
{
	struct pvscsi_scene *scene = owner;

	return (uint32_t)vfu_get(&scene->vmm, VFU_BAR0, offset, 4);
}

static void bus_write(void *owner, uint32_t offset, uint32_t value)
{
	struct pvscsi_scene *scene = owner;
	int ret = scene->waits ? vfu_write(&scene->vmm, VFU_BAR0, offset, &value, 4)
			       : vfu_post(&scene->vmm, VFU_BAR0, offset, &value, 4);

	if (ret && !*scene->error)
		snprintf(scene->error, sizeof(scene->error), "writing register %#x: %s", offset,
			 strerror(-ret));
}

static int failed(struct pvscsi_scene *scene, const char *what, int ret)
{
	snprintf(scene->error, sizeof(scene->error), "%s: %s", what,
		 ret < 0 ? strerror(-ret) : strerror(ret));
	return ret < 0 ? ret : -ret;
}

int pvscsi_scene_open(struct pvscsi_scene *scene, const char *socket)
{
	struct hba *hba = &scene->hba;
	int ret;

	scene->bytes = 4096ull * (2 + 2 * hba->pages + hba->msg_pages + hba->slots / 16 + 1) +
		       hba->slots * (4096ull + (hba->slot_bytes + 4095) / 4096 * 4096ull);
	scene->bytes = (scene->bytes + (1 << 20)) >> 20 << 20;
	scene->vmm.fd = scene->memory_fd = scene->event_fd = -1;
	scene->memory = vfu_memory(scene->bytes, &scene->memory_fd);
	if (!scene->memory)
		return failed(scene, "memory", -ENOMEM);
	hba->bus = (struct hba_bus){ scene, bus_read, bus_write };
	hba->memory = (uint8_t *)scene->memory;
	hba->guest = PVSCSI_SCENE_GUEST;
	hba->bytes = scene->bytes;
	ret = hba_init(hba);
	if (ret)
		return failed(scene, hba->error, ret);
	ret = vfu_open(&scene->vmm, socket);
	if (ret)
		return failed(scene, socket, ret);
	ret = vfu_map(&scene->vmm, PVSCSI_SCENE_GUEST, scene->bytes, scene->memory,
		      scene->memory_fd, 0, 3);
	if (ret)
		return failed(scene, "DMA_MAP", ret);
	return pvscsi_scene_start(scene);
}

int pvscsi_scene_start(struct pvscsi_scene *scene)
{
	int ret = vfu_reset(&scene->vmm);

	if (!ret)
		ret = vfu_put(&scene->vmm, VFU_CONFIG, 4, 2, 6);
	if (ret)
		return failed(scene, "RESET", ret);
	if (scene->event_fd < 0)
		scene->event_fd = vfu_eventfd(&scene->vmm, VFU_MSIX, 0);
	if (scene->event_fd < 0)
		return failed(scene, "SET_IRQS", scene->event_fd);
	*scene->error = 0;
	hba_start(&scene->hba, HBA_INTR_CMPL | HBA_INTR_MSG);
	return *scene->error ? -EIO : 0;
}

void pvscsi_scene_close(struct pvscsi_scene *scene)
{
	vfu_disconnect(&scene->vmm);
	if (scene->event_fd >= 0)
		close(scene->event_fd);
	if (scene->memory)
		munmap(scene->memory, scene->bytes);
	if (scene->memory_fd >= 0)
		close(scene->memory_fd);
	hba_free(&scene->hba);
}
