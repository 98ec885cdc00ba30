/* SPDX-License-Identifier: BSD-3-Clause */
/* qemu_version.c - which QEMU the options are for; see qemu.h */
#include <stdio.h>
#include <string.h>

#include "control/qemu.h"

#define LONGEST 4u /* digits of a part of a version */

/* A number of few digits, behind which @at is put. */
static bool part(const char **at, unsigned *number)
{
	size_t digits = strspn(*at, "0123456789");

	*number = 0;
	if (!digits || digits > LONGEST)
		return false;
	while (digits--)
		*number = *number * 10 + (unsigned)(*(*at)++ - '0');
	return true;
}

bool qemu_version_parse(const char *text, unsigned *version)
{
	unsigned major, minor = 0, rest;

	if (!part(&text, &major))
		return false;
	if (*text == '.' && (text++, !part(&text, &minor)))
		return false;
	while (*text == '.')
		if (text++, !part(&text, &rest))
			return false;
	if (*text || minor >= 100)
		return false;
	*version = QEMU_VERSION(major, minor);
	return true;
}

unsigned qemu_version_here(void)
{
	char word[4][32] = { 0 };
	unsigned version = QEMU_VERSION(7, 2);
	FILE *qemu = popen("qemu-system-x86_64 --version 2>/dev/null", "re");

	if (!qemu)
		return version;
	/* "QEMU emulator version 7.2.22 (Debian ...)"; also "9.2.0-rc1", and "9.2.0.rc1" */
	if (fscanf(qemu, "%31s %31s %31s %31s", word[0], word[1], word[2], word[3]) == 4) {
		size_t length = strspn(word[3], "0123456789.");

		if (length && word[3][length - 1] == '.')
			length--;
		word[3][length] = 0;
		qemu_version_parse(word[3], &version);
	}
	pclose(qemu);
	return version;
}
