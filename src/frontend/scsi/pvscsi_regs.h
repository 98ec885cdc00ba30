/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pvscsi_regs.h - the interface of VMware's paravirtual SCSI adapter: registers, commands, what
 * lies in guest memory
 *
 * There is no published specification. This is what the drivers of VMware (Linux, FreeBSD, Windows)
 * and the BIOS take for granted; names are theirs, in our spelling. All numbers are little-endian.
 *
 * Who owns which index of the ring state page: the driver writes req_prod, cmp_cons and msg_cons,
 * the adapter all others. The driver zeroes the page before SETUP_RINGS.
 */
#pragma once

#include <stdint.h>

#define PVSCSI_PAGE     4096u
#define PVSCSI_BAR_SIZE 0x8000u

/* --- registers, in BAR 0 ------------------------------------------------------------ */

enum {
	PVSCSI_COMMAND = 0x0,        /* enum pvscsi_command; its words follow in COMMAND_DATA */
	PVSCSI_COMMAND_DATA = 0x4,   /* the last word starts it */
	PVSCSI_COMMAND_STATUS = 0x8, /* its result; before that, the words that it takes */
	PVSCSI_LAST_STATUS = 0x100,  /* four words; reserved */
	PVSCSI_INTR_STATUS = 0x100c, /* ones acknowledge */
	PVSCSI_INTR_MASK = 0x2010,   /* ones enable */
	PVSCSI_KICK_NON_RW = 0x3014, /* look at the request ring; written always */
	PVSCSI_DEBUG = 0x3018,
	PVSCSI_KICK_RW = 0x4018, /* likewise, for reads and writes: see req_call_threshold */
	PVSCSI_MSIX_TABLE = 0x6000,
	PVSCSI_MSIX_PENDING = 0x7000,
};

#define PVSCSI_FAILED UINT32_MAX /* COMMAND_STATUS: no such command, or it failed */

enum pvscsi_command {
	PVSCSI_CMD_NONE,
	PVSCSI_CMD_ADAPTER_RESET,
	PVSCSI_CMD_ISSUE_SCSI, /* no driver uses it; not supported */
	PVSCSI_CMD_SETUP_RINGS,
	PVSCSI_CMD_RESET_BUS,
	PVSCSI_CMD_RESET_DEVICE,
	PVSCSI_CMD_ABORT_CMD,
	PVSCSI_CMD_CONFIG,
	PVSCSI_CMD_SETUP_MSG_RING,
	PVSCSI_CMD_DEVICE_UNPLUG,
	PVSCSI_CMD_SETUP_REQCALLTHRESHOLD,
	PVSCSI_CMD_GET_MAX_TARGETS, /* the answer is in COMMAND_STATUS */
	PVSCSI_CMDS
};

/* Bits of INTR_STATUS and INTR_MASK; of each pair we use the first. */
enum {
	PVSCSI_INTR_CMPL_0 = 1,
	PVSCSI_INTR_CMPL_1 = 2,
	PVSCSI_INTR_MSG_0 = 4,
	PVSCSI_INTR_MSG_1 = 8,
	PVSCSI_INTR_ALL = 15,
};

/* --- what follows a command --------------------------------------------------------- */

#define PVSCSI_RING_PAGES     32u /* most of the request and of the completion ring */
#define PVSCSI_MSG_RING_PAGES 16u

struct pvscsi_setup_rings {
	uint32_t req_pages, cmp_pages; /* powers of two */
	uint64_t state_page;           /* page numbers: guest address / 4096 */
	uint64_t req_page[PVSCSI_RING_PAGES];
	uint64_t cmp_page[PVSCSI_RING_PAGES];
};

struct pvscsi_setup_msg_ring {
	uint32_t pages, padding;
	uint64_t page[PVSCSI_MSG_RING_PAGES];
};

struct pvscsi_reset_device {
	uint32_t target;
	uint8_t lun[8];
};

struct pvscsi_abort_cmd {
	uint64_t context;
	uint32_t target, padding;
};

struct pvscsi_config_cmd {
	uint64_t address; /* where the page goes */
	uint64_t page_address;
	uint32_t page, padding;
};

struct pvscsi_device_unplug {
	uint64_t host_status_address;
	uint32_t bus, target;
	uint8_t lun[8];
};

struct pvscsi_setup_threshold {
	uint32_t enable;
};

/* The page that CONFIG knows. */
#define PVSCSI_PAGE_CONTROLLER         0x1958u
#define PVSCSI_PAGE_CONTROLLER_ADDRESS (0x2120ull << 32)

struct pvscsi_config_page {
	uint32_t page;
	uint16_t words; /* of 4 bytes, of the whole page */
	uint16_t host_status, scsi_status;
	uint16_t reserved[3];
	/* of the controller page */
	uint64_t wwn;
	uint16_t manufacturer[64], serial_number[64]; /* UTF-16 */
	uint16_t option_rom[32], hardware[32], firmware[32];
	uint32_t phys; /* targets */
	uint8_t consecutive_wwns;
	uint8_t reserved_2[3];
};
_Static_assert(sizeof(struct pvscsi_config_page) == 480, "as the drivers have it");

/* --- the rings ---------------------------------------------------------------------- */

struct pvscsi_ring_state {
	uint32_t req_prod, req_cons, req_entries_log2;
	uint32_t cmp_prod, cmp_cons, cmp_entries_log2;
	/** With SETUP_REQCALLTHRESHOLD: a driver that adds a read or write kicks if there are so
	 * many not taken. */
	uint32_t req_call_threshold;
	uint8_t padding[100];
	uint32_t msg_prod, msg_cons, msg_entries_log2;
};
_Static_assert(sizeof(struct pvscsi_ring_state) == 140, "as the drivers have it");

enum {
	PVSCSI_FLAG_SG_LIST = 1,
	PVSCSI_FLAG_OUT_OF_BAND_CDB = 2, /* never specified */
	PVSCSI_FLAG_DIR_NONE = 4,
	PVSCSI_FLAG_DIR_TO_HOST = 8,
	PVSCSI_FLAG_DIR_TO_DEVICE = 16,
};

/* A request. */
struct pvscsi_req {
	uint64_t context;      /* given back with the completion */
	uint64_t data_address; /* of the data, or with SG_LIST of the first segment of the list */
	uint64_t data_length;
	uint64_t sense_address;
	uint32_t sense_length;
	uint32_t flags;
	uint8_t cdb[16];
	uint8_t cdb_length;
	uint8_t lun[8];
	uint8_t tag; /* SCSI-2 queue tag message: 0x20 simple, 0x21 head of queue, 0x22 ordered */
	uint8_t bus, target, vcpu_hint;
	uint8_t unused[59];
} __attribute__((packed, aligned(8)));
_Static_assert(sizeof(struct pvscsi_req) == 128, "as the drivers have it");

/*
 * An element of a list. Elements follow one another; one with CHAIN says where the next segment of
 * the list is, and is no data itself.
 */
struct pvscsi_sg {
	uint64_t address;
	uint32_t length;
	uint32_t flags;
};
#define PVSCSI_SG_CHAIN    1u
#define PVSCSI_SG_SEGMENTS 128u /* more of them in one list are no list */

/* A completion. */
struct pvscsi_cmp {
	uint64_t context;
	uint64_t data_length; /* bytes moved */
	uint32_t sense_length;
	uint16_t host_status; /* enum pvscsi_host_status */
	uint16_t scsi_status;
	uint32_t padding[2];
};
_Static_assert(sizeof(struct pvscsi_cmp) == 32, "as the drivers have it");

/* The adapter's own opinion of a request: BusLogic's codes. */
enum pvscsi_host_status {
	PVSCSI_HOST_SUCCESS = 0x00,
	PVSCSI_HOST_SELECTION_TIMEOUT = 0x11, /* nobody there */
	PVSCSI_HOST_DATA_OVERRUN = 0x12,      /* the command moves more than there is room for */
	PVSCSI_HOST_INVALID_PARAMETER = 0x1a, /* in the request or its list */
	PVSCSI_HOST_SENSE_FAILED = 0x1b,      /* sense data that could not be delivered */
	PVSCSI_HOST_BAD_MESSAGE = 0x1d,       /* a request that the adapter does not know */
	PVSCSI_HOST_HARDWARE = 0x20,
	PVSCSI_HOST_BUS_RESET = 0x25,
	PVSCSI_HOST_ABORTED = 0x26,
};

/* A message: a unit came or went. */
struct pvscsi_msg {
	uint32_t type; /* enum pvscsi_msg_type */
	uint32_t bus, target;
	uint8_t lun[8];
	uint32_t padding[27];
};
_Static_assert(sizeof(struct pvscsi_msg) == 128, "as the drivers have it");

enum pvscsi_msg_type { PVSCSI_MSG_ADDED, PVSCSI_MSG_REMOVED };
