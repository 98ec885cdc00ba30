/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vfio_user.c - serves a PCI function to a VMM on a UNIX socket (transport.h)
 *
 * We are the server: the VMM connects, one at a time. The control thread accepts, then hands the
 * socket to the function's home loop, where all of the connection runs: its messages, the
 * function's registers, its requests on disks. So no access crosses threads, and none waits.
 *
 *     control    accept --attach-->                      <--left-- close, accept the next
 *     loop                          start ... fail, stop
 *
 * Nothing is taken apart where it fails, which may be deep inside a register's handler: a failure
 * is noted, and a task does the rest when all have returned: our commands end with an error, the
 * function stops, which takes as long as what it has begun, and then the connection is left.
 *
 * To close the server the control thread sends detach; the answer, gone, comes when the loop will
 * never touch the server again.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "memory/memory.h"
#include "transport/transport.h"
#include "transport/vfio_user_private.h"
#include "util/unix_socket.h"

#define CALLERS 16 /* who are accepted or turned away in one go */

static const char caveat[] =
	"its VMM cannot migrate, save or reconnect it (vfio-user): QEMU reports that migrate and savevm "
	"succeeded, but the device is dead afterwards";

/* --- what the control side shall know ----------------------------------------------- */

static void reported(struct loop_message *message)
{
	struct vfio_user *vu = container_of(message, struct vfio_user, report.message);
	struct device *device = &vu->dev->device;

	pthread_mutex_lock(&vu->report.lock);
	vu->report.sent = false;
	device->broken = vu->report.broken;
	memcpy(device->reason, vu->report.reason, sizeof device->reason);
	pthread_mutex_unlock(&vu->report.lock);
}

static void report(struct vfio_user *vu, bool broken, const char reason[200])
{
	bool sent;

	pthread_mutex_lock(&vu->report.lock);
	sent = vu->report.sent;
	vu->report.sent = true;
	vu->report.broken = broken;
	memcpy(vu->report.reason, reason, sizeof vu->report.reason);
	pthread_mutex_unlock(&vu->report.lock);
	if (!sent)
		loop_send(vu->control, &vu->report.message);
}

void vfio_user_broken(struct pci_device *dev)
{
	report(dev->transport, dev->broken, dev->reason);
}

/* --- the loop: the end of a connection ---------------------------------------------- */

void vfio_user_fail(struct vfio_user *vu, const char *format, ...)
{
	char text[sizeof vu->report.reason];
	va_list args;

	if (vu->failed)
		return;
	vu->failed = true;
	loop_task_queue(vu->loop, &vu->end);
	if (!format) {
		log_info("vm %s: %s: the VMM disconnected", vu->dev->device.vm,
			 vu->dev->device.label);
		return;
	}
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	log_warn("vm %s: %s: %s; the connection is closed", vu->dev->device.vm,
		 vu->dev->device.label, text);
}

static void stopped(struct pci_device *dev)
{
	struct vfio_user *vu = dev->transport;

	vu->stopped = true;
	loop_task_queue(vu->loop, &vu->end);
}

static void leave(struct vfio_user *vu)
{
	bool detaching = vu->detaching;

	vfio_user_irq_reset(vu);
	vfio_user_memory_reset(vu);
	vfio_user_messages_close(vu);
	vu->serving = false;
	loop_send(vu->control, &vu->left);
	if (detaching)
		loop_send(vu->control, &vu->gone);
}

/* Runs as often as there is something left to do. */
static void end(struct loop_task *task)
{
	struct vfio_user *vu = container_of(task, struct vfio_user, end);

	loop_poller_stop(vu->loop, &vu->poller);
	if (vu->watch)
		loop_watch_remove(vu->loop, vu->watch);
	vu->watch = NULL;
	vfio_user_dma_fail(vu);
	if (!vu->started) {
		leave(vu);
	} else if (!vu->stopping) {
		vu->stopping = true;
		pci_stop(vu->dev, stopped);
	} else if (vu->stopped && !task->queued) {
		leave(vu);
	}
}

/* --- the loop: a connection --------------------------------------------------------- */

static bool poll_socket(struct loop_poller *poller)
{
	return vfio_user_poll(container_of(poller, struct vfio_user, poller));
}

/* It is watched all the time. */
static bool arm_socket(struct loop_poller *poller)
{
	(void)poller;
	return false;
}

static void readable(void *data)
{
	struct vfio_user *vu = data;

	loop_poller_wake(vu->loop, &vu->poller);
}

static void attach(struct loop_message *message)
{
	struct vfio_user *vu = container_of(message, struct vfio_user, attach);
	int ret = vfio_user_messages_open(vu);

	vu->serving = true;
	vu->started = vu->failed = vu->stopping = vu->stopped = vu->refused = false;
	vu->negotiated = false;
	list_init(&vu->dma.queued);
	list_init(&vu->dma.sent);
	vu->dma.sent_count = 0;
	vu->dma.next_id = 0;
	loop_poller_init(&vu->poller, poll_socket, arm_socket);
	vfio_user_irq_init(vu);
	vfio_user_memory_init(vu);
	if (!ret)
		ret = pci_start(vu->dev, vu->loop);
	vu->started = !ret;
	if (!ret) {
		vu->watch = loop_watch_add(vu->loop, vu->fd, readable, vu);
		ret = vu->watch ? 0 : -ENOMEM;
	}
	if (ret)
		vfio_user_fail(vu, "cannot serve it: %s", strerror(-ret));
	else
		loop_poller_wake(vu->loop, &vu->poller);
}

static void detach(struct loop_message *message)
{
	struct vfio_user *vu = container_of(message, struct vfio_user, detach);

	if (!vu->serving) {
		loop_send(vu->control, &vu->gone);
		return;
	}
	vu->detaching = true;
	if (!vu->failed) {
		vu->failed = true;
		loop_task_queue(vu->loop, &vu->end);
	}
}

/* --- the control thread: connections ------------------------------------------------ */

/* Whether the VMM that we are connected to has gone, though its end was not handled yet. */
static bool peer_gone(const struct vfio_user *vu)
{
	struct pollfd p = { .fd = vu->fd, .events = POLLIN | POLLRDHUP };

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR));
}

static void incoming(void *data)
{
	struct vfio_user *vu = data;
	struct device *device = &vu->dev->device;
	unsigned callers = 0;
	int fd;

	/* Whoever comes while the last one is leaving waits in the backlog. */
	while (!vu->closing && (vu->fd < 0 || !peer_gone(vu))) {
		if (callers++ == CALLERS) {
			loop_watch_again(vu->control, vu->listen_watch);
			return;
		}
		fd = loop_watch_accept(vu->control, vu->listen_watch);
		if (fd < 0) {
			if (fd != -EAGAIN && log_limited(&vu->refusals))
				log_warn("vm %s: %s: cannot accept a VMM: %s", device->vm,
					 device->label, strerror(-fd));
			return;
		}
		if (vu->fd >= 0) {
			if (log_limited(&vu->refusals))
				log_warn("vm %s: %s: a second VMM was refused: one is connected",
					 device->vm, device->label);
			close(fd);
			continue;
		}
		vu->fd = fd;
		device->connected = true;
		device->running = device->queues;
		log_info("vm %s: %s: a VMM connected; %s", device->vm, device->label, caveat);
		loop_send(vu->loop, &vu->attach);
	}
}

static void left(struct loop_message *message)
{
	struct vfio_user *vu = container_of(message, struct vfio_user, left);
	struct device *device = &vu->dev->device;

	close(vu->fd);
	vu->fd = -1;
	device->connected = false;
	device->running = 0;
	device->broken = false;
	incoming(vu); /* somebody may be waiting already */
}

static void gone(struct loop_message *message)
{
	struct vfio_user *vu = container_of(message, struct vfio_user, gone);
	void (*closed)(void *data) = vu->closed;
	void *data = vu->closed_data;

	memory_release(vu->dev->dma.memory);
	vu->dev->dma.memory = NULL;
	pthread_mutex_destroy(&vu->report.lock);
	free(vu);
	closed(data);
}

/* --- made and gone ------------------------------------------------------------------ */

static void *server_listen(struct device *device, const struct transport_loops *loops,
			   struct error *err)
{
	struct pci_device *dev = container_of(device, struct pci_device, device);
	struct vfio_user *vu = calloc(1, sizeof *vu);

	if (!vu || !(dev->dma.memory = memory_empty())) {
		free(vu);
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	vu->dev = dev;
	vu->control = loops->control;
	vu->loop = loops->loops[loops->first % loops->count];
	vu->fd = -1;
	vu->attach.run = attach;
	vu->detach.run = detach;
	vu->left.run = left;
	vu->gone.run = gone;
	vu->report.message.run = reported;
	vu->end.run = end;
	pthread_mutex_init(&vu->report.lock, NULL);
	dev->transport = vu;
	dev->transport_ops = &vfio_user_pci_ops;
	device->caveat = caveat;
	vu->listen_fd = unix_socket_listen(device->socket, 0600, err);
	if (vu->listen_fd < 0)
		goto failed;
	vu->listen_watch = loop_watch_add(vu->control, vu->listen_fd, incoming, vu);
	if (vu->listen_watch)
		return vu;
	error_set(err, ENOMEM, "out of memory");
	close(vu->listen_fd);
	unlink(device->socket);
failed:
	memory_release(dev->dma.memory);
	dev->dma.memory = NULL;
	pthread_mutex_destroy(&vu->report.lock);
	free(vu);
	return NULL;
}

static void server_close(void *server, void (*done)(void *data), void *data)
{
	struct vfio_user *vu = server;

	vu->closed = done;
	vu->closed_data = data;
	vu->closing = true;
	loop_watch_remove(vu->control, vu->listen_watch);
	close(vu->listen_fd);
	unlink(vu->dev->device.socket);
	loop_send(vu->loop, &vu->detach);
}

const struct transport vfio_user_transport = {
	.name = "vfio-user",
	.caveat = caveat,
	.listen = server_listen,
	.close = server_close,
};
