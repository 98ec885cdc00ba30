/* SPDX-License-Identifier: BSD-3-Clause */
/* nic.c - see nic.h */
#include "packet/nic.h"

#include "packet/frame.h"
#include "util/option.h"

const struct option nic_options[] = {
	{ .name = "mac",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct nic_config, mac),
	  .help = "The NIC's MAC address, such as 52:54:00:12:34:56. Default: a local one that is made from "
		  "its name, so that it stays the same." },
	{ 0 },
};

/* FNV-1a, 64 bits. */
static uint64_t hash(const char *text)
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * 0x100000001b3ull;
	return h;
}

void nic_mac(const struct nic_config *config, const char *name, uint8_t mac[6])
{
	uint64_t h;

	if (config->mac && !mac_parse(config->mac, mac))
		return;
	h = hash(name);
	for (unsigned i = 0; i < 6; i++)
		mac[i] = (uint8_t)(h >> (8 * i));
	mac[0] = (uint8_t)((mac[0] & 0xfc) | 2); /* locally administered, one station's */
}
