/* SPDX-License-Identifier: BSD-3-Clause */
/* user.h - what the parts of the uplink `user` share: its settings, passt's arguments, its process
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "loop/loop.h"

struct burst;
struct error;

/** What a user says. */
struct user_settings {
	char *forward; /**< NULL: none */
	char *guest;   /**< MAC address of the only NIC that is served; NULL: any */
	bool ipv4, ipv6;
	char *address;   /**< that the guest is given, "10.0.2.15/24,fd00::15"; NULL: the host's */
	char *gateway;   /**< "10.0.2.2,fd00::2"; NULL: the host's */
	char *dns;       /**< "none" or addresses; NULL: the host's */
	char *interface; /**< of the host; NULL: with the default route */
	bool merge;      /**< TCP segments become large packets */
	bool loopback;   /**< the gateway's address stands for the host */
	char *program;
	char *socket; /**< of a passt that runs already; NULL: it is started */
};

/* --- arguments: user_arguments.c -------------------------------------------------------- */

#define USER_WORDS 256u

/** Words of a command line, ended by NULL. */
struct user_arguments {
	char *word[USER_WORDS + 1];
	unsigned count;
};

/** The descriptor that passt finds its socket at. */
#define USER_CHILD_FD 3

/** What passt is called with. 0, or -EINVAL or -ENOMEM with @err, which begins with the option's
 * name. */
int user_arguments(const struct user_settings *settings, uint32_t mtu,
		   struct user_arguments *arguments, struct error *err);
void user_arguments_release(struct user_arguments *arguments);

/* --- the process: user_child.c; control thread ------------------------------------------ */

/** A passt of ours. */
struct user_child {
	const char *name;  /**< of the uplink, for the log */
	struct loop *loop; /**< control */
	pid_t pid;         /**< 0: none */
	int said_fd;       /**< its standard error, or -1 */
	struct loop_watch *watch;
	struct loop_timer again; /**< it said more than is listened to at once */
	char line[256];          /**< begin of a line of it */
	unsigned length;
	char last[256]; /**< line: why it ended, likely */
};

/** Nothing runs. */
void user_child_init(struct user_child *child, const char *name, struct loop *control);

/** Starts it. A connected socket, or -errno with @err. */
int user_child_start(struct user_child *child, const struct user_arguments *arguments,
		     struct error *err);

/** Waits until it has read what was written to @fd, at most 3 s. 0, or -errno with @err: it has
 * ended, and why; -EADDRINUSE: it found a port of the host in use. */
int user_child_await(struct user_child *child, int fd, struct error *err);

/** Its socket is closed: it ends, or is ended. -errno with @err if it did so by its own fault;
 * -EADDRINUSE as above. */
int user_child_gone(struct user_child *child, struct error *err);

/** Ends it, if it still runs. */
void user_child_end(struct user_child *child);

/* --- large packets: user_merge.c; home -------------------------------------------------- */

/** Adds the segment at @frame to the last packet of @burst (which has one, and room for an iovec),
 * if it goes on where that ends. @frame must stay as long as the burst. */
bool user_merge(struct burst *burst, uint8_t *frame, uint32_t length);

/** The burst is complete: what was merged gets its headers right. */
void user_merged(struct burst *burst);
