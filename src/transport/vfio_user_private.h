/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vfio_user_private.h - what the files of the vfio-user transport share
 *
 *   vfio_user.c           the server: connections, and how they come and go
 *   vfio_user_message.c   messages on the socket: commands in, replies and commands of ours out
 *   vfio_user_commands.c  the table of commands, and what each does
 *   vfio_user_irq.c       interrupts: what the VMM says of them, and how they reach it
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "frontend/pci/pci.h"
#include "loop/loop.h"
#include "transport/descriptors.h"
#include "transport/vfio_user_protocol.h"
#include "util/error.h"
#include "util/log.h"

#define VFIO_USER_DATA    65536 /**< most bytes of data in one message, either way */
#define VFIO_USER_MESSAGE (VFIO_USER_DATA + 4096)
#define VFIO_USER_UNMAPS  32 /**< most DMA_UNMAPs that wait for transfers */
#define VFIO_USER_IRQS    5  /**< INTx, MSI, MSI-X, ERR, REQ: VFIO_PCI_..._IRQ_INDEX */

/** A command that came in, and the reply to it. */
struct vfio_call {
	struct vfio_user_header header;
	const char *payload; /**< not aligned */
	uint32_t size;       /**< bytes of it */
	struct descriptors *fds;
	char *reply;         /**< room for VFIO_USER_DATA + 32 bytes */
	uint32_t reply_size; /**< bytes of it in use */
	int reply_fd;        /**< goes with the reply, and stays its owner's; -1: none */
	bool later;          /**< there will be a reply, but not now */
};

/** One kind of interrupt, as the VMM has set it up. */
struct vfio_irq {
	int fd[PCI_VECTORS]; /**< eventfds to write to; -1: none */
	uint32_t masked;     /**< vectors, by the VMM; or INTx by itself, when it was sent */
	uint32_t pending;    /**< masked ones of MSI and MSI-X that should have been sent */
};

struct vfio_user {
	struct pci_device *dev;

	/* the control thread's */
	struct loop *control;
	int listen_fd;
	struct loop_watch *listen_watch;
	struct log_limit refusals;
	int fd; /**< the connection, also while the loop is leaving it; -1: none */
	bool closing;
	void (*closed)(void *data);
	void *closed_data;

	/* messages between it and the loop */
	struct loop_message attach, detach; /**< to the loop: serve @fd; stop */
	struct loop_message left, gone;     /**< from it: @fd is over; and in answer to @detach */
	struct {
		pthread_mutex_t lock;
		struct loop_message message;
		bool sent;
		bool broken;
		char reason[200];
	} report; /**< from it: the device broke, or is whole again */

	/* the loop's, from attach to left */
	struct loop *loop; /**< home of the function and of its connection */
	struct loop_watch *watch;
	struct loop_poller poller;
	struct loop_task end; /**< what follows a failure, outside of everything */
	bool serving, started, failed, detaching, stopping, stopped;
	bool refused; /**< its memory is not shared: the function stays broken */
	bool negotiated;
	struct log_limit limit;
	struct {
		char *bytes; /**< 2 * VFIO_USER_MESSAGE of them */
		uint32_t start, end;
		struct descriptors fds; /**< of the last message that begins there */
	} in;
	struct {
		char *reply;  /**< header and payload */
		bool waiting; /**< a reply is there, not wholly sent; no command is taken meanwhile
			       */
		int reply_fd; /**< goes with it; -1: none */
		struct iovec vec[2];         /**< what is being sent */
		unsigned count;              /**< of @vec; 0: nothing is */
		int fd;                      /**< goes with its first byte; -1: none */
		struct dma_message *command; /**< of ours, if that is it */
		struct {
			struct vfio_user_header header;
			struct vfio_user_dma_access access;
		} head;         /**< of @command */
		int blocked_fd; /**< a duplicate, watched for room in the socket; -1: not blocked */
		struct loop_watch *blocked;
	} out;
	struct {
		struct list queued, sent; /**< struct dma_message */
		unsigned sent_count;
		uint16_t next_id;
	} dma;
	struct {
		uint16_t id;
		struct vfio_user_dma_unmap payload;
	} unmap[VFIO_USER_UNMAPS]; /**< those that wait for transfers, the oldest first */
	unsigned unmap_count;
	bool unmap_due; /**< they may be answered */
	struct loop_timer unmap_timer;
	struct vfio_irq irq[VFIO_USER_IRQS];
	bool line;     /**< INTA# is high */
	int unmask_fd; /**< unmasks INTx when it is written to; -1: none */
	struct loop_watch *unmask_watch;
};

/* --- vfio_user.c -------------------------------------------------------------------- */

/**
 * Ends the connection soon, with this reason; NULL if the VMM has left. What is under way is left
 * to end by itself.
 */
void vfio_user_fail(struct vfio_user *vu, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* --- vfio_user_message.c ------------------------------------------------------------ */

/** Prepares the loop's part for a new connection. 0 or -ENOMEM. */
int vfio_user_messages_open(struct vfio_user *vu);

/** Takes nothing more and sends nothing more. */
void vfio_user_messages_close(struct vfio_user *vu);

/** The socket may have something. */
bool vfio_user_poll(struct vfio_user *vu);

/** Sends what there is, as far as the socket takes it. */
void vfio_user_output(struct vfio_user *vu);

/** For struct dma_space. */
void vfio_user_dma_send(struct dma_space *space, struct dma_message *message);

/** The connection is over: ends all commands of ours with -ENOTCONN. */
void vfio_user_dma_fail(struct vfio_user *vu);

/* --- vfio_user_commands.c ----------------------------------------------------------- */

/** Handles a command: 0, or -errno with @err for the reply. */
int vfio_user_command(struct vfio_user *vu, struct vfio_call *call, struct error *err);

/** A DMA_UNMAP that can be answered now is made a reply: true if there was one. */
bool vfio_user_unmap_reply(struct vfio_user *vu, struct vfio_call *call);

/** A new connection has no memory. */
void vfio_user_memory_init(struct vfio_user *vu);

/** Forgets all memory, and what waits for it. */
void vfio_user_memory_reset(struct vfio_user *vu);

/* --- vfio_user_irq.c ---------------------------------------------------------------- */

extern const struct pci_transport_ops vfio_user_pci_ops;

void vfio_user_irq_init(struct vfio_user *vu);

/** Closes all eventfds. */
void vfio_user_irq_reset(struct vfio_user *vu);

int vfio_user_get_irq_info(struct vfio_user *vu, struct vfio_call *call, struct error *err);
int vfio_user_set_irqs(struct vfio_user *vu, struct vfio_call *call, struct error *err);

/** For struct pci_transport_ops: tells the control side. In vfio_user.c. */
void vfio_user_broken(struct pci_device *dev);
