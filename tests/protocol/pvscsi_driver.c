/* SPDX-License-Identifier: BSD-3-Clause */
/* pvscsi_driver.c - the driver side of a PVSCSI adapter; see pvscsi_driver.h */
#include "pvscsi_driver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SENSE_BYTES = 256 };

static uint32_t load(const uint32_t *index)
{
	return __atomic_load_n(index, __ATOMIC_ACQUIRE);
}

static void store(uint32_t *index, uint32_t value)
{
	__atomic_store_n(index, value, __ATOMIC_RELEASE);
}

/* --- memory ------------------------------------------------------------------------- */

static void *cut(struct hba *hba, uint64_t *at, uint64_t bytes, uint64_t *guest)
{
	void *here = hba->memory + *at;

	*guest = hba->guest + *at;
	*at += (bytes + HBA_PAGE - 1) / HBA_PAGE * HBA_PAGE;
	return here;
}

static uint64_t pages_of(uint64_t bytes)
{
	return (bytes + HBA_PAGE - 1) / HBA_PAGE;
}

int hba_init(struct hba *hba)
{
	uint64_t at = 0, guest;
	uint64_t needed = 1 + 2 * hba->pages + hba->msg_pages +
			  hba->slots * (1 + pages_of(hba->slot_bytes)) +
			  pages_of((uint64_t)hba->slots * SENSE_BYTES);

	if (needed * HBA_PAGE > hba->bytes || hba->slots > hba->pages * 32) {
		snprintf(hba->error, sizeof(hba->error), "too little memory or ring for %u slots",
			 hba->slots);
		return -ENOMEM;
	}
	hba->slot = calloc(hba->slots, sizeof(*hba->slot));
	if (!hba->slot)
		return -ENOMEM;
	hba->state = cut(hba, &at, HBA_PAGE, &guest);
	hba->setup.req_pages = hba->setup.cmp_pages = hba->pages;
	hba->setup.state = guest / HBA_PAGE;
	hba->req = cut(hba, &at, hba->pages * HBA_PAGE, &guest);
	for (unsigned i = 0; i < hba->pages; i++)
		hba->setup.req[i] = guest / HBA_PAGE + i;
	hba->cmp = cut(hba, &at, hba->pages * HBA_PAGE, &guest);
	for (unsigned i = 0; i < hba->pages; i++)
		hba->setup.cmp[i] = guest / HBA_PAGE + i;
	hba->msg = cut(hba, &at, hba->msg_pages * HBA_PAGE, &guest);
	hba->msg_setup.pages = hba->msg_pages;
	for (unsigned i = 0; i < hba->msg_pages; i++)
		hba->msg_setup.page[i] = guest / HBA_PAGE + i;
	hba->req_entries = hba->pages * 32;
	hba->cmp_entries = hba->pages * 128;
	hba->msg_entries = hba->msg_pages * 32;
	for (unsigned i = 0; i < hba->slots; i++) {
		hba->slot[i].list = cut(hba, &at, HBA_PAGE, &hba->slot[i].list_at);
		hba->slot[i].data = cut(hba, &at, hba->slot_bytes, &hba->slot[i].data_at);
	}
	for (unsigned i = 0; i < hba->slots; i++) {
		hba->slot[i].sense = hba->memory + at + i * SENSE_BYTES;
		hba->slot[i].sense_at = hba->guest + at + i * SENSE_BYTES;
	}
	return 0;
}

void hba_free(struct hba *hba)
{
	free(hba->slot);
	hba->slot = NULL;
}

/* --- commands ----------------------------------------------------------------------- */

void hba_command(struct hba *hba, uint32_t command, const void *words, uint32_t bytes)
{
	hba->bus.write(hba->bus.owner, HBA_COMMAND, command);
	for (uint32_t at = 0; at < bytes; at += 4) {
		uint32_t word;
		memcpy(&word, (const char *)words + at, 4);
		hba->bus.write(hba->bus.owner, HBA_COMMAND_DATA, word);
	}
}

uint32_t hba_command_status(struct hba *hba)
{
	return hba->bus.read(hba->bus.owner, HBA_COMMAND_STATUS);
}

void hba_start(struct hba *hba, uint32_t mask)
{
	uint32_t enable = 1;

	hba_command(hba, HBA_CMD_ADAPTER_RESET, NULL, 0);
	hba_command_status(hba); /* it has taken effect: nothing of before is written any more */
	memset(hba->state, 0, HBA_PAGE);
	memset(hba->req, 0, hba->pages * HBA_PAGE);
	memset(hba->cmp, 0, hba->pages * HBA_PAGE);
	hba->req_prod = hba->cmp_cons = hba->msg_cons = 0;
	for (unsigned i = 0; i < hba->slots; i++)
		hba->slot[i].busy = false;
	hba_command(hba, HBA_CMD_SETUP_RINGS, &hba->setup, sizeof(hba->setup));
	if (hba->msg_pages)
		hba_command(hba, HBA_CMD_SETUP_MSG_RING, &hba->msg_setup, sizeof(hba->msg_setup));
	hba->threshold_on = false;
	if (hba->threshold) {
		hba_command(hba, HBA_CMD_SETUP_REQCALLTHRESHOLD, &enable, sizeof(enable));
		hba->threshold_on = hba_command_status(hba) == 1;
	}
	hba->bus.write(hba->bus.owner, HBA_INTR_MASK, mask);
}

/* --- requests ----------------------------------------------------------------------- */

int hba_take(struct hba *hba)
{
	for (unsigned i = 0; i < hba->slots; i++)
		if (!hba->slot[i].busy)
			return (int)i;
	return -1;
}

struct hba_slot *hba_format(struct hba *hba, int slot, uint8_t target, const void *cdb,
			    uint8_t cdb_length, uint32_t flags, uint32_t length)
{
	struct hba_slot *s = &hba->slot[slot];

	s->req = (struct hba_req){ .context = (uint64_t)slot + 1,
				   .data_address = s->data_at,
				   .data_length = length,
				   .sense_address = s->sense_at,
				   .sense_length = SENSE_BYTES,
				   .flags = flags,
				   .cdb_length = cdb_length,
				   .tag = 0x20,
				   .target = target };
	memcpy(s->req.cdb, cdb, cdb_length);
	return s;
}

struct hba_slot *hba_format_rw(struct hba *hba, int slot, uint8_t target, bool write, uint32_t lba,
			       uint16_t blocks, uint32_t block)
{
	const uint8_t cdb[10] = { write ? 0x2a : 0x28,
				  0,
				  (uint8_t)(lba >> 24),
				  (uint8_t)(lba >> 16),
				  (uint8_t)(lba >> 8),
				  (uint8_t)lba,
				  0,
				  (uint8_t)(blocks >> 8),
				  (uint8_t)blocks,
				  0 };

	return hba_format(hba, slot, target, cdb, sizeof(cdb), write ? HBA_TO_DEVICE : HBA_TO_HOST,
			  blocks * block);
}

void hba_push(struct hba *hba, int slot)
{
	struct hba_slot *s = &hba->slot[slot];

	s->busy = true;
	hba->req[hba->req_prod & (hba->req_entries - 1)] = s->req;
	store(&hba->state->req_prod, ++hba->req_prod);
}

void hba_kick(struct hba *hba)
{
	struct hba_state *s = hba->state;

	/* A driver on a real machine has no fence here; a test must not wait for the timer. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (hba->threshold_on && hba->req_prod - load(&s->req_cons) < load(&s->threshold))
		return;
	hba->kicks++;
	hba->bus.write(hba->bus.owner, HBA_KICK_RW, 0);
}

int hba_reap(struct hba *hba, int *done, int max)
{
	uint32_t prod = load(&hba->state->cmp_prod);
	int n = 0;

	if (prod - hba->cmp_cons > hba->cmp_entries) {
		snprintf(hba->error, sizeof(hba->error), "%u completions in a ring of %u",
			 prod - hba->cmp_cons, hba->cmp_entries);
		return -EPROTO;
	}
	while (hba->cmp_cons != prod && n < max) {
		struct hba_cmp cmp = hba->cmp[hba->cmp_cons & (hba->cmp_entries - 1)];
		struct hba_slot *s = &hba->slot[cmp.context - 1];

		if (!cmp.context || cmp.context > hba->slots || !s->busy) {
			snprintf(hba->error, sizeof(hba->error),
				 "a completion of context %llu, which is not under way",
				 (unsigned long long)cmp.context);
			return -EPROTO;
		}
		s->cmp = cmp;
		s->busy = false;
		done[n++] = (int)(cmp.context - 1);
		hba->cmp_cons++;
	}
	if (n)
		store(&hba->state->cmp_cons, hba->cmp_cons);
	hba->completions += (uint64_t)n;
	return n;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int hba_wait(struct hba *hba, int slot, int timeout_ms)
{
	int64_t end = now_ms() + timeout_ms;

	while (hba->slot[slot].busy) {
		int done[32], n = hba_reap(hba, done, 32);

		if (n < 0)
			return n;
		if (!n && now_ms() > end) {
			snprintf(hba->error, sizeof(hba->error), "slot %d does not complete", slot);
			return -ETIMEDOUT;
		}
		if (!n)
			usleep(50);
	}
	return 0;
}

int hba_do(struct hba *hba, uint8_t target, const void *cdb, uint8_t cdb_length, uint32_t flags,
	   uint32_t length)
{
	int slot = hba_take(hba), ret;

	if (slot < 0)
		return -EBUSY;
	hba_format(hba, slot, target, cdb, cdb_length, flags, length);
	hba_push(hba, slot);
	hba_kick(hba);
	ret = hba_wait(hba, slot, 10000);
	return ret ? ret : slot;
}

int hba_message(struct hba *hba, struct hba_msg *message)
{
	if (!hba->msg_entries || load(&hba->state->msg_prod) == hba->msg_cons)
		return 0;
	*message = hba->msg[hba->msg_cons & (hba->msg_entries - 1)];
	store(&hba->state->msg_cons, ++hba->msg_cons);
	return 1;
}
