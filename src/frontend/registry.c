/* SPDX-License-Identifier: BSD-3-Clause */
/* registry.c - all kinds of devices; one row each */
#include <string.h>

#include "frontend/frontend.h"

extern const struct frontend ide_frontend, pvscsi_frontend;
extern const struct frontend virtio_blk_frontend, virtio_net_frontend, virtio_scsi_frontend;

const struct frontend *const frontend_registry[] = {
	&ide_frontend,        &pvscsi_frontend,      &virtio_blk_frontend,
	&virtio_net_frontend, &virtio_scsi_frontend, NULL,
};

const struct frontend *frontend_find(const char *name)
{
	for (unsigned i = 0; frontend_registry[i]; i++)
		if (!strcmp(frontend_registry[i]->name, name))
			return frontend_registry[i];
	return NULL;
}
