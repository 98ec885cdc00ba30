/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scsi.h - the SCSI target: logical units over disks, and the commands that they understand
 *
 * One place for all that speaks SCSI: virtio-scsi, PVSCSI and ATAPI (and NBD or iSCSI one day) are
 * host bus adapters; they take a command off their ring and give it to a target as a struct
 * scsi_command, with data buffers that are ready to use. The target finds the logical unit,
 * executes the command on its disk, and hands it back with status, sense data and the bytes that
 * were moved.
 *
 * Threads. An adapter may have queues on several loops. Each (unit, queue) pair has an io_queue of
 * its own, so that READ and WRITE touch nothing that is shared but a few atomic flags (attention
 * pending, reserved). All else of a unit is behind its mutex, which no READ or WRITE takes while
 * there is no attention and no reservation.
 *
 * Sources: SPC-4 (INCITS 513), SBC-3 (INCITS 514), SAM-5 (INCITS 515), MMC-6 for CD-ROM.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "frontend/device.h"
#include "io/io.h"
#include "util/option.h"

struct disk;
struct error;
struct scsi_queue;
struct scsi_target;

#define SCSI_CDB_MAX 32
/** Bytes; we write 18 in fixed format, at most 28 in descriptor format (if D_SENSE is set). */
#define SCSI_SENSE_MAX 96

/** Status codes: SAM-5, 5.3.1. */
enum scsi_status {
	SCSI_GOOD = 0x00,
	SCSI_CHECK_CONDITION = 0x02,
	SCSI_CONDITION_MET = 0x04,
	SCSI_BUSY = 0x08,
	SCSI_RESERVATION_CONFLICT = 0x18,
	SCSI_TASK_SET_FULL = 0x28,
	SCSI_ACA_ACTIVE = 0x30,
	SCSI_TASK_ABORTED = 0x40,
};

/** Task attributes: SAM-5, 8.9. */
enum scsi_attribute { SCSI_SIMPLE, SCSI_ORDERED, SCSI_HEAD_OF_QUEUE, SCSI_ACA };

/** One command. The adapter's; embedded in what it keeps for a request, and kept until @done. */
struct scsi_command {
	/* from the adapter */
	uint8_t cdb[SCSI_CDB_MAX];
	uint8_t cdb_length;
	uint8_t attribute; /**< enum scsi_attribute */
	uint16_t target;   /**< number of the target on the adapter's bus */
	uint64_t lun;      /**< SAM-5, 4.7: as 8 bytes, big-endian, read into a number */
	uint64_t tag;      /**< for task management */
	/** What the initiator sends, and where it wants answers: ready, and valid until @done. */
	struct io_data out, in;
	uint64_t out_length, in_length; /**< bytes */
	void (*done)(struct scsi_command *command);
	void *owner;

	/* from the target */
	uint8_t status; /**< enum scsi_status */
	bool no_target; /**< there is no such target or unit: the adapter's own error, no status */
	bool aborted;   /**< by task management: not to be reported as completed */
	bool reset;     /**< with aborted: by the reset of its unit, target or bus */
	/** The CDB asks for more data than @out or @in have room for; what fits was moved. */
	bool overrun;
	uint8_t sense_length;
	uint64_t moved; /**< bytes of @out or @in that were used; residual = length - moved */

	/* the target's own */
	struct list link; /**< of the unit's commands on this queue, or of those that are done */
	struct scsi_queue *queue;
	struct scsi_port *port; /**< the unit, on this queue; NULL: there is none */
	const struct scsi_operation *operation;
	struct scsi_work *work; /**< of commands of several steps, with their buffer */

	uint8_t sense[SCSI_SENSE_MAX]; /**< from the target; last, for most commands have none */
};

#define SCSI_TARGETS    256u       /**< of an adapter, at most */
#define SCSI_TARGET_ANY UINT64_MAX /**< of a unit that does not say which: see places.c */

/** What an adapter's user says about one unit. Rows: scsi_unit_options. */
struct scsi_unit_settings {
	int type; /**< index: auto (cdrom if the disk's natural block is 2,048), disk, cdrom */
	uint64_t target, lun;
	bool removable;
	char *serial;           /**< NULL: the disk's name; VPD page 0x80, and 0x83 from it */
	char *vendor, *product; /**< NULL: "PENSTOCK", "VIRTUAL-DISK" / "CD-ROM" */
	uint64_t rotation_rate; /**< as in VPD page 0xB1: 0 not told, 1 not rotating, or rpm */
};
extern const struct option scsi_unit_options[];

/** What a target tells its adapter. Any thread: the adapter sends itself a message. @lun is a plain
 * number. */
struct scsi_target_events {
	/** A unit came (@added) or went: hot plug. */
	void (*units_changed)(void *owner, uint16_t target, uint64_t lun, bool added);
	/** A unit's parameters changed (size, medium): what virtio-scsi calls a change event. */
	void (*unit_parameters_changed)(void *owner, uint16_t target, uint64_t lun, uint8_t asc,
					uint8_t ascq);
};

/* --- places: for an adapter's front-end row ------------------------------------------ */

/**
 * What the tables cannot say of @count units: @targets and @luns are how many numbers the adapter
 * has. As frontend.check.
 */
int scsi_places_check(const void *const *units, unsigned count, unsigned targets, unsigned luns,
		      struct error *err);

/**
 * The settings of all @device->unit_count units from @plan, as copies, each with a place of its own
 * among @targets, and the names of @device's units. @own is the adapter's own number, the last to
 * be given away. 0, or -ENOMEM with @settings to be released.
 */
int scsi_places_make(struct scsi_unit_settings *settings, struct device *device,
		     const struct device_plan *plan, unsigned targets, unsigned own,
		     struct error *err);
void scsi_places_release(struct scsi_unit_settings *settings, unsigned count);

/* --- control thread ------------------------------------------------------------------ */

/** A target (or a bus of targets) without units, of an adapter with @queues queues. */
struct scsi_target *scsi_target_create(struct device *device, unsigned queues,
				       const struct scsi_target_events *events, void *owner,
				       struct error *err);
/** All its queues are closed. */
void scsi_target_destroy(struct scsi_target *target);

/** True if a unit's disk has a layer that must have all queues on one loop. */
bool scsi_target_single_loop(const struct scsi_target *target);

/** The adapter was reset, and has no queue open: what its initiator set is forgotten, as by power
 * on. */
void scsi_target_reset(struct scsi_target *target);

/**
 * Adds the unit number @index of the device, with @disk (NULL: an empty drive; cdrom only). Before
 * the adapter runs, or while it does: then the guest hears of it. 0 or -errno with @err.
 */
int scsi_unit_add(struct scsi_target *target, unsigned index,
		  const struct scsi_unit_settings *settings, struct disk *disk, struct error *err);

/**
 * Takes the unit away (hot unplug), or puts another medium in (@disk, or NULL: eject). Commands
 * under way on it end first; then @change->done on the control thread. An eject that the guest
 * prevents is refused with -EBUSY unless @change->force.
 */
void scsi_unit_remove(struct scsi_target *target, unsigned index, struct device_change *change);
void scsi_unit_set_disk(struct scsi_target *target, unsigned index, struct disk *disk,
			struct device_change *change);

/* --- a queue's loop ------------------------------------------------------------------- */

/** The target's part of queue @index of the adapter, for @depth commands at once. NULL: no memory.
 */
struct scsi_queue *scsi_queue_open(struct scsi_target *target, unsigned index, struct loop *loop,
				   unsigned depth);
/** All commands and task requests must be back. Not from a command's done; from settled it may be.
 */
void scsi_queue_close(struct scsi_queue *queue);

/** Commands and task requests that are not back yet. */
unsigned scsi_queue_outstanding(const struct scsi_queue *queue);

/**
 * Called after a batch of commands of this queue has come back, to show them to the guest and
 * interrupt it once.
 */
void scsi_queue_on_settled(struct scsi_queue *queue, void (*settled)(void *owner), void *owner);

/** Executes @command; it comes back to its done, never inside this call. */
void scsi_execute(struct scsi_queue *queue, struct scsi_command *command);

enum scsi_direction { SCSI_NO_DATA, SCSI_DATA_IN, SCSI_DATA_OUT };

/**
 * What the CDB in @command (@cdb, @target, @lun) will move: for adapters that must have buffers
 * ready without being told by their guest how large. @length receives the bytes that it asks for at
 * most; 0 for a command that is unknown or to no unit.
 */
enum scsi_direction scsi_data_length(struct scsi_queue *queue, const struct scsi_command *command,
				     uint64_t *length);

enum scsi_task_function {
	SCSI_ABORT_TASK,
	SCSI_ABORT_TASK_SET,
	SCSI_CLEAR_TASK_SET,
	SCSI_CLEAR_ACA,
	SCSI_QUERY_TASK,
	SCSI_QUERY_TASK_SET,
	SCSI_LOGICAL_UNIT_RESET,
	SCSI_TARGET_RESET, /**< I_T nexus reset: all units of one target */
	SCSI_BUS_RESET,    /**< all targets */
};

/** Responses: SAM-5, 7.1 */
enum scsi_task_response {
	SCSI_FUNCTION_COMPLETE,
	SCSI_FUNCTION_SUCCEEDED, /**< QUERY: the task is there */
	SCSI_FUNCTION_REJECTED,
	SCSI_INCORRECT_LUN,
	SCSI_NO_TARGET,
};

/** Something to be done on all queues of a target, one after another. The target's own. */
struct scsi_visit {
	struct loop_message message;
	struct list link; /**< of the queue that it waits at */
	struct scsi_target *target;
	struct loop *home; /**< where @finished runs */
	unsigned next;     /**< queue */
	/** On each queue's loop: true when nothing is left to wait for there. */
	bool (*visit)(struct scsi_visit *visit, struct scsi_queue *queue, bool again);
	void (*finished)(struct scsi_visit *visit);
};

/** One task management request; the adapter's, kept until @done. */
struct scsi_task_request {
	enum scsi_task_function function;
	uint16_t target;
	uint64_t lun, tag;
	void (*done)(struct scsi_task_request *request);
	void *owner;
	enum scsi_task_response response;
	/* the target's own */
	struct scsi_visit visit;
	struct scsi_queue *queue;
};

/**
 * Does it on all queues of the adapter: commands that are concerned come back, with aborted set,
 * before
 * @request->done, which runs on this queue's loop. What is already with the storage is waited for,
 * so that none of it touches guest memory afterwards.
 */
void scsi_task_manage(struct scsi_queue *queue, struct scsi_task_request *request);
