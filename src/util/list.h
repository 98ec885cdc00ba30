/* SPDX-License-Identifier: BSD-3-Clause */
/* list.h - a circular doubly linked list, its links inside what it lists */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/** A link, or the head of a list. A head, and a link in no list, point to themselves. */
struct list {
	struct list *next, *prev;
};

/** The object that holds @link as its member @member. */
#define container_of(link, type, member) ((type *)((char *)(link)-offsetof(type, member)))

/** Walks the links of @head; the current one may be removed. */
#define list_for_each(link, head)                                                                  \
	for (struct list *link = (head)->next, *link##_next = link->next; link != (head);          \
	     link = link##_next, link##_next = link->next)

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list *head)
{
	return head->next == head;
}

/** Adds @link as the last of @head. */
static inline void list_add(struct list *head, struct list *link)
{
	link->prev = head->prev;
	link->next = head;
	head->prev->next = link;
	head->prev = link;
}

/** Takes @link out of its list, if it is in one. */
static inline void list_remove(struct list *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	list_init(link);
}
