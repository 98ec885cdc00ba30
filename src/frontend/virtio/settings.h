/* SPDX-License-Identifier: BSD-3-Clause */
/* settings.h - the options that virtio device types have in common */
#pragma once

#include <errno.h>

#include "frontend/device.h"
#include "frontend/virtio/virtqueue.h"
#include "util/error.h"
#include "util/option.h"

/** Rows for members queues (1 to @most), queue_size and pin of @settings. */
#define VIRTIO_OPTIONS(settings, most)                                                              \
	{ .name = "queues",                                                                         \
	  .type = OPTION_UINT,                                                                      \
	  .offset = offsetof(settings, queues),                                                     \
	  .fallback = "1",                                                                          \
	  .min = 1,                                                                                 \
	  .max = (most),                                                                            \
	  .help = "Request queues that the guest may use; one for each of its CPUs is best." },     \
		{ .name = "queue-size",                                                             \
		  .type = OPTION_UINT,                                                              \
		  .offset = offsetof(settings, queue_size),                                         \
		  .fallback = "256",                                                                \
		  .min = 16,                                                                        \
		  .max = VIRTQUEUE_SIZE,                                                            \
		  .help = "Entries of each queue, a power of two; what qemu-args tells the VMM." }, \
	{                                                                                           \
		.name = "pin-memory", .type = OPTION_BOOL, .offset = offsetof(settings, pin),       \
		.fallback = "false",                                                                \
		.help = "Pin the guest's memory and register it with io_uring, which saves some "   \
			"CPU for each request. All of the guest's memory is then allocated at "     \
			"once and stays so; takes a sufficient RLIMIT_MEMLOCK."                     \
	}

/** 0, or -EINVAL with @err, which begins with the name of the option. */
static inline int virtio_check_queue_size(uint64_t size, struct error *err)
{
	if (!(size & (size - 1)))
		return 0;
	return error_set(
		err, EINVAL,
		"queue-size: '%llu' is not a power of two; expected one, such as 128 or 256",
		(unsigned long long)size);
}
