/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * smart.c - what there is to tell of a disk's health (ATA/ATAPI-7 volume 1, 6.55)
 *
 * A virtual disk does not wear out; its storage is watched from outside. So the status is good, the
 * one attribute that has something to say counts requests that the storage failed, and there are no
 * self-tests to run. The error log has that count, without entries.
 */
#include <string.h>

#include "frontend/ata/ide.h"

enum {
	READ_DATA = 0xd0,
	READ_THRESHOLDS,
	AUTOSAVE,
	READ_LOG = 0xd5,
	ENABLE = 0xd8,
	DISABLE,
	STATUS
};

enum { LOG_DIRECTORY = 0, LOG_ERRORS = 1, LOG_SELF_TESTS = 6 };

#define ATTRIBUTE_ERRORS 187 /* what is commonly "reported uncorrectable errors" */

/* The bytes of a page sum up to 0. */
static void seal(uint8_t *page)
{
	uint8_t sum = 0;

	for (unsigned i = 0; i < IDE_PAGE - 1; i++)
		sum = (uint8_t)(sum + page[i]);
	page[IDE_PAGE - 1] = (uint8_t)-sum;
}

static void answer(struct ide_channel *c)
{
	ide_pio(c, IDE_IN, c->page, IDE_PAGE, ide_complete_quietly);
	ide_interrupt(c);
}

static void read_data(struct ide_channel *c)
{
	static const uint8_t attribute[] = { ATTRIBUTE_ERRORS, 0x32, 0x00, 100, 100 };
	const struct ide_drive *d = c->active;

	c->page[0] = 0x10; /* revision */
	memcpy(c->page + 2, attribute, sizeof attribute);
	c->page[7] = (uint8_t)d->failures;
	c->page[8] = (uint8_t)(d->failures >> 8);
	c->page[368] = 0x02; /* attributes are kept without being told */
	c->page[370] = 0x01; /* there is an error log */
	seal(c->page);
	answer(c);
}

static void read_thresholds(struct ide_channel *c)
{
	c->page[0] = 0x10;
	c->page[2] = ATTRIBUTE_ERRORS;
	seal(c->page);
	answer(c);
}

/* In the directory each log has a word: of how many pages it is. */
static void put_pages(uint8_t *directory, size_t log)
{
	directory[2 * log] = 1;
}

/* The directory has no checksum. Of self-tests there is a log, which never has an entry: tools ask
 * for it whatever IDENTIFY says. */
static bool make_log(const struct ide_drive *d, uint8_t log, uint8_t *page)
{
	page[0] = 1; /* the version */
	switch (log) {
	case LOG_DIRECTORY:
		put_pages(page, LOG_ERRORS);
		put_pages(page, LOG_SELF_TESTS);
		return true;
	case LOG_ERRORS:
		page[452] = (uint8_t)d->failures;
		page[453] = (uint8_t)(d->failures >> 8);
		break;
	case LOG_SELF_TESTS:
		break;
	default:
		return false;
	}
	seal(page);
	return true;
}

static void read_log(struct ide_channel *c)
{
	const struct ide_drive *d = c->active;

	if (d->current[ATA_COUNT] == 1 && make_log(d, d->current[ATA_LOW], c->page))
		answer(c);
	else
		ide_complete(c, ATA_ABRT);
}

void ata_smart(struct ide_channel *c)
{
	struct ide_drive *d = c->active;
	uint8_t feature = d->current[ATA_FEATURES];

	memset(c->page, 0, sizeof c->page);
	if (d->current[ATA_MID] != 0x4f || d->current[ATA_HIGH] != 0xc2 ||
	    (!d->smart && feature != ENABLE)) {
		ide_complete(c, ATA_ABRT);
		return;
	}
	switch (feature) {
	case READ_DATA:
		read_data(c);
		break;
	case READ_THRESHOLDS:
		read_thresholds(c);
		break;
	case READ_LOG:
		read_log(c);
		break;
	case ENABLE:
	case DISABLE:
		d->smart = feature == ENABLE;
		ide_complete(c, 0);
		break;
	case AUTOSAVE:
	case STATUS: /* no threshold exceeded: the two registers stay as they are */
		ide_complete(c, 0);
		break;
	default:
		ide_complete(c, ATA_ABRT);
	}
}
