/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhost_user.c - serves a virtio device to a VMM on a UNIX socket (transport.h)
 *
 * We are the back-end and the server: the VMM connects, one at a time, and reconnects when
 * we were gone. All of this runs on the control loop; rings are served on the others.
 *
 * A message is read whole, then looked up in the table of requests: its size and its
 * descriptors are checked there, and which rings must be out of service before it is handled.
 * If some are running they are stopped first, and the connection reads no further until the
 * last has drained; then the handler runs, the rings that are ready start (again), and the
 * reply goes out. So every handler sees a device at rest, and no handler waits. After some messages
 * others have their turn: a VMM that never stops sending holds up nobody.
 *
 * A request that we must refuse gets a non-zero answer if the VMM asked for one; otherwise
 * the connection ends, since the two sides no longer agree. Either way the log says why. A guest
 * that breaks its rings stops its device (DEVICE_NEEDS_RESET) until a reset or a new
 * connection; the connection stays.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory/memory.h"
#include "transport/transport.h"
#include "transport/vhost_user_private.h"
#include "util/log.h"
#include "util/unix_socket.h"

#define PROTOCOL_FEATURES                                                                          \
	(1ull << VHOST_USER_PROTOCOL_F_MQ | 1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK |              \
	 1ull << VHOST_USER_PROTOCOL_F_BACKEND_REQ |                                               \
	 1ull << VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD |                                            \
	 1ull << VHOST_USER_PROTOCOL_F_RESET_DEVICE |                                              \
	 1ull << VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS | 1ull << VHOST_USER_PROTOCOL_F_STATUS)

#define MESSAGES 32 /* in one go */
#define CALLERS  16 /* likewise, who are accepted or turned away */

#define RING_FEATURES                                                                              \
	(1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_RING_F_EVENT_IDX |                   \
	 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_F_RING_PACKED |                               \
	 1ull << VHOST_USER_F_PROTOCOL_FEATURES)

/* --- negotiation -------------------------------------------------------------------- */

static int reply_u64(struct message *m, uint64_t value)
{
	m->payload.u64 = value;
	m->reply_size = sizeof value;
	return 0;
}

static uint64_t offered(const struct vhost_user *vu)
{
	return vu->dev->ops->features(vu->dev) | RING_FEATURES;
}

static int get_features(struct vhost_user *vu, struct message *m, struct error *err)
{
	(void)err;
	return reply_u64(m, offered(vu));
}

static int set_features(struct vhost_user *vu, struct message *m, struct error *err)
{
	uint64_t unknown = m->payload.u64 & ~offered(vu);

	if (unknown)
		return error_set(err, EINVAL, "features %#llx were not offered",
				 (unsigned long long)unknown);
	vu->features = m->payload.u64;
	vu->dev->features = vu->features;
	vu->dev->ops->negotiated(vu->dev, vu->features);
	vu->dev->device.broken = false;
	return 0;
}

/* QEMU warns of a CONFIG that it has no use for. */
static uint64_t offered_protocol(const struct vhost_user *vu)
{
	const struct virtio_device_ops *ops = vu->dev->ops;

	return PROTOCOL_FEATURES | (ops->config_size ? 1ull << VHOST_USER_PROTOCOL_F_CONFIG : 0) |
	       (ops->set_mtu ? 1ull << VHOST_USER_PROTOCOL_F_NET_MTU : 0) |
	       (ops->send_rarp ? 1ull << VHOST_USER_PROTOCOL_F_RARP : 0);
}

static int get_protocol_features(struct vhost_user *vu, struct message *m, struct error *err)
{
	(void)err;
	return reply_u64(m, offered_protocol(vu));
}

static int set_protocol_features(struct vhost_user *vu, struct message *m, struct error *err)
{
	uint64_t unknown = m->payload.u64 & ~offered_protocol(vu);

	if (unknown)
		return error_set(err, EINVAL, "protocol features %#llx were not offered",
				 (unsigned long long)unknown);
	vu->protocol_features = m->payload.u64;
	return 0;
}

static int get_queue_num(struct vhost_user *vu, struct message *m, struct error *err)
{
	(void)err;
	return reply_u64(m, vu->dev->queue_number ? vu->dev->queue_number : vu->dev->device.queues);
}

static int set_owner(struct vhost_user *vu, struct message *m, struct error *err)
{
	(void)vu;
	(void)m;
	(void)err;
	return 0; /* the connection says as much */
}

static int reset_owner(struct vhost_user *vu, struct message *m, struct error *err)
{
	(void)m;
	(void)err;
	for (unsigned i = 0; i < vu->dev->device.queues; i++)
		vu->ring[i].enabled = false;
	return 0;
}

static int set_backend_req_fd(struct vhost_user *vu, struct message *m, struct error *err)
{
	int fd = descriptors_take(&m->fds, 0);
	struct stat st;

	if (fd < 0)
		return error_set(err, EINVAL, "no descriptor came with it");
	if (fstat(fd, &st) || !S_ISSOCK(st.st_mode)) {
		close(fd);
		return error_set(err, EINVAL, "its descriptor is not a socket");
	}
	if (vu->backend_fd >= 0)
		close(vu->backend_fd);
	vu->backend_fd = fd;
	return 0;
}

/* --- status and reset --------------------------------------------------------------- */

static void reset(struct vhost_user *vu)
{
	for (unsigned i = 0; i < vu->dev->device.queues; i++) {
		/* QEMU before 8.1 resets the status before it asks how far the rings have come, to
		 * go on from there; and before each start a VMM says where to begin. */
		uint32_t base = vu->ring[i].base;

		vu_ring_forget(&vu->ring[i]);
		vu->ring[i].base = base;
	}
	vu->features = 0;
	vu->status = 0;
	vu->dev->ops->reset(vu->dev);
	vu->dev->device.broken = false;
	inflight_forget(vu, -1);
	inflight_save_state(vu);
}

static int reset_device(struct vhost_user *vu, struct message *m, struct error *err)
{
	(void)m;
	(void)err;
	reset(vu);
	return 0;
}

static int set_status(struct vhost_user *vu, struct message *m, struct error *err)
{
	if (m->payload.u64 > 0xff)
		return error_set(err, EINVAL, "status %#llx", (unsigned long long)m->payload.u64);
	if (!m->payload.u64)
		reset(vu);
	vu->status = (uint8_t)m->payload.u64;
	return 0;
}

static int get_status(struct vhost_user *vu, struct message *m, struct error *err)
{
	(void)err;
	return reply_u64(m,
			 vu->status | (vu->dev->device.broken ? VIRTIO_CONFIG_S_NEEDS_RESET : 0u));
}

/* --- config space ------------------------------------------------------------------- */

static int get_config(struct vhost_user *vu, struct message *m, struct error *err)
{
	uint32_t offset = m->payload.config.offset, size = m->payload.config.size;
	uint8_t space[VHOST_USER_CONFIG_MAX] = { 0 };

	m->reply_size = 0; /* an error, in this protocol */
	if (!vu->dev->ops->config_size)
		return error_set(err, ENOTSUP, "the device has no config space here");
	if (offset > sizeof space || size > sizeof space - offset)
		return error_set(err, EINVAL, "bytes %u to %u of config space", offset,
				 offset + size);
	vu->dev->ops->config_read(vu->dev, space);
	memcpy(m->payload.config.data, space + offset, size);
	m->reply_size = offsetof(union vhost_user_payload, config.data) + size;
	return 0;
}

static int set_config(struct vhost_user *vu, struct message *m, struct error *err)
{
	uint32_t offset = m->payload.config.offset, size = m->payload.config.size;

	if (!vu->dev->ops->config_size)
		return error_set(err, ENOTSUP, "the device has no config space here");
	if (size > VHOST_USER_CONFIG_MAX ||
	    m->header.size < offsetof(union vhost_user_payload, config.data) + size)
		return error_set(err, EINVAL, "%u bytes of config space in a message of %u", size,
				 m->header.size);
	if (vu->dev->ops->config_write(vu->dev, offset, m->payload.config.data, size))
		return error_set(err, EINVAL, "bytes %u to %u of config space are read-only",
				 offset, offset + size);
	inflight_save_state(vu);
	return 0;
}

static void config_changed(struct virtio_device *dev)
{
	struct vhost_user *vu = dev->transport;
	int ret;

	if (!dev->ops->config_size || vu->fd < 0 || vu->backend_fd < 0 ||
	    !vhost_user_has(vu, VHOST_USER_PROTOCOL_F_BACKEND_REQ))
		return;
	ret = message_request(vu->backend_fd, VHOST_USER_BACKEND_CONFIG_CHANGE_MSG);
	if (ret)
		log_warn("vm %s: %s: cannot tell the VMM that its configuration changed: %s",
			 dev->device.vm, dev->device.label, strerror(-ret));
}

/* --- network devices ---------------------------------------------------------------- */

static int send_rarp(struct vhost_user *vu, struct message *m, struct error *err)
{
	uint8_t mac[6];
	int ret;

	if (!vu->dev->ops->send_rarp)
		return error_set(err, ENOTSUP, "the device is no NIC");
	memcpy(mac, &m->payload.u64, sizeof mac);
	ret = vu->dev->ops->send_rarp(vu->dev, mac);
	return ret ? error_set(err, -ret, "%s", strerror(-ret)) : 0;
}

static int net_set_mtu(struct vhost_user *vu, struct message *m, struct error *err)
{
	if (!vu->dev->ops->set_mtu)
		return error_set(err, ENOTSUP, "the device is no NIC");
	return vu->dev->ops->set_mtu(vu->dev, m->payload.u64, err);
}

/* --- the table of requests ---------------------------------------------------------- */

enum quiesce {
	QUIESCE_NONE,
	QUIESCE_RING, /* the one that the payload begins with the index of */
	QUIESCE_ALL,
};

struct request {
	const char *name;
	uint16_t min_size, max_size; /* of the payload, bytes */
	uint8_t max_fds;
	enum quiesce quiesce;
	bool replies; /* always, not only when asked to */
	int (*handle)(struct vhost_user *vu, struct message *m, struct error *err);
};

#define U64    sizeof(uint64_t), sizeof(uint64_t)
#define STATE  8, 8
#define ADDR   40, 40
#define TABLE  8, sizeof(((union vhost_user_payload *)0)->table)
#define SLOT   40, 40
#define CONFIG 12, sizeof(((union vhost_user_payload *)0)->config)
#define FLIGHT 20, 24

static const struct request requests[VHOST_USER_REQUESTS] = {
	[VHOST_USER_GET_FEATURES] = { "GET_FEATURES", 0, 0, 0, QUIESCE_NONE, true, get_features },
	[VHOST_USER_SET_FEATURES] = { "SET_FEATURES", U64, 0, QUIESCE_ALL, false, set_features },
	[VHOST_USER_SET_OWNER] = { "SET_OWNER", 0, 0, 0, QUIESCE_NONE, false, set_owner },
	[VHOST_USER_RESET_OWNER] = { "RESET_OWNER", 0, 0, 0, QUIESCE_ALL, false, reset_owner },
	[VHOST_USER_SET_MEM_TABLE] = { "SET_MEM_TABLE", TABLE, VHOST_USER_REGIONS, QUIESCE_ALL,
				       false, memory_set_table },
	[VHOST_USER_SET_VRING_NUM] = { "SET_VRING_NUM", STATE, 0, QUIESCE_RING, false,
				       vring_set_num },
	[VHOST_USER_SET_VRING_ADDR] = { "SET_VRING_ADDR", ADDR, 0, QUIESCE_RING, false,
					vring_set_addr },
	[VHOST_USER_SET_VRING_BASE] = { "SET_VRING_BASE", STATE, 0, QUIESCE_RING, false,
					vring_set_base },
	[VHOST_USER_GET_VRING_BASE] = { "GET_VRING_BASE", STATE, 0, QUIESCE_RING, true,
					vring_get_base },
	[VHOST_USER_SET_VRING_KICK] = { "SET_VRING_KICK", U64, 1, QUIESCE_RING, false,
					vring_set_kick },
	[VHOST_USER_SET_VRING_CALL] = { "SET_VRING_CALL", U64, 1, QUIESCE_NONE, false,
					vring_set_call },
	[VHOST_USER_SET_VRING_ERR] = { "SET_VRING_ERR", U64, 1, QUIESCE_RING, false,
				       vring_set_err },
	[VHOST_USER_GET_PROTOCOL_FEATURES] = { "GET_PROTOCOL_FEATURES", 0, 0, 0, QUIESCE_NONE, true,
					       get_protocol_features },
	[VHOST_USER_SET_PROTOCOL_FEATURES] = { "SET_PROTOCOL_FEATURES", U64, 0, QUIESCE_NONE, false,
					       set_protocol_features },
	[VHOST_USER_GET_QUEUE_NUM] = { "GET_QUEUE_NUM", 0, 0, 0, QUIESCE_NONE, true,
				       get_queue_num },
	[VHOST_USER_SET_VRING_ENABLE] = { "SET_VRING_ENABLE", STATE, 0, QUIESCE_RING, false,
					  vring_set_enable },
	[VHOST_USER_SEND_RARP] = { "SEND_RARP", U64, 0, QUIESCE_NONE, false, send_rarp },
	[VHOST_USER_NET_SET_MTU] = { "NET_SET_MTU", U64, 0, QUIESCE_NONE, false, net_set_mtu },
	[VHOST_USER_SET_BACKEND_REQ_FD] = { "SET_BACKEND_REQ_FD", 0, 8, 1, QUIESCE_NONE, false,
					    set_backend_req_fd },
	[VHOST_USER_GET_CONFIG] = { "GET_CONFIG", CONFIG, 0, QUIESCE_NONE, true, get_config },
	[VHOST_USER_SET_CONFIG] = { "SET_CONFIG", CONFIG, 0, QUIESCE_NONE, false, set_config },
	[VHOST_USER_GET_INFLIGHT_FD] = { "GET_INFLIGHT_FD", FLIGHT, 0, QUIESCE_ALL, true,
					 inflight_get },
	[VHOST_USER_SET_INFLIGHT_FD] = { "SET_INFLIGHT_FD", FLIGHT, 1, QUIESCE_ALL, false,
					 inflight_set },
	[VHOST_USER_RESET_DEVICE] = { "RESET_DEVICE", 0, 0, 0, QUIESCE_ALL, false, reset_device },
	[VHOST_USER_GET_MAX_MEM_SLOTS] = { "GET_MAX_MEM_SLOTS", 0, 0, 0, QUIESCE_NONE, true,
					   memory_get_max_slots },
	[VHOST_USER_ADD_MEM_REG] = { "ADD_MEM_REG", SLOT, 1, QUIESCE_ALL, false, memory_add_slot },
	/* Some front-ends send a descriptor with it. */
	[VHOST_USER_REM_MEM_REG] = { "REM_MEM_REG", SLOT, 1, QUIESCE_ALL, false,
				     memory_remove_slot },
	[VHOST_USER_SET_STATUS] = { "SET_STATUS", U64, 0, QUIESCE_NONE, false, set_status },
	[VHOST_USER_GET_STATUS] = { "GET_STATUS", 0, 0, 0, QUIESCE_NONE, true, get_status },
};

static const struct request *request_of(const struct message *m)
{
	uint32_t id = m->header.request;

	return id < VHOST_USER_REQUESTS && requests[id].handle ? &requests[id] : NULL;
}

/* --- a message ---------------------------------------------------------------------- */

static void disconnect(struct vhost_user *vu);

static void end_for(struct vhost_user *vu, const char *what, const struct error *err)
{
	log_warn("vm %s: %s: %s%s%s; the connection is closed", vu->dev->device.vm,
		 vu->dev->device.label, what ? what : "", what ? ": " : "", err->text);
	disconnect(vu);
}

/* The shape of the message, before anything waits for it. */
static int check(const struct message *m, const struct request *r, struct error *err)
{
	if (!r)
		return error_set(err, ENOTSUP, "unknown request %u", m->header.request);
	if (m->header.size < r->min_size || m->header.size > r->max_size)
		return error_set(err, EPROTO, "%s: a payload of %u bytes; expected %u to %u",
				 r->name, m->header.size, r->min_size, r->max_size);
	if (m->fds.count > r->max_fds)
		return error_set(err, EPROTO, "%s: %u descriptors; expected %u at most", r->name,
				 m->fds.count, r->max_fds);
	return 0;
}

/* Which rings have to be out of service. SET_STATUS is special: only zero, a reset, needs it. */
static void quiesce(struct vhost_user *vu, const struct message *m, const struct request *r)
{
	if (r->quiesce == QUIESCE_ALL || (r->handle == set_status && !m->payload.u64))
		vrings_stop(vu, -1);
	else if (r->quiesce == QUIESCE_RING &&
		 (m->payload.u64 & VHOST_USER_VRING_INDEX) < vu->dev->device.queues)
		vrings_stop(vu, (int)(m->payload.u64 & VHOST_USER_VRING_INDEX));
}

/* All that had to stop has stopped. */
static void handle(struct vhost_user *vu)
{
	struct message *m = &vu->message;
	const struct request *r = request_of(m);
	bool wants_reply = (m->header.flags & VHOST_USER_NEED_REPLY) &&
			   vhost_user_has(vu, VHOST_USER_PROTOCOL_F_REPLY_ACK);
	struct error err = { 0 };
	int ret = r->handle(vu, m, &err);

	if (ret) {
		error_prefix(&err, "%s", r->name);
		/* GET_CONFIG alone has a reply that says no. */
		if (!(wants_reply && !r->replies) && r->handle != get_config) {
			end_for(vu, NULL, &err);
			return;
		}
		log_warn("vm %s: %s: refused: %s", vu->dev->device.vm, vu->dev->device.label,
			 err.text);
	}
	if (!r->replies && wants_reply)
		reply_u64(m, ret ? 1 : 0);
	vrings_start(vu);
	if (r->replies || wants_reply) {
		ret = message_reply(vu->fd, m);
		if (ret) {
			error_set(&err, -ret, "cannot reply: %s", strerror(-ret));
			end_for(vu, r->name, &err);
			return;
		}
	}
	message_clear(m);
}

/* Reads and handles messages until there are none, one has to wait for rings, or it is the turn of
 * others. */
static void proceed(struct vhost_user *vu)
{
	unsigned handled = 0;

	while (vu->fd >= 0 && !vu->waiting && !vu->leaving) {
		struct error err = { 0 };
		int ret;

		if (handled++ == MESSAGES) {
			loop_watch_again(vu->control, vu->watch);
			return;
		}
		ret = message_receive(vu->fd, &vu->message, &err);
		if (ret == 0)
			return;
		if (ret == -ENOTCONN) {
			log_info("vm %s: %s: the VMM disconnected", vu->dev->device.vm,
				 vu->dev->device.label);
			disconnect(vu);
			return;
		}
		if (ret < 0 || check(&vu->message, request_of(&vu->message), &err)) {
			end_for(vu, NULL, &err);
			return;
		}
		quiesce(vu, &vu->message, request_of(&vu->message));
		if (vu->stopping)
			vu->waiting = true;
		else
			handle(vu);
	}
}

static void readable(void *data)
{
	proceed(data);
}

/* --- rings that stop, and break ----------------------------------------------------- */

static void forget_connection(struct vhost_user *vu);

void vhost_user_ring_stopped(struct vhost_user *vu)
{
	if (vu->stopping)
		return;
	if (vu->leaving) {
		forget_connection(vu);
	} else if (vu->waiting) {
		vu->waiting = false;
		handle(vu);
		proceed(vu);
	}
}

void vhost_user_break(struct vhost_user *vu, const char *reason)
{
	struct device *device = &vu->dev->device;

	if (device->broken)
		return;
	device->broken = true;
	strncpy(device->reason, reason, sizeof device->reason - 1);
	vrings_stop(vu, -1);
	config_changed(vu->dev); /* 2.1.2: set NEEDS_RESET, and notify of a configuration change */
}

/* --- connections -------------------------------------------------------------------- */

static void incoming(void *data);

static void forget_connection(struct vhost_user *vu)
{
	void (*closed)(void *data) = vu->closed;

	vu->leaving = vu->waiting = false;
	for (unsigned i = 0; i < vu->dev->device.queues; i++)
		vu_ring_reset(&vu->ring[i]);
	inflight_release(vu);
	memory_release(vu->memory);
	vu->memory = memory_empty();
	if (vu->backend_fd >= 0)
		close(vu->backend_fd);
	vu->backend_fd = -1;
	vu->features = vu->protocol_features = 0;
	vu->status = 0;
	vu->dev->ops->reset(vu->dev);
	vu->dev->device.broken = false;
	message_clear(&vu->message);
	if (vu->fd >= 0)
		close(vu->fd);
	vu->fd = -1;
	vu->dev->device.connected = false;
	vu->dev->device.ring = "";
	if (!closed) {
		incoming(vu); /* somebody may be waiting already */
		return;
	}
	memory_release(vu->memory);
	closed(vu->closed_data);
	free(vu);
}

/* Takes nothing more from the VMM or its rings; the rest follows when those have drained. */
static void disconnect(struct vhost_user *vu)
{
	if (vu->leaving)
		return;
	vu->leaving = true;
	if (vu->watch)
		loop_watch_remove(vu->control, vu->watch);
	vu->watch = NULL;
	vrings_stop(vu, -1);
	if (!vu->stopping)
		forget_connection(vu);
}

/* Whether the VMM that we are connected to has gone, though its end was not handled yet. */
static bool peer_gone(const struct vhost_user *vu)
{
	struct pollfd p = { .fd = vu->fd, .events = POLLIN | POLLRDHUP };

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR));
}

static void incoming(void *data)
{
	struct vhost_user *vu = data;
	unsigned callers = 0;
	int fd;

	/* Whoever comes while the last one is leaving waits in the backlog. */
	while (!vu->leaving && !vu->closed) {
		if (vu->fd >= 0 && peer_gone(vu))
			return;
		if (callers++ == CALLERS) {
			loop_watch_again(vu->control, vu->listen_watch);
			return;
		}
		fd = loop_watch_accept(vu->control, vu->listen_watch);
		if (fd < 0) {
			if (fd != -EAGAIN && log_limited(&vu->refusals))
				log_warn("vm %s: %s: cannot accept a VMM: %s", vu->dev->device.vm,
					 vu->dev->device.label, strerror(-fd));
			return;
		}
		if (vu->fd >= 0) {
			if (log_limited(&vu->refusals))
				log_warn("vm %s: %s: a second VMM was refused: one is connected",
					 vu->dev->device.vm, vu->dev->device.label);
			close(fd);
			continue;
		}
		vu->fd = fd;
		vu->dev->device.connected = true;
		vu->watch = loop_watch_add(vu->control, fd, readable, vu);
		log_info("vm %s: %s: a VMM connected", vu->dev->device.vm, vu->dev->device.label);
		if (!vu->watch)
			disconnect(vu);
	}
}

/* --- made and gone ------------------------------------------------------------------ */

static void *server_listen(struct device *device, const struct transport_loops *loops,
			   struct error *err)
{
	struct virtio_device *dev = container_of(device, struct virtio_device, device);
	struct vhost_user *vu = calloc(1, sizeof *vu);

	if (!vu || !(vu->memory = memory_empty())) {
		error_set(err, ENOMEM, "out of memory");
		goto failed;
	}
	vu->dev = dev;
	vu->control = loops->control;
	vu->loops = loops->loops;
	vu->loop_count = loops->count;
	vu->first_loop = loops->first;
	vu->fd = vu->backend_fd = -1;
	vu->message.reply_fd = -1;
	for (unsigned i = 0; i < device->queues; i++)
		vu_ring_init(&vu->ring[i]);
	vu->listen_fd = unix_socket_listen(device->socket, 0600, err);
	if (vu->listen_fd < 0)
		goto failed;
	vu->listen_watch = loop_watch_add(vu->control, vu->listen_fd, incoming, vu);
	if (!vu->listen_watch) {
		error_set(err, ENOMEM, "out of memory");
		close(vu->listen_fd);
		unlink(device->socket);
		goto failed;
	}
	dev->transport = vu;
	dev->config_changed = config_changed;
	return vu;
failed:
	if (vu)
		memory_release(vu->memory);
	free(vu);
	return NULL;
}

static void server_close(void *server, void (*done)(void *data), void *data)
{
	struct vhost_user *vu = server;

	vu->closed = done;
	vu->closed_data = data;
	loop_watch_remove(vu->control, vu->listen_watch);
	close(vu->listen_fd);
	unlink(vu->dev->device.socket);
	if (vu->fd < 0)
		forget_connection(vu);
	else if (!vu->leaving)
		disconnect(vu);
}

const struct transport vhost_user_transport = {
	.name = "vhost-user",
	.listen = server_listen,
	.close = server_close,
};
