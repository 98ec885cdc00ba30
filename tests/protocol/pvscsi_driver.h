/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pvscsi_driver.h - the driver side of a PVSCSI adapter: rings, requests, messages
 *
 * How registers are reached is the user's: over vfio-user, or by a call in a unit test. All that
 * the driver shares with the adapter lies in one piece of guest memory: ring state, rings, and for
 * each request (slot) a list page, room for sense data, and its data.
 *
 * Honest by itself; a hostile test writes what it likes into what this has made.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { HBA_PAGE = 4096, HBA_PAGES = 32, HBA_MSG_PAGES = 16 };

/* Registers. */
enum {
	HBA_COMMAND = 0x0,
	HBA_COMMAND_DATA = 0x4,
	HBA_COMMAND_STATUS = 0x8,
	HBA_INTR_STATUS = 0x100c,
	HBA_INTR_MASK = 0x2010,
	HBA_KICK_NON_RW = 0x3014,
	HBA_KICK_RW = 0x4018,
	HBA_BAR_SIZE = 0x8000,
};

enum {
	HBA_CMD_ADAPTER_RESET = 1,
	HBA_CMD_ISSUE_SCSI,
	HBA_CMD_SETUP_RINGS,
	HBA_CMD_RESET_BUS,
	HBA_CMD_RESET_DEVICE,
	HBA_CMD_ABORT_CMD,
	HBA_CMD_CONFIG,
	HBA_CMD_SETUP_MSG_RING,
	HBA_CMD_DEVICE_UNPLUG,
	HBA_CMD_SETUP_REQCALLTHRESHOLD,
	HBA_CMD_GET_MAX_TARGETS,
};

enum { HBA_INTR_CMPL = 3, HBA_INTR_MSG = 12 };

/* Flags of a request, and of an element of a list. */
enum { HBA_SG_LIST = 1, HBA_NO_DATA = 4, HBA_TO_HOST = 8, HBA_TO_DEVICE = 16 };
enum { HBA_SG_CHAIN = 1 };

enum {
	HBA_SUCCESS = 0,
	HBA_NOBODY = 0x11,
	HBA_INVALID = 0x1a,
	HBA_RESET = 0x25,
	HBA_ABORTED = 0x26
};

struct hba_state {
	uint32_t req_prod, req_cons, req_log2;
	uint32_t cmp_prod, cmp_cons, cmp_log2;
	uint32_t threshold;
	uint8_t pad[100];
	uint32_t msg_prod, msg_cons, msg_log2;
};

struct hba_req {
	uint64_t context, data_address, data_length, sense_address;
	uint32_t sense_length, flags;
	uint8_t cdb[16], cdb_length, lun[8], tag, bus, target, vcpu, unused[59];
} __attribute__((packed, aligned(8)));

struct hba_cmp {
	uint64_t context, data_length;
	uint32_t sense_length;
	uint16_t host_status, scsi_status;
	uint32_t pad[2];
};

struct hba_msg {
	uint32_t type, bus, target; /* type: 0 added, 1 removed */
	uint8_t lun[8];
	uint32_t pad[27];
};

struct hba_sg {
	uint64_t address;
	uint32_t length, flags;
};

struct hba_setup_rings {
	uint32_t req_pages, cmp_pages;
	uint64_t state, req[HBA_PAGES], cmp[HBA_PAGES]; /* page numbers */
};

struct hba_setup_msg_ring {
	uint32_t pages, pad;
	uint64_t page[HBA_MSG_PAGES];
};

struct hba_bus {
	void *owner;
	uint32_t (*read)(void *owner, uint32_t offset);
	void (*write)(void *owner, uint32_t offset, uint32_t value);
};

/* One request. Its context is its index + 1. */
struct hba_slot {
	struct hba_req req; /* what goes on the ring */
	struct hba_cmp cmp; /* its last completion */
	bool busy;
	uint8_t *data, *sense;               /* slot_bytes; 256 bytes */
	struct hba_sg *list;                 /* a page: 256 elements */
	uint64_t data_at, sense_at, list_at; /* guest addresses */
	uint64_t time;                       /* the user's */
};

struct hba {
	/* Set by the caller. */
	struct hba_bus bus;
	uint8_t *memory; /* guest memory, mapped here */
	uint64_t guest;  /* guest address of it */
	uint64_t bytes;
	unsigned pages;     /* of request and completion ring: a power of two */
	unsigned msg_pages; /* 0: none */
	unsigned slots;     /* at most 32 a page */
	uint32_t slot_bytes;
	bool threshold; /* kick as SETUP_REQCALLTHRESHOLD allows */

	/* The driver's own. */
	struct hba_state *state;
	struct hba_req *req;
	struct hba_cmp *cmp;
	struct hba_msg *msg;
	struct hba_setup_rings setup;
	struct hba_setup_msg_ring msg_setup;
	struct hba_slot *slot;
	uint32_t req_entries, cmp_entries, msg_entries;
	uint32_t req_prod, cmp_cons, msg_cons;
	uint64_t kicks, completions;
	bool threshold_on;
	char error[160];
};

/* Lays the memory out. 0 or -errno with hba->error. */
int hba_init(struct hba *hba);
void hba_free(struct hba *hba);
/* Resets the adapter, gives it the rings, enables interrupts (mask). */
void hba_start(struct hba *hba, uint32_t mask);

/* A command with `bytes` bytes of words; then reads its status. */
void hba_command(struct hba *hba, uint32_t command, const void *words, uint32_t bytes);
uint32_t hba_command_status(struct hba *hba);

/* A free slot, or -1. */
int hba_take(struct hba *hba);
/* Fills slot->req for a CDB to a target's LUN 0, with `length` bytes of data where the slot's are.
 */
struct hba_slot *hba_format(struct hba *hba, int slot, uint8_t target, const void *cdb,
			    uint8_t cdb_length, uint32_t flags, uint32_t length);
/* READ(10) or WRITE(10). */
struct hba_slot *hba_format_rw(struct hba *hba, int slot, uint8_t target, bool write, uint32_t lba,
			       uint16_t blocks, uint32_t block);
/* Puts it on the ring. */
void hba_push(struct hba *hba, int slot);
/* Kicks, as a driver would for what it has pushed last. */
void hba_kick(struct hba *hba);
/* Takes completions: how many; their slots (at most `max`) to `done`. -EPROTO with hba->error. */
int hba_reap(struct hba *hba, int *done, int max);
/* Waits until the slot is free; 0 or -errno. */
int hba_wait(struct hba *hba, int slot, int timeout_ms);
/* From take to wait: the slot, or -errno. */
int hba_do(struct hba *hba, uint8_t target, const void *cdb, uint8_t cdb_length, uint32_t flags,
	   uint32_t length);
/* The next message: 1, or 0 if there is none. */
int hba_message(struct hba *hba, struct hba_msg *message);
