/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net_control.c - the control queue of the virtio network device (virtio 1.2, 5.1.6.5)
 *
 * A command makes other rules (net_rules.h). They are taken to every loop, by a message that comes
 * back, before the command is answered: what it asked for holds when the driver hears of it. One
 * command at a time; the driver's next ones wait in the ring.
 */
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdlib.h>

#include "frontend/virtio/net_private.h"
#include "packet/frame.h"
#include "util/list.h"

#define VECTORS 64u

struct net_control {
	struct virtqueue *vq;
	struct net *net;
	unsigned messages; /* under way: places that do not have the rules yet */
	bool busy;         /* a command is being carried out */
	struct loop_task task;
	struct chain chain; /* of it */
	struct iovec vec[VECTORS];
};

/* --- the end of a command ------------------------------------------------------------ */

static void respond(struct net_control *q, uint8_t status)
{
	io_data_copy_in(
		(struct io_data){ .vec = q->vec + q->chain.readable, .count = q->chain.writable },
		&status, sizeof status);
	virtqueue_push(q->vq, &q->chain, sizeof status);
	q->busy = false;
	loop_task_queue(q->vq->loop, &q->task);
}

static void show(struct loop_task *task)
{
	struct net_control *q = container_of(task, struct net_control, task);

	virtqueue_flush(q->vq);
	if (q->vq->on_demand && !q->busy && !q->vq->broken) {
		q->vq->on_demand = false;
		loop_poller_wake(q->vq->loop, &q->vq->poller);
	}
}

/* --- other rules --------------------------------------------------------------------- */

/* Back on the control queue's loop. */
static void applied(struct loop_message *message)
{
	struct net_place *place = container_of(message, struct net_place, message);
	struct net_control *q = place->control;

	if (!--q->messages)
		respond(q, VIRTIO_NET_OK);
}

/* On the place's loop. */
static void apply(struct loop_message *message)
{
	struct net_place *place = container_of(message, struct net_place, message);

	net_place_set_rules(place, &place->net->rules);
	message->run = applied;
	loop_send(place->control->vq->loop, message);
}

static void spread(struct net_control *q)
{
	struct net *net = q->net;

	atomic_store(&net->mac, mac_number(net->rules.mac));
	q->messages = net->place_count;
	for (unsigned i = 0; i < net->place_count; i++) {
		struct net_place *place = &net->places[i];

		place->control = q;
		place->message.run = apply;
		loop_send(place->lane->loop, &place->message);
	}
}

/* --- the start of a command ---------------------------------------------------------- */

static void carry_out(struct net_control *q)
{
	struct net *net = q->net;
	struct io_data in = { .vec = q->vec, .count = q->chain.readable };

	switch (net_rules_command(&net->rules, q->vq->setup.features, net->pairs, in,
				  q->chain.read_bytes)) {
	case NET_RULES_CHANGED:
		spread(q);
		break;
	case NET_ANNOUNCED:
		atomic_store(&net->announce, false);
		respond(q, VIRTIO_NET_OK);
		break;
	default:
		respond(q, VIRTIO_NET_ERR);
		break;
	}
}

bool net_control_poll(struct virtqueue *vq)
{
	struct net_control *q = vq->type;

	if (q->busy) {
		vq->on_demand = true;
		return false;
	}
	if (virtqueue_pop(vq, &q->chain, q->vec, VECTORS) <= 0)
		return false;
	if (!q->chain.write_bytes) {
		virtqueue_break(vq, "a command without a byte for its answer");
		return false;
	}
	q->busy = true;
	carry_out(q);
	return true;
}

/* --- made and gone ------------------------------------------------------------------- */

static unsigned outstanding(struct virtqueue *vq)
{
	const struct net_control *q = vq->type;

	return (q->busy ? 1 : 0) + q->task.queued;
}

int net_control_start(struct net *net, struct virtqueue *vq)
{
	struct net_control *q = calloc(1, sizeof *q);

	if (!q)
		return -ENOMEM;
	q->vq = vq;
	q->net = net;
	q->task.run = show;
	vq->type = q;
	vq->outstanding = outstanding;
	return 0;
}

void net_control_stop(struct virtqueue *vq)
{
	free(vq->type);
	vq->type = NULL;
}
