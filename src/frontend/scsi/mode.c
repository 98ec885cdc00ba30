/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mode.c - MODE SENSE and MODE SELECT: what a guest may ask and set of a unit's ways (SPC-4, 7.5;
 * SBC-3, 6.5; MMC-6, 7)
 *
 * One table of pages: each fills in its bytes as they are now, as they would be after a reset, or
 * as a mask of those that may be changed. A MODE SELECT is checked whole, against those masks,
 * before any of it counts; its mistakes are reported with the byte that is wrong. Nothing can be
 * saved.
 */
#include <string.h>

#include "frontend/scsi/operations.h"
#include "frontend/scsi/scsi_private.h"

enum { CURRENT, CHANGEABLE, DEFAULT, SAVED };
enum {
	ALL_PAGES = 0x3f,
	ALL_SUBPAGES = 0xff,
	DATA_MAX = 256,
	WRITE_PROTECTED = 0x80,
	DPO_FUA = 0x10,
	WCE = 0x04,
	D_SENSE = 0x04,
	SWP = 0x08,
};

static bool can_write(const struct scsi_port *port)
{
	return port->disk && !port->disk->config.read_only;
}

/* --- pages: what comes after the page's code and length ------------------------------- */

static void page_recovery(const struct scsi_port *port, uint8_t *p, int control)
{
	if (control != CHANGEABLE && !port->unit->cdrom)
		p[0] = 0x80; /* AWRE: a bad block that is written is mended */
}

static void page_caching(const struct scsi_port *port, uint8_t *p, int control)
{
	bool on = control == CURRENT ? atomic_load(&port->unit->write_cache)
		  : control == CHANGEABLE
			  ? can_write(port)
			  : can_write(port) && port->disk->config.cache != DISK_WRITETHROUGH;

	p[0] = on ? WCE : 0;
}

static void page_control(const struct scsi_port *port, uint8_t *p, int control)
{
	if (control == CHANGEABLE || (control == CURRENT && port->unit->descriptor_sense))
		p[0] = D_SENSE;
	if (control != CHANGEABLE)
		p[1] = 0x10; /* unrestricted reordering */
	if (port->unit->cdrom)
		return;
	if (control == CHANGEABLE || (control == CURRENT && port->unit->write_protect))
		p[2] = SWP;
}

/* Audio control: full volume on both ports; there is no audio. */
static void page_audio(const struct scsi_port *port, uint8_t *p, int control)
{
	static const uint8_t defaults[] = { 0x04, 0, 0, 0, 0, 0, 0x01, 0xff, 0x02, 0xff };

	(void)port;
	if (control != CHANGEABLE)
		memcpy(p, defaults, sizeof defaults);
}

static void page_exceptions(const struct scsi_port *port, uint8_t *p, int control)
{
	(void)port;
	(void)p;
	(void)control; /* none are reported */
}

/* CD capabilities and mechanical status: MMC-3, 5.5.10; later drafts say legacy, drivers use it. */
static void page_capabilities(const struct scsi_port *port, uint8_t *p, int control)
{
	if (control == CHANGEABLE)
		return;
	p[0] = 0x3b;        /* reads CD-R, CD-RW, method 2, DVD-ROM, DVD-R, DVD-RAM */
	p[2] = 0x70;        /* mode 2 forms 1 and 2, multi-session */
	p[4] = 0x20 | 0x09; /* a tray; ejects, locks */
	if (atomic_load(&port->unit->prevented))
		p[4] |= 0x02;
	put16(p + 6, 8800); /* 50 times 176 kB/s */
	put16(p + 10, 512); /* buffer, KiB */
	put16(p + 12, 8800);
}

static const struct page {
	uint8_t code, length;
	uint16_t units; /* FOR_DISK, FOR_CDROM */
	void (*fill)(const struct scsi_port *port, uint8_t *p, int control);
} pages[] = {
	{ 0x01, 0x0a, FOR_ALL, page_recovery },   { 0x08, 0x12, FOR_DISK, page_caching },
	{ 0x0a, 0x0a, FOR_ALL, page_control },    { 0x0e, 0x0e, FOR_CDROM, page_audio },
	{ 0x1c, 0x0a, FOR_ALL, page_exceptions }, { 0x2a, 0x14, FOR_CDROM, page_capabilities },
};
#define PAGES (sizeof pages / sizeof *pages)

static bool is_for(const struct page *page, const struct scsi_port *port)
{
	return page->units & port->kind;
}

static size_t put_page(const struct page *page, const struct scsi_port *port, int control,
		       uint8_t *to)
{
	to[0] = page->code;
	to[1] = page->length;
	memset(to + 2, 0, page->length);
	page->fill(port, to + 2, control);
	return 2u + page->length;
}

/* --- MODE SENSE --------------------------------------------------------------------- */

/* The block descriptor, of 8 or 16 bytes; a CD-ROM has none. */
static size_t put_descriptor(const struct scsi_port *port, bool is_long, int control, uint8_t *to)
{
	uint64_t blocks = scsi_blocks(port);

	memset(to, 0, 16);
	if (control == CHANGEABLE)
		return is_long ? 16 : 8;
	if (is_long) {
		put64(to, blocks);
		put32(to + 12, port->block);
		return 16;
	}
	put32(to, min64(blocks, UINT32_MAX));
	put24(to + 5, port->block);
	return 8;
}

void scsi_mode_sense(struct scsi_command *command)
{
	const struct scsi_port *port = command->port;
	const uint8_t *cdb = command->cdb;
	bool ten = cdb[0] == 0x5a, is_long = ten && cdb[1] & 0x10, found = false;
	int control = cdb[2] >> 6;
	unsigned code = cdb[2] & 0x3f, header = ten ? 8 : 4;
	uint8_t data[DATA_MAX] = { 0 }, special = 0;
	size_t n = header, descriptor = 0;

	if (control == SAVED) { /* SAVING PARAMETERS NOT SUPPORTED */
		scsi_fail(command, KEY_ILLEGAL_REQUEST, 0x39, 0x00);
		return;
	}
	if (cdb[3] && cdb[3] != ALL_SUBPAGES) {
		scsi_bad_field(command, 3, -1);
		return;
	}
	if (!(cdb[1] & 0x08) && port->disk && !port->unit->cdrom)
		descriptor = put_descriptor(port, is_long, control, data + n);
	n += descriptor;
	for (unsigned i = 0; i < PAGES; i++) {
		if (!is_for(&pages[i], port) || (code != ALL_PAGES && code != pages[i].code))
			continue;
		n += put_page(&pages[i], port, control, data + n);
		found = true;
	}
	if (!found && code) { /* page 0 would be vendor specific: an empty list */
		scsi_bad_field(command, 2, 5);
		return;
	}
	if (!can_write(port) || atomic_load(&port->unit->write_protect))
		special |= WRITE_PROTECTED;
	if (!port->unit->cdrom)
		special |= DPO_FUA;
	if (ten) {
		put16(data, n - 2);
		data[3] = special;
		data[4] = is_long && descriptor;
		put16(data + 6, descriptor);
	} else {
		data[0] = (uint8_t)(n - 1);
		data[2] = special;
		data[3] = (uint8_t)descriptor;
	}
	scsi_reply(command, data, n);
}

/* --- MODE SELECT -------------------------------------------------------------------- */

static void cache_flushed(struct scsi_command *command, int status)
{
	if (status)
		scsi_fail_io(command, IO_FLUSH, status, 0);
	else
		scsi_good(command);
}

/* The block descriptor may say what is so, and nothing else. -1, or the byte that is wrong. */
static int check_descriptor(const struct scsi_port *port, const uint8_t *p, size_t n)
{
	uint64_t blocks = n == 16 ? get64(p) : get32(p);
	uint32_t block = n == 16 ? get32(p + 12) : get24(p + 5);
	uint64_t now = port->disk ? scsi_blocks(port) : 0;

	if (blocks && blocks != now && blocks != (n == 16 ? UINT64_MAX : UINT32_MAX))
		return 0;
	return block == port->block ? -1 : n == 16 ? 12 : 5;
}

/* Checks the page at @p, of which @left bytes were sent. Its length, or 0: the command is over. */
static size_t check_page(struct scsi_command *command, const uint8_t *data, size_t at, size_t left)
{
	const struct scsi_port *port = command->port;
	const uint8_t *p = data + at;
	uint8_t now[DATA_MAX], mask[DATA_MAX];

	for (unsigned i = 0; i < PAGES; i++) {
		const struct page *page = &pages[i];

		if (!is_for(page, port) || (p[0] & 0x7f) != page->code)
			continue;
		if (left < 2 || left < 2u + page->length) {
			scsi_fail(command, KEY_ILLEGAL_REQUEST, 0x1a, 0x00);
			return 0;
		}
		if (p[1] != page->length) {
			scsi_bad_parameter(command, (unsigned)at + 1, -1);
			return 0;
		}
		put_page(page, port, CURRENT, now);
		put_page(page, port, CHANGEABLE, mask);
		for (unsigned k = 2; k < 2u + page->length; k++) {
			uint8_t wrong = (uint8_t)((p[k] ^ now[k]) & ~mask[k]);

			if (!wrong)
				continue;
			scsi_bad_parameter(command, (unsigned)at + k,
					   31 - __builtin_clz((unsigned)wrong));
			return 0;
		}
		return 2u + page->length;
	}
	scsi_bad_parameter(command, (unsigned)at, 5);
	return 0;
}

/* It was checked. True if the write cache was turned off. */
static bool apply_page(struct scsi_port *port, const uint8_t *p)
{
	struct scsi_unit *unit = port->unit;
	bool on;

	if ((p[0] & 0x3f) == 0x0a) {
		atomic_store(&unit->descriptor_sense, (p[2] & D_SENSE) != 0);
		atomic_store(&unit->write_protect, (p[4] & SWP) != 0);
	}
	if ((p[0] & 0x3f) != 0x08)
		return false;
	on = p[2] & WCE;
	return atomic_exchange(&unit->write_cache, on) && !on;
}

void scsi_mode_select(struct scsi_command *command)
{
	const uint8_t *cdb = command->cdb;
	bool ten = cdb[0] == 0x55, off = false;
	size_t header = ten ? 8 : 4, length = (size_t)scsi_cdb_count(command->operation, cdb);
	size_t descriptor, first;
	uint8_t data[DATA_MAX] = { 0 };
	int wrong;

	if (cdb[1] & 1) { /* SP */
		scsi_bad_field(command, 1, 0);
		return;
	}
	if (!length) {
		scsi_good(command);
		return;
	}
	if (length > sizeof data) {
		scsi_bad_field(command, command->operation->length_at, -1);
		return;
	}
	if (!scsi_parameters(command, data, length))
		return;
	descriptor = ten ? get16(data + 6) : data[3];
	first = header + descriptor;
	if (length < header || first > length) {
		scsi_fail(command, KEY_ILLEGAL_REQUEST, 0x1a, 0x00);
		return;
	}
	if (descriptor && descriptor != 8 && !(ten && descriptor == 16 && data[4] & 1)) {
		scsi_bad_parameter(command, ten ? 6 : 3, -1);
		return;
	}
	wrong = descriptor ? check_descriptor(command->port, data + header, descriptor) : -1;
	if (wrong >= 0) {
		scsi_bad_parameter(command, (unsigned)header + (unsigned)wrong, -1);
		return;
	}
	for (size_t at = first, n; at < length; at += n) {
		n = check_page(command, data, at, length - at);
		if (!n)
			return;
	}
	for (size_t at = first; at < length; at += 2u + data[at + 1])
		off |= apply_page(command->port, data + at);
	if (off) /* what is in the cache is written before nothing may be there */
		scsi_submit(command, IO_FLUSH, 0, 0, 0, (struct io_data){ 0 }, cache_flushed);
	else
		scsi_good(command);
}
