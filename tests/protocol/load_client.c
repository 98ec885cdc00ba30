/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_client.c - load.h as a program, for tests that do other things meanwhile
 *
 * Runs a random load on a vhost-user socket for some seconds, reads everything once more, and
 * prints a line of JSON: how many requests there were, the longest time without a completion, and
 * what was wrong first. Status 1 if anything was. The disk must hold zeroes at first.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "load.h"

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int run(struct load *load, double seconds, double *longest)
{
	double end = now() + seconds, last = now();
	int ret = 0;

	while (now() < end && ret >= 0) {
		load_issue(load, 8);
		ret = load_collect(load, DRIVER_WAIT_MS);
		*longest = now() - last > *longest ? now() - last : *longest;
		last = now();
	}
	if (ret >= 0)
		ret = load_drain(load);
	return ret < 0 ? ret : load_verify(load);
}

int main(int argc, char **argv)
{
	struct driver_options options = {
		.queue_size = 256, .segments = 4, .slots = 32, .slot_bytes = 65536
	};
	struct load load = { .block = 512, .max_segments = 4, .max_bytes = 65536, .odd = true };
	double seconds = 1, longest = 0;
	struct driver *driver;
	int option, ret;

	load.seed = (uint64_t)time(NULL) | 1;
	while ((option = getopt(argc, argv, "s:t:b:p")) >= 0) {
		if (option == 's')
			options.socket = optarg;
		else if (option == 't')
			seconds = atof(optarg);
		else if (option == 'b')
			load.block = (uint32_t)atoi(optarg);
		else if (option == 'p')
			load.plain = true;
		else
			return 2;
	}
	ret = options.socket ? driver_open(&driver, &options) : -EINVAL;
	if (ret) {
		fprintf(stderr, "usage: load-client -s SOCKET [-t SECONDS] [-b BLOCK] [-p]: %s\n",
			strerror(-ret));
		return 2;
	}
	load.queue = &driver->queue[0];
	load.sectors = driver->config.capacity;
	ret = load_open(&load) ? -ENOMEM : run(&load, seconds, &longest);
	printf("{\"requests\": %llu, \"longest\": %.3f, \"error\": \"%s\"}\n",
	       (unsigned long long)load.completed, longest,
	       ret < 0 && !*load.error ? strerror(-ret) : load.error);
	load_close(&load);
	driver_close(driver);
	return ret < 0;
}
