/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ide.h - an IDE function: two channels, on each a master and a slave; private to this folder
 *
 * What goes on in a channel. At most one command at a time: the cable is shared, and a host selects
 * the other drive only when neither BSY nor DRQ is set. A command runs from register write to
 * register write: it moves data by PIO (the host takes a block, or gives one, then @then goes on),
 * by DMA (@go moves a piece as soon as the bus master is started), or has work for the storage.
 *
 * What has been given away (to the storage, to a SCSI target, to the VMM as a DMA message) is the
 * channel's job: @busy. A reset ends the command at once, but a job cannot be taken back: it is
 * marked @abandoned, and nothing that it brings home is looked at. A command that needs the job's
 * buffers before the old one is back is @held, with BSY set: so an old write never overtakes a new
 * one, and a host whose storage hangs can still reset and identify its drives.
 *
 * Rooms: channel.c has the registers and the protocol; bus_master.c the DMA engine; prd.c its
 * tables; ata.c the commands of a disk, with transfer.c those that move data, smart.c and
 * identify.c; atapi.c the packet protocol; ide.c the PCI function, and what users say about it.
 *
 * Sources: ATA/ATAPI-7 (INCITS 397) volumes 1 and 2; Programming Interface for Bus Master IDE
 * Controller 1.0 (SFF-8038i); PCI IDE Controller Specification 1.0 (native mode).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "frontend/pci/pci.h"
#include "frontend/scsi/scsi.h"
#include "layer/disk.h"
#include "util/log.h"

#define IDE_CHANNELS 2
#define IDE_DRIVES   (2 * IDE_CHANNELS)
#define IDE_BUFFER   65536u /**< bytes of a channel's buffer: pieces of PIO and of ATAPI */
#define IDE_MULTIPLE 16u    /**< most sectors of a block of READ MULTIPLE; they fit in the buffer */
#define IDE_PRDS     256u   /**< entries of a table that are looked at for one piece */
#define IDE_VECTORS  264u   /**< and iovecs: a few entries may cross memory regions */
#define IDE_PAGE     512u   /**< bytes of what IDENTIFY and SMART answer */

/** Status register: ATA/ATAPI-7 volume 1, 5.14. */
enum {
	ATA_ERR = 0x01, /**< CHK for a packet drive */
	ATA_DRQ = 0x08,
	ATA_DSC = 0x10, /**< seek complete */
	ATA_DF = 0x20,  /**< device fault */
	ATA_DRDY = 0x40,
	ATA_BSY = 0x80,
	ATA_READY = ATA_DRDY | ATA_DSC,
};

/** Error register: 5.8. */
enum { ATA_ABRT = 0x04, ATA_IDNF = 0x10, ATA_UNC = 0x40 };

/** Device control register: 5.6. */
enum { ATA_NIEN = 0x02, ATA_SRST = 0x04, ATA_HOB = 0x80 };

/** Device register: 5.7. */
enum { ATA_DEV = 0x10, ATA_LBA = 0x40 };

/** Registers of the command block, by offset; those in between have a previous content too. */
enum {
	ATA_DATA,
	ATA_FEATURES, /**< read: error */
	ATA_COUNT,    /**< packet commands: interrupt reason */
	ATA_LOW,
	ATA_MID,  /**< packet commands: byte count, low */
	ATA_HIGH, /**< packet commands: byte count, high */
	ATA_DEVICE,
	ATA_COMMAND, /**< read: status */
	ATA_REGISTERS
};

enum ide_kind { IDE_NONE, IDE_DISK, IDE_CDROM };

enum ide_phase {
	IDE_IDLE,
	IDE_BUSY, /**< BSY: a job is away, or the command waits for one */
	IDE_IN,   /**< DRQ: the host takes from @at */
	IDE_OUT,  /**< DRQ: the host gives to @at */
	IDE_DMA,  /**< BSY: pieces are moved while the bus master is started */
};

/** Bus master registers: SFF-8038i, 1.0. */
enum { BM_START = 0x01, BM_READ = 0x08 };                                      /* command */
enum { BM_ACTIVE = 0x01, BM_ERROR = 0x02, BM_INTR = 0x04, BM_CAPABLE = 0x60 }; /* status */

struct ide;
struct ide_channel;
typedef void ide_fn(struct ide_channel *c);
typedef void ide_status_fn(struct ide_channel *c, int status);

struct ide_drive {
	struct ide_channel *channel;
	unsigned number; /**< of its unit: channel * 2 + slave */
	enum ide_kind kind;
	struct disk *disk;        /**< IDE_DISK's */
	struct disk_queue *queue; /**< onto @disk */
	bool open;                /**< @queue is */
	struct queue_stats *stats;
	char serial[21], model[41];

	/* registers */
	uint8_t status, error;
	uint8_t current[ATA_REGISTERS], previous[ATA_REGISTERS];
	bool interrupt; /**< it wants INTRQ, which it has while selected and not nIEN */

	/* settings, by commands */
	bool write_cache, look_ahead, smart;
	bool keep;               /**< over a software reset: SET FEATURES 66h */
	bool asleep;             /**< only a reset wakes it */
	uint8_t power;           /**< what CHECK POWER MODE answers */
	uint8_t multiple;        /**< sectors of a block; 0: READ MULTIPLE is off */
	uint8_t mode;            /**< of DMA, as in SET FEATURES: 0x20 + multiword, 0x40 + ultra */
	uint16_t heads, sectors; /**< for addresses by cylinder */
	uint16_t failures;       /**< requests that the storage failed, for SMART */

	/** IDE_CDROM: what the last command failed with, until it is asked for. */
	uint8_t sense[SCSI_SENSE_MAX], sense_length;
};

/** An entry of a table of physical regions, little-endian: SFF-8038i, 1.2. */
struct prd {
	uint32_t address;
	uint32_t count; /**< bytes in the low half, 0 for 65,536; the highest bit ends the table */
};

/** Where in a table of physical regions the next byte is. */
struct prd_walker {
	uint32_t entry; /**< guest address of the entry */
	uint32_t used;  /**< bytes of it that are moved */
	bool ended;     /**< the last one is used up */
};

struct ide_channel {
	struct ide *ide;
	unsigned index;
	struct ide_drive drive[2];
	uint8_t device, control; /**< registers that both drives have in common */
	bool line;               /**< INTRQ as the function sees it */

	/* the command */
	enum ide_phase phase;
	struct ide_drive *active; /**< whose it is */
	uint8_t opcode;
	char *at;               /**< PIO: next byte; 2-byte aligned */
	uint32_t left;          /**< PIO: bytes of this block */
	ide_fn *then;           /**< PIO: the block is done */
	ide_fn *go;             /**< DMA: moves the next piece; NULL: nothing more will move */
	uint64_t sector;        /**< disk: next one */
	uint32_t sectors;       /**< disk: still to be moved */
	uint32_t piece;         /**< disk: of those, in the job; TRIM: bytes of ranges */
	uint32_t block;         /**< bytes of a block of PIO */
	uint32_t filled, taken; /**< bytes in @buffer */
	bool write, fua, ext;   /**< disk: how */

	/* the packet command */
	uint8_t packet[12] __attribute__((aligned(4)));
	bool packet_dma;
	uint32_t limit;        /**< bytes of a block of PIO */
	bool cut;              /**< it is a read in several pieces */
	uint32_t address;      /**< of the next piece, blocks */
	uint32_t blocks;       /**< still to be read */
	uint32_t block_length; /**< bytes of one */
	struct scsi_command scsi;

	/* the job */
	bool busy, abandoned;
	ide_fn *held;          /**< begins a command once the job is back */
	ide_status_fn *stored; /**< the storage has finished */
	char *buffer;          /**< IDE_BUFFER bytes */

	/* prd.c: the guest's memory, for a piece */
	struct dma_transfer table_dma, dma;
	struct iovec table_vec[4], vec[IDE_VECTORS];
	struct prd prd[IDE_PRDS]; /**< a copy, @prds of them */
	unsigned prds;
	bool mapped; /**< @dma is begun */
	enum dma_direction direction;
	uint64_t want;           /**< bytes, at most */
	uint32_t granule, found; /**< bytes */
	ide_status_fn *gathered, *moved;

	/* bus master */
	uint8_t bm_command, bm_status;
	uint32_t bm_table;
	struct prd_walker walker;

	/** What commands answer without storage: not the job's, so free after a reset. */
	uint8_t page[IDE_PAGE] __attribute__((aligned(8)));
};

struct ide {
	struct pci_device pci; /* first */
	struct ide_channel channel[IDE_CHANNELS];
	struct scsi_target *target; /**< the CD-ROM drives; NULL: none */
	struct scsi_queue *queue;
	struct scsi_task_request bus_reset;
	bool resetting, reset_again; /**< @bus_reset is under way, and one more is due */
	bool stopping;
	struct loop_task settle;
	struct log_limit limit;
};

/* --- ide.c ---------------------------------------------------------------------------- */

/** A job has come home that nobody waits for: that may have been what a stop waits for. */
void ide_settle(struct ide *ide);

/* --- channel.c ------------------------------------------------------------------------ */

/** Rows of the BARs of the channels. */
extern const struct pci_register ide_command_block[IDE_CHANNELS][ATA_REGISTERS + 1];
extern const struct pci_register ide_control_block[IDE_CHANNELS][2];

static inline struct ide_drive *ide_selected(struct ide_channel *c)
{
	return &c->drive[c->device & ATA_DEV ? 1 : 0];
}

/** As after power-on. */
void ide_channel_reset(struct ide_channel *c);

/** Puts the signature of @d's kind into its registers (ATA/ATAPI-7 volume 1, 9.12). */
void ide_signature(struct ide_drive *d);

/**
 * The host is to take, or give, @length bytes at @bytes (2-byte aligned), then @then. Raises no
 * interrupt.
 */
void ide_pio(struct ide_channel *c, enum ide_phase phase, void *bytes, uint32_t length,
	     ide_fn *then);

/** The active drive wants the host's attention. */
void ide_interrupt(struct ide_channel *c);

/** Ends the command: @error for the error register; 0: all is well. With an interrupt, or not. */
void ide_complete(struct ide_channel *c, uint8_t error);
void ide_complete_quietly(struct ide_channel *c);

/** Begins, by @start, what needs the job's buffers: now, or when an abandoned one is back. */
void ide_job_begin(struct ide_channel *c, ide_fn *start);

/** The job came home: true if nobody waits for it any more. */
bool ide_job_over(struct ide_channel *c);

/** Ends the command, whatever it is; its job is left to come home. */
void ide_abandon(struct ide_channel *c);

/* --- bus_master.c --------------------------------------------------------------------- */

extern const struct pci_register ide_bus_master_registers[];

/** The command wants to move data by DMA: @go moves a piece, whenever that may be. */
void ide_dma(struct ide_channel *c, ide_fn *go);

/** Moves the next piece, if the bus master is started. */
void ide_dma_go(struct ide_channel *c);

/** The transfer has ended: well, with a table that is too short, or in an error. */
void ide_dma_done(struct ide_channel *c);
void ide_dma_short(struct ide_channel *c);
void ide_dma_failed(struct ide_channel *c);

/* --- prd.c ---------------------------------------------------------------------------- */

/**
 * Makes the next bytes of the guest's table usable in @c->vec: at most @want, in whole @granules.
 * @gathered gets how many; 0 if the table ends before; or -errno. The job must be busy.
 */
void prd_gather(struct ide_channel *c, enum dma_direction direction, uint64_t want,
		uint32_t granule, ide_status_fn *gathered);

/** Gives the guest @length bytes of what was gathered (0: none); @moved (or NULL) gets 0 or -errno.
 */
void prd_finish(struct ide_channel *c, uint32_t length, ide_status_fn *moved);

/* --- ata.c, transfer.c, smart.c, identify.c: disks -------------------------------------- */

/** Executes @c->opcode on the active drive, a disk. */
void ata_command(struct ide_channel *c);

/** The settings of a drive after power-on. */
void ata_power_on(struct ide_drive *d);

/** Takes a transfer mode of SET FEATURES; false: there is no such mode. */
bool ata_set_mode(struct ide_drive *d, uint8_t mode);

/** Ends the command in an error of the address. */
void ata_fail_at(struct ide_channel *c, uint8_t error, uint64_t sector);

/** Sectors of the disk; bytes of one. */
uint64_t ata_sectors(const struct ide_drive *d);
uint32_t ata_sector_size(const struct ide_drive *d);

/** Sends a request to the active drive's disk; @stored gets its status. */
void ata_submit(struct ide_channel *c, enum io_op op, uint64_t sector, uint64_t sectors,
		struct iovec *vec, unsigned count, ide_status_fn *stored);

/** What a read or write command does with its data. */
enum { ATA_WRITES = 1, ATA_BY_DMA = 2, ATA_BLOCKS = 4, ATA_EXT = 8, ATA_FUA = 16, ATA_VERIFY = 32 };

/** READ, WRITE, READ VERIFY in all their forms. */
void ata_transfer(struct ide_channel *c, unsigned flags);

/** DATA SET MANAGEMENT. */
void ata_data_set_management(struct ide_channel *c);

void ata_smart(struct ide_channel *c);

/** Fills @c->page with what IDENTIFY (PACKET) DEVICE answers. */
void ata_identify(struct ide_drive *d, uint8_t *page);
void atapi_identify(struct ide_drive *d, uint8_t *page);

/* --- atapi.c -------------------------------------------------------------------------- */

/** Executes @c->opcode on the active drive, a CD-ROM. */
void atapi_command(struct ide_channel *c);
