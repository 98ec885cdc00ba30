/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stack_tree.h - a stack as JSON, and changes of one thing in it
 *
 * The stack of a disk, or the layers of a port: those have no legs, none ends the list, and there
 * may be none.
 *
 * The full form, which all functions here work on, is a list of {KIND: {option: text, ...}} where
 * the option of a layer's legs, if it has any, holds a list of legs, each a list of layers again.
 * Users may write less (see stack_tree_full()) and are shown less (stack_tree_short()).
 *
 * A place in it is a path: the number of a layer, counted from the one that requests meet first, or
 * its kind where that says which; and for what is in its legs the number of a leg, and a layer in
 * that: "1", "crypt", "mirror/0/file". A leg's path ends with its number: "mirror/0".
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct disk;
struct error;

/** The stack of @disk as its user wrote it; the program's own layers are left out. NULL: no memory.
 */
json_t *stack_tree_of(const struct disk *disk);

/** The sizes that layers have grown to become what their user wrote. 0 or -ENOMEM. */
int stack_tree_follow(struct disk *disk);

/**
 * A stack, or one layer of it, as a user may write it: a kind alone is a layer without options, one
 * layer is a leg, a list of legs alone stands for the options of a layer with legs. What makes no
 * sense stays as it is, for config_read_stack() to complain about. New; NULL: no memory.
 */
json_t *stack_tree_full(const json_t *stack);

/** The full form @stack in fewer words, which mean the same. New; NULL: no memory. */
json_t *stack_tree_short(const json_t *stack);

/** "0 crypt, 1 mirror (0: 0 file; 1: 0 file)": what is where, for messages. Returns @text. */
char *stack_tree_words(const json_t *stack, char *text, size_t size);

/*
 * Each changes @stack, or returns -EINVAL or -ENOENT with @err, which says what the stack is, and
 * leaves it.
 */

/** Puts @layer (full form) where @path is; what is there moves down, or becomes its first leg if it
 * ends a stack. Of a port, @path may be the number behind the last. */
int stack_tree_insert(json_t *stack, const char *path, const json_t *layer, struct error *err);

/** Takes a layer out. Of one that ends a stack and has legs, leg @keep stays (-1: the only one). */
int stack_tree_remove(json_t *stack, const char *path, int keep, struct error *err);

/** Takes the layer at @from out and puts it where @to is, a place as it is before. */
int stack_tree_reorder(json_t *stack, const char *from, const char *to, struct error *err);

/** Sets options of a layer, an object of texts; null takes one away. */
int stack_tree_set(json_t *stack, const char *path, const json_t *options, struct error *err);

/** Adds @leg, a list of layers, last to the layer at @path; takes one away. */
int stack_tree_add_leg(json_t *stack, const char *path, const json_t *leg, struct error *err);
int stack_tree_remove_leg(json_t *stack, const char *path, struct error *err);

/** The numbers of the path that leads to the layer @path: layer, leg, layer, ... */
#define STACK_TREE_DEPTH 32
int stack_tree_numbers(json_t *stack, const char *path, unsigned numbers[STACK_TREE_DEPTH],
		       unsigned *count, struct error *err);

/** Puts the list @layers in place of all from @path on, in the list that it is in. */
int stack_tree_replace(json_t *stack, const char *path, const json_t *layers, struct error *err);

/** Hash of @json, in which numbers are the texts that they are in YAML, and order of names is
 * nothing. */
uint64_t stack_tree_hash(const json_t *json);
