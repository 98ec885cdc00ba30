/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scsi_private.h - what the rooms of the SCSI target share
 *
 *     target.c       units: added, removed, given another medium (control thread)
 *     queue.c        commands: found their unit, checked, executed, handed back
 *     task.c         task management; visits to all queues
 *     operations.c   the table of commands, and what REPORT SUPPORTED OPERATION CODES makes of it
 *     sense.c        what went wrong, as sense data; unit attentions
 *     inquiry.c, mode.c, block.c, verify.c, space.c, cdrom.c, reservation.c, ...   the commands
 *
 * A port is a unit as one queue sees it: opened, held and closed by the queue's own thread, so that
 * the way of a command there needs no lock.
 *
 * Task attributes. All tasks are executed as SIMPLE ones: the queue algorithm modifier of the
 * control mode page says "unrestricted reordering", which lets a target do so, and what must be in
 * order the initiator orders itself. (An ORDERED task that waits would have to wait on all queues
 * of the unit.)
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "frontend/scsi/scsi.h"
#include "layer/disk.h"

struct scsi_shared;

#define SCSI_NEXUS_MAX 192 /* bytes of an initiator's identity, the final zero included */
#define CD_BLOCK       2048u
#define NO_PORT        UINT16_MAX
#define PORT_BUCKETS   64u /* a power of two */

/* --- units -------------------------------------------------------------------------- */

/* Unit attentions that are pending, in the order in which they are reported: SPC-4, 5.14. */
enum attention {
	ATTENTION_POWER_ON,
	ATTENTION_BUS_RESET,
	ATTENTION_RESET,
	ATTENTION_MEDIUM,
	ATTENTION_UNITS,
	ATTENTION_CAPACITY,
	ATTENTION_RESERVATION_PREEMPTED,
	ATTENTION_RESERVATION_RELEASED,
	ATTENTION_REGISTRATION_PREEMPTED,
	ATTENTIONS
};

/* What the reservations of others forbid; rows of the table of commands say which they do. */
enum { CONFLICT_READ = 1, CONFLICT_WRITE = 2 };

struct scsi_unit {
	struct scsi_target *target;
	unsigned index; /* of device->units */
	uint16_t number;
	uint16_t lun;
	bool present;
	bool changing; /* a change is under way; control thread */
	bool closing;  /* ports of new queues are held, like those of old ones; with the lock */
	bool gated;    /* their writes are: a COMPARE AND WRITE is under way; likewise */
	bool cdrom, removable;
	uint16_t rotation;
	char serial[64], vendor[9], product[17];
	char nexus[SCSI_NEXUS_MAX]; /* who the initiator is, to the other users of the disk */
	struct disk *disk;
	struct disk_listener listener;
	struct scsi_shared *shared; /* what all users of the disk have in common; NULL: no disk */
	struct list member;         /* of @shared */

	/* read by the queues */
	atomic_uint attention;                                    /* bits: enum attention */
	atomic_uint conflicts;                                    /* bits: CONFLICT_* */
	atomic_bool write_cache, descriptor_sense, write_protect; /* MODE SELECT */
	atomic_bool tray_open, prevented;
	atomic_uint events; /* of cdrom.c: what GET EVENT STATUS NOTIFICATION has to tell */
};

struct scsi_target {
	struct device *device;
	const struct scsi_target_events *events;
	void *owner;
	pthread_mutex_t lock; /* presence of units; @queues */
	unsigned queue_count;
	struct scsi_queue **queues;
	unsigned unit_count;
	struct scsi_unit *units;
	atomic_uint users; /* the adapter, and visits that are not the adapter's own */
};

/* A unit on a queue. */
struct scsi_port {
	struct scsi_unit *unit;
	struct scsi_queue *queue;
	struct disk *disk; /* NULL: no medium */
	uint32_t block;    /* bytes */
	unsigned shift;    /* the same as a power of two */
	unsigned kind;     /* FOR_*: which commands it has */
	bool present, failed;
	bool held;        /* commands are parked */
	bool writes_held; /* only those that write: while a COMPARE AND WRITE is under way */
	uint16_t next;    /* in its bucket */
	unsigned writing; /* commands under way that write */
	struct disk_queue *onto;
	struct list commands; /* under way */
	struct list parked;
	struct queue_stats *stats;
};

struct scsi_queue {
	struct scsi_target *target;
	unsigned index, depth, outstanding;
	struct loop *loop;
	struct loop_task task;
	struct list finished; /* commands to be handed back */
	struct list visits;   /* those that wait for commands of this queue */
	void (*settled)(void *owner);
	void *owner;
	uint16_t bucket[PORT_BUCKETS];
	struct scsi_port ports[];
};

/* target.c */
void scsi_port_open(struct scsi_port *port, bool held);
void scsi_port_close(struct scsi_port *port);
void scsi_target_hold(struct scsi_target *target);
void scsi_target_release(struct scsi_target *target);
/* The LUN in its one 8-byte form, for answers. */
uint64_t scsi_lun_address(uint16_t lun);

/* queue.c */
struct scsi_port *scsi_find_port(struct scsi_queue *queue, uint16_t target, uint64_t address);
/* Whether there is any unit at @target. */
bool scsi_has_target(const struct scsi_queue *queue, uint16_t target);
/* @port was opened: its parked commands go on. */
void scsi_port_resume(struct scsi_port *port);
/* Ends all parked commands of @port as aborted or, if the unit is gone, as such. */
void scsi_port_drop_parked(struct scsi_port *port);
/* @command is done: back to the adapter with this turn's batch. */
void scsi_finish(struct scsi_command *command);

/* task.c */
void scsi_visit_start(struct scsi_visit *visit);
/* Aborts all commands of @port, as a visit. True if there are none left to wait for. */
bool scsi_abort_all(struct scsi_port *port, bool again);
/* Commands of @queue have come back: moves the visits there that have what they wait for to @ready.
 */
void scsi_visits_again(struct scsi_queue *queue, struct list *ready);
/* Those go on. */
void scsi_visits_leave(struct list *ready);

/* --- commands ----------------------------------------------------------------------- */

enum operation_flag {
	FOR_DISK = 1,
	FOR_CDROM = 2,
	FOR_ALL = FOR_DISK | FOR_CDROM,
	FOR_THIN = 1024, /* disks that give space back */
	NEEDS_MEDIUM = 4,
	NO_ATTENTION = 8, /* neither reports a unit attention nor takes it away */
	NO_UNIT = 16,     /* answered also where there is no such unit */
	CHANGES = 32,     /* refused if write protected */
	WRITES = 64,      /* waits while a COMPARE AND WRITE is under way */
	BLOCKS = 128,     /* @length counts blocks */
	OUT = 256,        /* @length is of data to the unit, not from it */
};

#define NO_ACTION 0xff

/* One row of the table of commands. */
struct scsi_operation {
	uint8_t opcode;
	uint8_t action;                 /* service action, or NO_ACTION */
	uint16_t flags;                 /* enum operation_flag */
	uint8_t conflict;               /* CONFLICT_*: which reservations of others forbid it */
	uint8_t length_at, length_size; /* of the transfer or allocation length in the CDB */
	const char *name;
	void (*execute)(struct scsi_command *command);
	/* Which bits of the CDB we look at: SPC-4, 6.35. Its length is the group's: SPC-4, 4.2.5.1.
	 */
	uint8_t usage[16];
};

/* operations.c */
unsigned scsi_cdb_length(uint8_t opcode);
/*
 * The row of a CDB, or NULL. @kind: FOR_* that the unit is; @known tells whether the operation code
 * has any row for that.
 */
const struct scsi_operation *scsi_operation_find(const uint8_t *cdb, unsigned kind, bool *known);
/* What a CDB says of its data, in units of its row. */
uint64_t scsi_cdb_count(const struct scsi_operation *operation, const uint8_t *cdb);
/* Blocks of data that it moves, for a row with BLOCKS. */
uint64_t scsi_cdb_blocks(const struct scsi_operation *operation, const uint8_t *cdb);

/* Numbers in CDBs and parameter data are big-endian. */
static inline uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t get24(const uint8_t *p)
{
	return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
}

static inline uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static inline uint64_t get64(const uint8_t *p)
{
	return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static inline void put16(uint8_t *p, uint64_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void put24(uint8_t *p, uint64_t v)
{
	p[0] = (uint8_t)(v >> 16);
	put16(p + 1, v);
}

static inline void put32(uint8_t *p, uint64_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static inline void put64(uint8_t *p, uint64_t v)
{
	put32(p, v >> 32);
	put32(p + 4, v);
}

static inline uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Answers with @length bytes of parameter data, cut to what the CDB allows and the buffer has. */
void scsi_reply(struct scsi_command *command, const void *data, size_t length);
/* Copies the first @length bytes of what was sent to @to; false, and the command is over, if fewer.
 */
bool scsi_parameters(struct scsi_command *command, void *to, size_t length);

/* sense.c: each of these ends the command. */
struct sense {
	uint8_t key, asc, ascq;
	uint8_t specific[3]; /* sense key specific; valid if the first has bit 7 */
	bool valid;
	uint64_t information; /* if @valid */
};
void scsi_good(struct scsi_command *command);
void scsi_fail(struct scsi_command *command, uint8_t key, uint8_t asc, uint8_t ascq);
void scsi_fail_sense(struct scsi_command *command, const struct sense *sense);
/* INVALID FIELD IN CDB: @byte, and its bit @bit (or -1: the whole). */
void scsi_bad_field(struct scsi_command *command, unsigned byte, int bit);
/* INVALID FIELD IN PARAMETER LIST, likewise. */
void scsi_bad_parameter(struct scsi_command *command, unsigned byte, int bit);
/* The disk said @error about the block @lba. */
void scsi_fail_io(struct scsi_command *command, enum io_op op, int error, uint64_t lba);
void scsi_set_status(struct scsi_command *command, enum scsi_status status);
size_t scsi_write_sense(uint8_t *to, const struct sense *sense, bool descriptor);
void scsi_attention(struct scsi_unit *unit, enum attention what);
/* Takes the first pending attention away. False if there is none. */
bool scsi_take_attention(struct scsi_unit *unit, struct sense *sense);
/* The unit has no medium, or none yet. False: it is ready. */
bool scsi_not_ready(const struct scsi_port *port, struct sense *sense);

enum sense_key {
	KEY_NONE = 0,
	KEY_NOT_READY = 2,
	KEY_MEDIUM_ERROR = 3,
	KEY_HARDWARE_ERROR = 4,
	KEY_ILLEGAL_REQUEST = 5,
	KEY_UNIT_ATTENTION = 6,
	KEY_DATA_PROTECT = 7,
	KEY_ABORTED_COMMAND = 11,
	KEY_MISCOMPARE = 14,
};

/* block.c: what the commands on blocks have in common. */

/* A command of several steps: where it is, and a buffer. Not on the way of READ and WRITE. */
struct scsi_work {
	uint64_t lba, left;      /* blocks still to do */
	uint64_t at;             /* bytes of the command's data that were used */
	uint64_t room;           /* bytes of @bytes */
	struct scsi_visit visit; /* COMPARE AND WRITE */
	struct scsi_command *owner;
	struct list link; /* of those that wait for their turn: shared.c */
	void (*begin)(struct scsi_work *work);
	int error; /* -errno of @op at @lba */
	enum io_op op;
	struct sense sense; /* of a miscompare */
	struct iovec vec;
	uint8_t bytes[] __attribute__((aligned(16)));
};

typedef void scsi_then_fn(struct scsi_command *command, int status);

/* Gives the command a work with @room bytes, zeroed but for those. False: no memory, and it is
 * over. */
bool scsi_work(struct scsi_command *command, uint64_t room);
/* One request to the unit's disk: @then runs with its status. */
void scsi_submit(struct scsi_command *command, enum io_op op, uint8_t flags, uint64_t offset,
		 uint64_t length, struct io_data data, scsi_then_fn *then);
/* The same, of the work's own bytes. */
void scsi_submit_work(struct scsi_command *command, enum io_op op, uint8_t flags, uint64_t lba,
		      uint64_t length, scsi_then_fn *then);
/* Blocks of the unit. */
uint64_t scsi_blocks(const struct scsi_port *port);
/* [lba, lba + count) is inside; else the command is over. */
bool scsi_in_range(struct scsi_command *command, uint64_t lba, uint64_t count);
/* IO_FUA if a write with this CDB must be stable when it completes. */
uint8_t scsi_fua(const struct scsi_command *command, bool fua);
/* What a CDB of the READ/WRITE family says: 6, 10, 12, 16 bytes. */
void scsi_range(const uint8_t *cdb, uint64_t *lba, uint64_t *count);

/* Whether the initiator sent @length bytes at least; else the command is over. */
bool scsi_has_data(struct scsi_command *command, uint64_t length);

/* cdrom.c */
/* Another medium, or none, is in the drive now. Control thread, while nobody uses the unit. */
void scsi_medium_changed(struct scsi_unit *unit, const struct disk *disk);
/* The user wants the medium out, and the guest prevents it. */
void scsi_eject_requested(struct scsi_unit *unit);

/* Most bytes of one READ, WRITE, UNMAP descriptor or WRITE SAME, and of a work's buffer. */
#define SPACE_BYTES       (1ull << 30)
#define WORK_BYTES        (256u << 10)
#define UNMAP_DESCRIPTORS 256u
