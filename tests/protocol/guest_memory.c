/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * guest_memory.c - the driver's memory: memfds at guest addresses with holes between
 *
 * Each region is mapped here and offered to the daemon. The "user address" the protocol wants
 * beside the guest address is our own mapping's address, as a VMM's would be; ring addresses are
 * given in it.
 */
#include "driver.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

/* Every region but the first begins inside its file, so that offsets are not forgotten. */
enum { FILE_LEAD = 8192 };

int driver_add_region(struct driver *driver, uint64_t guest, uint64_t size)
{
	struct region *region = &driver->region[driver->regions];
	uint64_t offset = driver->regions ? FILE_LEAD : 0;

	if (driver->regions == DRIVER_REGIONS_MAX)
		return -ENOSPC;
	int fd = memfd_create("guest", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)(offset + size))) {
		close(fd);
		return -errno;
	}
	void *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	if (host == MAP_FAILED) {
		close(fd);
		return -errno;
	}
	*region = (struct region){
		.guest = guest, .size = size, .offset = offset, .fd = fd, .host = host
	};
	return (int)driver->regions++;
}

void driver_drop_region(struct driver *driver)
{
	struct region *region = &driver->region[--driver->regions];

	munmap(region->host, region->size);
	close(region->fd);
}

uint64_t driver_guest_address(const struct driver *driver, const void *host)
{
	for (unsigned i = 0; i < driver->regions; i++) {
		const struct region *region = &driver->region[i];
		uintptr_t offset = (uintptr_t)host - (uintptr_t)region->host;
		if ((uintptr_t)host >= (uintptr_t)region->host && offset < region->size)
			return region->guest + offset;
	}
	return ~0ull;
}

static struct vu_region describe(const struct region *region)
{
	return (struct vu_region){ .guest = region->guest,
				   .size = region->size,
				   .user = (uintptr_t)region->host,
				   .offset = region->offset };
}

int driver_send_region(struct driver *driver, const struct region *region)
{
	struct vu_single_region message = { .region = describe(region) };

	return vu_request(&driver->vu, VU_ADD_MEM_REG, &message, sizeof(message), &region->fd, 1);
}

int driver_remove_region(struct driver *driver, const struct region *region)
{
	struct vu_single_region message = { .region = describe(region) };

	return vu_request(&driver->vu, VU_REM_MEM_REG, &message, sizeof(message), NULL, 0);
}

int driver_send_memory(struct driver *driver)
{
	struct vu_memory table = { .count = driver->regions };
	int fds[VU_REGIONS_MAX];

	if (driver->options.add_regions) {
		for (unsigned i = 0; i < driver->regions; i++) {
			int ret = driver_send_region(driver, &driver->region[i]);
			if (ret)
				return ret;
		}
		return 0;
	}
	if (driver->regions > VU_REGIONS_MAX)
		return -ENOSPC;
	for (unsigned i = 0; i < driver->regions; i++) {
		table.region[i] = describe(&driver->region[i]);
		fds[i] = driver->region[i].fd;
	}
	return vu_request(&driver->vu, VU_SET_MEM_TABLE, &table,
			  (uint32_t)(offsetof(struct vu_memory, region) +
				     driver->regions * sizeof(struct vu_region)),
			  fds, driver->regions);
}
