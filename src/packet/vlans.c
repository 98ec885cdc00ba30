/* SPDX-License-Identifier: BSD-3-Clause */
/* vlans.c - texts of a port's options: lists, sets of VLANs */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "packet/vswitch_private.h"

bool item_next(const char **rest, struct item *item)
{
	const char *at = *rest, *end;

	while (at && (*at == ',' || isspace((unsigned char)*at)))
		at++;
	if (!at || !*at)
		return false;
	end = at + strcspn(at, ",");
	*rest = end;
	while (end > at && isspace((unsigned char)end[-1]))
		end--;
	*item = (struct item){ .text = at, .length = (size_t)(end - at) };
	return true;
}

/* "10" or "20-29" at @item. */
static int range(const struct item *item, unsigned long *first, unsigned long *last)
{
	const char *stop = item->text + item->length;
	char *end;

	if (!isdigit((unsigned char)*item->text))
		return -EINVAL;
	*first = *last = strtoul(item->text, &end, 10);
	if (*end == '-' && isdigit((unsigned char)end[1]))
		*last = strtoul(end + 1, &end, 10);
	return end == stop && *first >= 1 && *first <= *last && *last <= 4094 ? 0 : -EINVAL;
}

int vlans_parse(const char *text, struct vlan_set *set)
{
	unsigned long first, last;
	struct item item;

	*set = (struct vlan_set){ 0 };
	if (!strcmp(text, "all")) {
		memset(set, 0xff, sizeof *set);
		return 0;
	}
	if (!*text)
		return -EINVAL;
	while (item_next(&text, &item)) {
		if (range(&item, &first, &last))
			return -EINVAL;
		for (; first <= last; first++)
			set->word[first >> 6] |= 1ull << (first & 63);
	}
	return 0;
}
