/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_fuzz.c - an NBD client that says anything
 *
 * The server runs as in the daemon, with a disk that clients may write to. Each input is one
 * connection:
 *
 *     byte 0   1: haggle well first, so that the rest are requests
 *              2: with structured replies
 *              4: by EXPORT_NAME
 *     byte 1   the rest is sent in pieces of so many bytes (0: at once)
 *     the rest raw bytes
 *
 * Then the client closes its side, takes the answers, and the server has to close, too.
 */
#include <stdlib.h>
#include <string.h>

#include "frontend/device.h"
#include "fuzz.h"
#include "layer/disk.h"
#include "peer.h"
#include "transport/nbd.h"
#include "transport/transport.h"

static struct nbd_config config = {
	.read_only = false, .connections = 4096, .timeout = 1000000000, .all = true
};
static struct disk *disk;
static struct device where;

static struct disk *find(void *data, const char *name)
{
	(void)data;
	return strcmp(name, disk->name) ? NULL : disk;
}

static struct disk *at(void *data, unsigned index)
{
	(void)data;
	return index ? NULL : disk;
}

static bool may_write(void *data, const struct disk *of, struct error *err)
{
	(void)data;
	(void)of;
	(void)err;
	return true;
}

static const struct nbd_house house = { find, at, may_write, NULL };

static void *listen_nbd(struct device *device, const struct transport_loops *loops,
			struct error *err)
{
	config.socket = (char *)device->socket;
	return nbd_server_open(&config, &house, loops, err);
}

static const struct transport transport = { .name = "nbd", .listen = listen_nbd };

/* All that the peer wants of a device is where it listens. */
static struct device *make_device(const char *socket)
{
	disk = fuzz_disk("memory", 0);
	where.socket = (char *)socket;
	return &where;
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	(void)count;
	(void)arguments;
	peer_start(&transport, make_device);
	return 0;
}

static void haggle(int s, unsigned how)
{
	static const char flags[] = "\0\0\0\3", structured[] = "IHAVEOPT\0\0\0\10\0\0\0\0",
			  name[] = "IHAVEOPT\0\0\0\1\0\0\0\0",
			  go[] = "IHAVEOPT\0\0\0\7\0\0\0\6\0\0\0\0\0\0";

	peer_send(s, flags, sizeof flags - 1, 0, 0, -1);
	if (how & 2)
		peer_send(s, structured, sizeof structured - 1, 0, 0, -1);
	if (how & 4)
		peer_send(s, name, sizeof name - 1, 0, 0, -1);
	else
		peer_send(s, go, sizeof go - 1, 0, 0, -1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint8_t how = input_byte(&in), piece = input_byte(&in);
	int s = peer_connect();
	bool good = true;

	if (how & 1)
		haggle(s, how);
	while (good && in.size) {
		size_t n = piece && piece < in.size ? piece : in.size;

		good = peer_send(s, in.data, n, 0, 0, -1) && peer_drain(s, 0);
		in.data += n;
		in.size -= n;
	}
	peer_finish(s);
	return 0;
}
