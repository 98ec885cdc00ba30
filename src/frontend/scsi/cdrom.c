/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cdrom.c - what a CD-ROM drive has beyond a disk (MMC-6), and the tray of any removable unit
 *
 * Any disk is a medium of 2,048-byte blocks with one session and one data track. A medium of more
 * than 80 minutes is a DVD. The guest may open the tray: the medium stays in it, and is back when
 * the tray is closed; what is in the drive is changed from the control side only. While the guest
 * prevents removal, the user's wish is an event that it may act upon.
 */
#include <string.h>

#include "frontend/scsi/operations.h"
#include "frontend/scsi/scsi_private.h"

#define CD_BLOCKS (80ull * 60 * 75) /* of the largest CD */
#define MSF_START 150u              /* where block 0 is on the time scale */

/* Events of a unit, as bits; each is told once. MMC-6, 6.6.2. */
enum {
	EVENT_EJECT_REQUEST = 1,
	EVENT_NEW_MEDIUM = 2,
	EVENT_REMOVAL = 4,
	EVENT_OPERATION = 8, /* the current profile is another */
};

/* --- the tray ----------------------------------------------------------------------- */

void scsi_medium_changed(struct scsi_unit *unit, const struct disk *disk)
{
	atomic_store(&unit->tray_open, false);
	atomic_store(&unit->prevented, false);
	atomic_fetch_or(&unit->events, EVENT_OPERATION | (disk ? EVENT_NEW_MEDIUM : EVENT_REMOVAL));
	if (disk)
		scsi_attention(unit, ATTENTION_MEDIUM);
}

void scsi_eject_requested(struct scsi_unit *unit)
{
	atomic_fetch_or(&unit->events, EVENT_EJECT_REQUEST);
}

static void eject(struct scsi_command *command)
{
	struct scsi_unit *unit = command->port->unit;

	if (atomic_load(&unit->prevented)) { /* MEDIUM REMOVAL PREVENTED */
		scsi_fail(command, KEY_ILLEGAL_REQUEST, 0x53, 0x02);
		return;
	}
	if (!atomic_exchange(&unit->tray_open, true) && command->port->disk)
		atomic_fetch_or(&unit->events, EVENT_REMOVAL);
	scsi_good(command);
}

/*
 * It is the medium that was there before, for nobody can change it behind a tray that the guest has
 * opened without closing it: so no unit attention, after which Linux would refuse the first read.
 */
static void load(struct scsi_command *command)
{
	struct scsi_unit *unit = command->port->unit;

	if (atomic_exchange(&unit->tray_open, false) && command->port->disk)
		atomic_fetch_or(&unit->events, EVENT_NEW_MEDIUM);
	scsi_good(command);
}

static void stopped(struct scsi_command *command, int status)
{
	if (status)
		scsi_fail_io(command, IO_FLUSH, status, 0);
	else
		scsi_good(command);
}

/*
 * SBC-3, 5.25. A disk that is stopped has its cache written, and serves on: guests stop their disks
 * when they shut down, and firmware does not start them.
 */
void scsi_start_stop(struct scsi_command *command)
{
	const struct scsi_port *port = command->port;
	uint8_t how = command->cdb[4];
	bool power = how >> 4; /* a power condition: taken note of */
	bool start = how & 1 || power, load_eject = how & 2 && !power;

	if (load_eject && !port->unit->removable) {
		scsi_bad_field(command, 4, 1);
	} else if (load_eject) {
		(start ? load : eject)(command);
	} else if (!start && !(how & 4) && port->disk && !port->disk->config.read_only) {
		scsi_submit(command, IO_FLUSH, 0, 0, 0, (struct io_data){ 0 }, stopped);
	} else {
		scsi_good(command);
	}
}

void scsi_prevent_allow(struct scsi_command *command)
{
	if (command->cdb[4] & 2) { /* persistent prevention: MMC-6 made it obsolete */
		scsi_bad_field(command, 4, 1);
		return;
	}
	if (command->port->unit->removable)
		atomic_store(&command->port->unit->prevented, (command->cdb[4] & 1) != 0);
	scsi_good(command);
}

/* --- the disc ----------------------------------------------------------------------- */

static void put_address(uint8_t *to, uint64_t lba, bool msf)
{
	if (!msf) {
		put32(to, lba);
		return;
	}
	lba += MSF_START;
	to[0] = 0;
	to[1] = (uint8_t)min64(lba / 4500, 255);
	to[2] = (uint8_t)(lba / 75 % 60);
	to[3] = (uint8_t)(lba % 75);
}

static uint8_t *put_track(uint8_t *to, uint8_t track, uint64_t lba, bool msf)
{
	to[0] = 0;
	to[1] = 0x14; /* a data track */
	to[2] = track;
	to[3] = 0;
	put_address(to + 4, lba, msf);
	return to + 8;
}

/* One row of the full table of contents: times are in MSF always. MMC-6, 6.25.3.4. */
static uint8_t *put_point(uint8_t *to, uint8_t point, uint8_t m, uint8_t s, uint8_t f)
{
	const uint8_t row[11] = { 1, 0x14, 0, point, 0, 0, 0, 0, m, s, f };

	memcpy(to, row, sizeof row);
	return to + sizeof row;
}

void scsi_read_toc(struct scsi_command *command)
{
	const uint8_t *cdb = command->cdb;
	unsigned format = cdb[2] & 0x0f ? cdb[2] & 0x0fu : cdb[9] >> 6; /* old ATAPI has it there */
	bool msf = cdb[1] & 2;
	uint64_t blocks = scsi_blocks(command->port);
	uint8_t data[4 + 4 * 11] = { 0, 0, 1, 1 }, *at = data + 4, end[4];

	switch (format) {
	case 0:
		if (cdb[6] > 1 && cdb[6] != 0xaa) {
			scsi_bad_field(command, 6, -1);
			return;
		}
		if (cdb[6] <= 1)
			at = put_track(at, 1, 0, msf);
		at = put_track(at, 0xaa, blocks, msf);
		break;
	case 1:
		at = put_track(at, 1, 0, msf);
		break;
	case 2:
		put_address(end, blocks, true);
		at = put_point(at, 0xa0, 1, 0, 0); /* first track */
		at = put_point(at, 0xa1, 1, 0, 0); /* last track */
		at = put_point(at, 0xa2, end[1], end[2], end[3]);
		at = put_point(at, 1, 0, 2, 0);
		break;
	default:
		scsi_bad_field(command, 2, 3);
		return;
	}
	put16(data, (uint64_t)(at - data - 2));
	scsi_reply(command, data, (size_t)(at - data));
}

void scsi_read_disc_information(struct scsi_command *command)
{
	uint8_t data[34] = { 0, 32, 0x0e, 1, 1, 1, 1, 0x20 }; /* one session, complete; final */

	if (command->cdb[1] & 7)
		scsi_bad_field(command, 1, 2);
	else
		scsi_reply(command, data, sizeof data);
}

/* User data of data sectors, which is what READ (10) reads as well. */
void scsi_read_cd(struct scsi_command *command)
{
	const uint8_t *cdb = command->cdb;
	unsigned type = cdb[1] >> 2 & 7;

	if (type != 0 && type != 2) { /* ILLEGAL MODE FOR THIS TRACK */
		scsi_fail(command, KEY_ILLEGAL_REQUEST, 0x64, 0x00);
		return;
	}
	if (cdb[10] & 7) {
		scsi_bad_field(command, 10, 2);
		return;
	}
	switch (cdb[9] & 0xf8) {
	case 0x00:
		scsi_good(command);
		return;
	case 0x10:
		scsi_read(command);
		return;
	default:
		scsi_bad_field(command, 9, 7);
		return;
	}
}

/* --- the drive ---------------------------------------------------------------------- */

enum { PROFILE_CD_ROM = 0x08, PROFILE_DVD_ROM = 0x10, CURRENT = 1, PERSISTENT = 2 };

static unsigned profile_of(const struct scsi_port *port)
{
	struct sense sense;

	if (scsi_not_ready(port, &sense))
		return 0;
	return scsi_blocks(port) > CD_BLOCKS ? PROFILE_DVD_ROM : PROFILE_CD_ROM;
}

/* Features, MMC-6, 5.3: which profiles have them current, and what they say. */
static const struct feature {
	uint16_t code;
	uint8_t flags;   /* version << 2 | PERSISTENT, for those that are always current */
	uint8_t profile; /* 0: any medium */
	uint8_t length;
	uint8_t data[8];
} features[] = {
	{ 0x0000, PERSISTENT, 0, 8, { 0, PROFILE_DVD_ROM, 0, 0, 0, PROFILE_CD_ROM, 0, 0 } },
	{ 0x0001, 2 << 2 | PERSISTENT, 0, 8, { 0, 0, 0, 1, 1 } },    /* core; SCSI; DBE */
	{ 0x0002, 1 << 2 | PERSISTENT, 0, 4, { 2 } },                /* morphing: OCEVENT */
	{ 0x0003, PERSISTENT, 0, 4, { 0x20 | 0x08 | 0x01 } },        /* tray, ejects, locks */
	{ 0x0010, 0, 0, 8, { 0, 0, CD_BLOCK >> 8, 0, 0, 1, 0, 0 } }, /* random readable */
	{ 0x001d, 0, PROFILE_CD_ROM, 0, { 0 } },                     /* multi-read */
	{ 0x001e, 2 << 2, PROFILE_CD_ROM, 4, { 0 } },                /* CD read */
	{ 0x001f, 0, PROFILE_DVD_ROM, 0, { 0 } },                    /* DVD read */
};

void scsi_get_configuration(struct scsi_command *command)
{
	const uint8_t *cdb = command->cdb;
	unsigned which = cdb[1] & 3, start = get16(cdb + 2), profile = profile_of(command->port);
	uint8_t data[8 + 8 * 12] = { 0 }, *at = data + 8;

	if (which == 3) {
		scsi_bad_field(command, 1, 1);
		return;
	}
	for (unsigned i = 0; i < sizeof features / sizeof *features; i++) {
		const struct feature *f = &features[i];
		bool current = f->flags & PERSISTENT ||
			       (profile && (!f->profile || f->profile == profile));

		if (which == 2 ? f->code != start : f->code < start || (which == 1 && !current))
			continue;
		put16(at, f->code);
		at[2] = (uint8_t)(f->flags | (current ? CURRENT : 0));
		at[3] = f->length;
		memcpy(at + 4, f->data, f->length);
		if (!f->code) { /* the profile list says which is current */
			at[6] = profile == PROFILE_DVD_ROM;
			at[10] = profile == PROFILE_CD_ROM;
		}
		at += 4u + f->length;
	}
	put16(data + 6, profile);
	put32(data, (uint64_t)(at - data - 4));
	scsi_reply(command, data, (size_t)(at - data));
}

/* The first event in @order is taken away: its code, or 0. */
static uint8_t take_event(struct scsi_unit *unit, unsigned events)
{
	unsigned pending = atomic_load(&unit->events), event;

	do {
		if (!(pending & events))
			return 0;
		event = pending & events & -(pending & events);
	} while (!atomic_compare_exchange_weak(&unit->events, &pending, pending & ~event));
	return (uint8_t)(1 + __builtin_ctz(event));
}

/* MMC-6, 6.6. Only polled; of the classes asked for the one with the lowest number is answered. */
void scsi_get_event_status(struct scsi_command *command)
{
	enum { OPERATION = 1, MEDIA = 4, SUPPORTED = 1 << OPERATION | 1 << MEDIA };
	const struct scsi_port *port = command->port;
	struct scsi_unit *unit = port->unit;
	unsigned asked = command->cdb[4] & SUPPORTED;
	uint8_t data[8] = { 0, 6, 0, SUPPORTED };

	if (!(command->cdb[1] & 1)) {
		scsi_bad_field(command, 1, 0);
		return;
	}
	if (!asked) {
		data[1] = 2;
		data[2] = 0x80; /* NEA: no event available */
		scsi_reply(command, data, 4);
		return;
	}
	if (asked & 1 << OPERATION &&
	    (!(asked & 1 << MEDIA) || atomic_load(&unit->events) & EVENT_OPERATION)) {
		data[2] = OPERATION;
		if (take_event(unit, EVENT_OPERATION)) {
			data[4] = 2; /* the drive's features have changed */
			data[7] = 1;
		}
	} else {
		data[2] = MEDIA;
		data[4] = take_event(unit, EVENT_EJECT_REQUEST | EVENT_NEW_MEDIUM | EVENT_REMOVAL);
		data[5] = atomic_load(&unit->tray_open) ? 1 : port->disk ? 2 : 0;
	}
	scsi_reply(command, data, sizeof data);
}

void scsi_mechanism_status(struct scsi_command *command)
{
	uint8_t data[8] = { 0, atomic_load(&command->port->unit->tray_open) ? 0x10 : 0 };

	scsi_reply(command, data, sizeof data);
}

void scsi_set_cd_speed(struct scsi_command *command)
{
	scsi_good(command); /* as fast as the disk is */
}
