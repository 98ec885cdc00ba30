/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * main.c - from the command line to what runs
 *
 * Exit status: 0 good, 1 something failed while running, 2 the command line or the
 * configuration is wrong. What `serve` and `run` start, and how it ends, is in
 * control/daemon.c.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/client.h"
#include "control/commands.h"
#include "control/config.h"
#include "control/create.h"
#include "control/daemon.h"
#include "control/help.h"
#include "control/inspect.h"
#include "control/mistakes.h"
#include "control/qemu.h"
#include "control/serve.h"
#include "control/state.h"
#include "control/yaml.h"
#include "util/error.h"
#include "util/file_thread.h"
#include "util/log.h"

/* Whether what is read will run: then the state file is its own, from before it is read. */
enum purpose { TO_LOOK, TO_RUN };

/* Puts what a running penstock changed in place of what @tree says. 0 or the exit status. */
static int read_state(struct node *tree, enum purpose purpose, struct config *config,
		      struct mistakes *mistakes)
{
	const struct node *path = tree->type == NODE_MAPPING ? node_find(tree, "state") : NULL;
	struct error err = { 0 };
	int lock;

	if (!path || path->type != NODE_SCALAR || !*path->text)
		return 0;
	lock = purpose == TO_RUN ? state_lock(path->text, &err) : -1;
	if (err.code) {
		log_error("%s", err.text);
		return 1;
	}
	config->kept = state_read(path->text, lock, tree, mistakes);
	return 0;
}

/* Reads a tree into @config, with the flags above it; prints what is wrong. 0 or the exit status.
 */
static int read_tree(const struct invocation *in, struct node *tree, enum purpose purpose,
		     struct config *config, struct mistakes *mistakes)
{
	int status = 0;

	config_init(config);
	config->file = mistakes->file;
	if (tree) {
		for (struct node *flag = in->settings->first; flag; flag = flag->next)
			node_set(tree, flag->key, flag->text);
		status = read_state(tree, purpose, config, mistakes);
		if (!status && config_read(config, tree, mistakes))
			config_check_files(tree, mistakes);
	}
	node_free(tree);
	for (unsigned i = 0; i < mistakes->count; i++)
		fprintf(stderr, "%s%s\n", mistakes->file ? "" : "penstock: ", mistakes->texts[i]);
	if (mistakes->no_memory)
		fprintf(stderr, "penstock: out of memory\n");
	mistakes_release(mistakes);
	return mistakes->fatal ? 2 : status;
}

/* The same of the file @path, or the embedded configuration. */
static int read_file(const struct invocation *in, const char *path, enum purpose purpose,
		     struct config *config)
{
	struct mistakes mistakes = { .file = path ? path : "(embedded configuration)" };

	return read_tree(in,
			 path ? yaml_read(path, &mistakes)
			      : yaml_parse(config_embedded, strlen(config_embedded), &mistakes),
			 purpose, config, &mistakes);
}

static int serve(const struct invocation *in)
{
	const struct serve_at at = { in->socket, in->nbd_socket };
	struct mistakes mistakes = { 0 };
	struct config config = { 0 };
	int status = read_tree(
		in, serve_tree(in->arguments[0], &at, in->arguments + 1, in->count - 1, &mistakes),
		TO_RUN, &config, &mistakes);

	if (!status)
		status = daemon_run(&config);
	config_release(&config);
	return status;
}

static int run(const struct invocation *in)
{
	struct config config = { 0 };
	int status = read_file(in, in->count ? in->arguments[0] : NULL, TO_RUN, &config);

	if (!status)
		status = daemon_run(&config);
	config_release(&config);
	return status;
}

static int check(const struct invocation *in)
{
	struct config config = { 0 };
	int status = read_file(in, in->arguments[0], TO_LOOK, &config);

	config_release(&config);
	return status;
}

static int qemu_arguments(const struct invocation *in)
{
	struct config config = { 0 };
	int status;

	if (!in->config)
		return client_qemu_args(in);
	status = read_file(in, in->config, TO_LOOK, &config);
	if (!status)
		status = qemu_print(&config, in);
	config_release(&config);
	return status;
}

static const struct {
	const char *name;
	int (*run)(const struct invocation *in);
} dispatch[] = {
	{ "serve", serve },
	{ "run", run },
	{ "check", check },
	{ "create", create_run },
	{ "inspect", inspect },
	{ "status", client_status },
	{ "resize", client_resize },
	{ "add-disk", client_add_disk },
	{ "remove-disk", client_remove_disk },
	{ "insert", client_insert },
	{ "eject", client_eject },
	{ "attach", client_attach },
	{ "detach", client_detach },
	{ "stack", client_stack },
	{ "insert-layer", client_insert_layer },
	{ "remove-layer", client_remove_layer },
	{ "move-layer", client_move_layer },
	{ "set-layer", client_set_layer },
	{ "set-port", client_set_port },
	{ "addresses", client_addresses },
	{ "forget", client_forget },
	{ "add-leg", client_add_leg },
	{ "remove-leg", client_remove_leg },
	{ "undo", client_undo },
	{ "move", client_move },
	{ "capture", client_capture },
	{ "config", client_config },
	{ "qemu-args", qemu_arguments },
	{ "help", command_help },
};

int main(int argc, char **argv)
{
	struct invocation in;
	int status;

	if (invocation_read(&in, argc, argv, &status) == 0)
		for (unsigned i = 0; i < sizeof dispatch / sizeof *dispatch; i++)
			if (!strcmp(dispatch[i].name, in.command->name))
				status = dispatch[i].run(&in);
	invocation_release(&in);
	if (file_thread_stuck()) {
		fflush(stdout);
		_exit(status);
	}
	return status;
}
