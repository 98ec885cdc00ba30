/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pvscsi_private.h - what the rooms of the PVSCSI adapter share
 *
 *     pvscsi.c          the PCI function, the front-end's row; made, started, stopped, hot plug
 *     pvscsi_command.c  registers, commands, interrupts; resets and aborts
 *     pvscsi_ring.c     rings in guest memory; when the driver must kick
 *     pvscsi_request.c  a request from the ring to the SCSI target and back; lists
 *
 * All of it on the function's loop, but what pvscsi.c says is the control thread's.
 */
#pragma once

#include <endian.h>
#include <stdatomic.h>
#include <string.h>

#include "frontend/pci/pci.h"
#include "frontend/scsi/pvscsi_regs.h"
#include "frontend/scsi/scsi.h"
#include "loop/loop.h"
#include "util/log.h"

#define PVSCSI_TARGETS  64u
#define PVSCSI_LUNS     256u
#define PVSCSI_REQUESTS 1024u /* as many as the largest ring has */
#define PVSCSI_VECTORS  512u  /* iovecs of a request: 2 MiB in single pages */
#define PVSCSI_FEW      4u    /* of one without a list */
#define PVSCSI_TASKS    16u   /* resets and aborts under way */

/** The rings, from SETUP_RINGS to a reset. */
struct pvscsi_rings {
	struct memory *memory; /**< the table in which they are mapped, held; NULL: no rings */
	struct pvscsi_setup_rings setup;
	struct pvscsi_setup_msg_ring msg_setup; /**< pages 0: no message ring */
	struct pvscsi_ring_state *state;        /**< guest memory, as all that follows */
	struct pvscsi_req *req[PVSCSI_RING_PAGES];
	struct pvscsi_cmp *cmp[PVSCSI_RING_PAGES];
	struct pvscsi_msg *msg[PVSCSI_MSG_RING_PAGES];
	uint32_t req_entries, cmp_entries, msg_entries;
	uint32_t req_next;  /**< the next to take */
	uint32_t cmp_next;  /**< the next to write */
	uint32_t cmp_cons;  /**< what the driver had taken when we looked last */
	uint32_t cmp_shown; /**< what the driver has been shown */
	uint32_t msg_next;
	bool heeded;        /**< the driver kicks by req_call_threshold */
	uint32_t threshold; /**< what that is now; 1: it kicks for every request */
};

/** One request; one of the adapter's pool. */
struct pvscsi_request {
	struct scsi_command command;
	struct dma_transfer dma; /**< of its data, then of its sense data */
	struct pvscsi *adapter;
	struct pvscsi_request *next_free;
	uint64_t context;
	uint64_t sense_address;
	uint64_t data_length;
	uint32_t sense_length; /**< room for it; then what was written */
	uint16_t host_status;
	bool busy;         /**< under way */
	bool to_host;      /**< its data */
	bool dropped;      /**< the adapter was reset: nothing of it may show any more */
	bool abort_wanted; /**< by ABORT_CMD */
	struct iovec few[PVSCSI_FEW];
	struct iovec *many; /**< PVSCSI_VECTORS, touched for lists only */
};

/** A reset or an abort under way. */
struct pvscsi_task {
	struct scsi_task_request request;
	struct pvscsi *adapter;
	bool used;
	bool holds; /**< no request is taken until it is done */
};

struct pvscsi {
	struct pci_device pci; /**< first */
	struct scsi_target *target;
	struct pci_type type;                               /**< pvscsi_type, as it is configured */
	struct scsi_unit_settings settings[PVSCSI_TARGETS]; /**< of each unit; control thread */
	_Atomic(struct loop *) running; /**< the loop that serves it; NULL: no VMM is attached */

	/* service */
	struct scsi_queue *queue; /**< NULL: not started */
	struct pvscsi_request *pool, *free;
	struct iovec *vectors; /**< of @pool */
	unsigned fresh;        /**< of @pool: never used, this one and those after it */
	unsigned out;          /**< requests that are not free */
	struct pvscsi_task tasks[PVSCSI_TASKS];
	unsigned tasks_out, holds;
	bool stopping;
	bool bus_master; /**< as pci_bus_master(), which is not that cheap */

	/* registers */
	uint32_t command, command_status;
	uint32_t words[sizeof(struct pvscsi_setup_rings) / 4];
	unsigned words_given, words_wanted;
	uint32_t intr_status, intr_mask;

	/* rings */
	struct pvscsi_rings rings;
	struct loop_poller poller;
	struct loop_timer late;    /**< see pvscsi_ring.c */
	struct loop_task show;     /**< shows what was completed in this turn */
	unsigned level;            /**< requests that the driver uses to have in flight */
	unsigned faults_seen;      /**< of memory_faults */
	struct log_limit complain; /**< of what the guest can repeat at will */
};

static inline struct pvscsi *pvscsi_of(struct pci_device *pci)
{
	return (struct pvscsi *)pci;
}

/* A LUN's eight bytes as the target takes them. */
static inline uint64_t pvscsi_lun(const uint8_t bytes[8])
{
	uint64_t lun;

	memcpy(&lun, bytes, sizeof lun);
	return be64toh(lun);
}

/* pvscsi_ring.c */
void pvscsi_rings_init(struct pvscsi *p);
/* 0, or -EINVAL: the function is broken. */
int pvscsi_rings_setup(struct pvscsi *p, const struct pvscsi_setup_rings *setup);
int pvscsi_msg_ring_setup(struct pvscsi *p, const struct pvscsi_setup_msg_ring *setup);
void pvscsi_rings_release(struct pvscsi *p);
void pvscsi_rings_kick(struct pvscsi *p);
/* Takes all there is, now: what the driver queued before a command concerns is concerned by it. */
void pvscsi_rings_drain(struct pvscsi *p);
/* The next entry of the completion ring, to be filled in now; it is shown later in this turn. NULL:
 * there are no rings any more. */
struct pvscsi_cmp *pvscsi_rings_completion(struct pvscsi *p);
void pvscsi_rings_message(struct pvscsi *p, enum pvscsi_msg_type type, uint16_t target,
			  uint64_t lun);

/* pvscsi_request.c */
static inline bool pvscsi_request_available(const struct pvscsi *p)
{
	return p->free || p->fresh < PVSCSI_REQUESTS;
}

/* Starts what @req says, a copy. A request is available. */
void pvscsi_request_start(struct pvscsi *p, const struct pvscsi_req *req);
/* The one with @context to @target, or NULL. */
struct pvscsi_request *pvscsi_request_find(struct pvscsi *p, uint64_t context, uint32_t target);
/* Nothing of what is under way shows from now on. */
void pvscsi_requests_drop(struct pvscsi *p);

/* pvscsi_command.c */
extern const struct pci_register pvscsi_registers[];
void pvscsi_interrupt(struct pvscsi *p, uint32_t reason);
void pvscsi_adapter_reset(struct pvscsi *p);

/* pvscsi.c */
/* Something that was under way has ended: was it the last that stop waits for? */
void pvscsi_maybe_stopped(struct pvscsi *p);
