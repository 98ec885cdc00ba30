/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_owner.c - which loop has the connections
 *
 * One loop has all connections of a client, so that what may be lost has one order (nbd_history.c)
 * and nothing needs a lock. The owner is the loop of the first queue; when the last queue there
 * goes, another queue's loop becomes it, and without any the home loop of the disk in service, so
 * that a server that comes back is seen. While it is the owner's own queue that asks, as it is with
 * a disk that has one queue, a request is sent from the thread that took it off the guest's ring.
 * Those of other loops come through the inbox and go back by io_wake().
 *
 * A loop that runs only now and then (a session's) cannot be the owner: for such the client has a
 * loop of its own, the helper, made when it is first needed. It owns the connections while no other
 * can.
 *
 * Before and after service nobody has them. They stay open: some servers end with their last
 * client.
 *
 * There is one message, the kick, on its way to the owner at most once: look whether you are the
 * owner, and at the inbox, and at what was dialed. Whoever gets it and is not the owner (any more)
 * sends it on. It counts as a reference to the client, for it may come after the layer is closed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/nbd_private.h"

/* --- the life of a client ------------------------------------------------------------------------
 */

static void kicked(struct loop_message *message);

struct nbd_client *nbd_client_new(const char *disk, const char *uri, uint64_t memory,
				  struct error *err)
{
	struct nbd_client *client = calloc(1, sizeof *client);

	if (!client || history_open(&client->history, memory, err)) {
		if (!client)
			error_set(err, ENOMEM, "out of memory");
		free(client);
		return NULL;
	}
	client->disk = strdup(disk);
	client->uri = strdup(uri);
	atomic_store(&client->references, 1);
	pthread_mutex_init(&client->lock, NULL);
	list_init(&client->users);
	list_init(&client->spare);
	list_init(&client->sent);
	list_init(&client->kept);
	client->inbox_last = &client->inbox;
	client->waiting_last = &client->waiting;
	client->kick.run = kicked;
	loop_timer_init(&client->timer, nbd_recovery_timer);
	for (unsigned i = 0; i < NBD_COMMANDS; i++) {
		list_add(&client->spare, &client->commands[i].link);
		client->commands[i].client = client;
	}
	client->spare_count = NBD_COMMANDS;
	for (unsigned i = 0; i < NBD_CONNECTIONS; i++) {
		client->links[i].client = client;
		client->links[i].fds[0] = client->links[i].fds[1] = -1;
	}
	if (client->disk && client->uri)
		return client;
	error_set(err, ENOMEM, "out of memory");
	nbd_client_put(client);
	return NULL;
}

void nbd_client_get(struct nbd_client *client)
{
	atomic_fetch_add(&client->references, 1);
}

void nbd_client_put(struct nbd_client *client)
{
	if (atomic_fetch_sub(&client->references, 1) > 1)
		return;
	for (unsigned i = 0; i < NBD_BOUNCE_SIZES; i++) {
		struct nbd_bounce *bounce;

		while ((bounce = client->bounces[i])) {
			client->bounces[i] = bounce->next;
			free(bounce);
		}
	}
	history_close(&client->history);
	pthread_mutex_destroy(&client->lock);
	free(client->disk);
	free(client->uri);
	free(client);
}

/* --- the owner
 * ------------------------------------------------------------------------------------- */

void nbd_owner_kick(struct nbd_client *client)
{
	struct loop *owner = atomic_load(&client->owner);

	if (client->kicked || !owner)
		return;
	client->kicked = true;
	nbd_client_get(client);
	loop_send(owner, &client->kick);
}

static unsigned rank(const struct nbd_queue *user, const struct loop *owner)
{
	if (loop_is_passing(user->loop))
		return 1;
	if (user->idle)
		return 2;
	return user->loop == owner ? 4 : 3;
}

/* The loop that should have the connections; with the lock. */
static struct loop *choose(const struct nbd_client *client)
{
	const struct loop *owner = atomic_load(&client->owner);
	struct loop *best = NULL;
	unsigned highest = 0;

	for (const struct list *l = client->users.next; l != &client->users; l = l->next) {
		const struct nbd_queue *user = container_of(l, struct nbd_queue, link);
		unsigned r = rank(user, owner);

		if (r > highest) {
			highest = r;
			best = r == 1 ? client->helper : user->loop;
		}
	}
	return best;
}

/* On the loop that has become the owner. */
static void attach(struct nbd_client *client, struct loop *loop)
{
	client->loop = loop;
	for (unsigned i = 0; i < client->links_count; i++)
		if (client->links[i].handle)
			nbd_link_attach(&client->links[i]);
	nbd_recovery_watch(client);
}

/* On the loop that is the owner no more. */
static void detach(struct nbd_client *client)
{
	for (unsigned i = 0; i < client->links_count; i++)
		nbd_link_detach(&client->links[i]);
	loop_timer_cancel(&client->timer);
	client->timer_at = 0;
	client->loop = NULL;
}

/* Hands the connections over if another loop should have them. On the owner's thread; with the
 * lock. */
static void pass_on(struct nbd_client *client)
{
	struct loop *next = choose(client);

	if (next == atomic_load(&client->owner))
		return;
	if (client->loop)
		detach(client);
	atomic_store(&client->owner, next);
	nbd_owner_kick(client);
}

static void serve_inbox(struct nbd_client *client, struct io *io)
{
	while (io) {
		struct io *next = io->next;

		nbd_request(client, io);
		io = next;
	}
}

static void kicked(struct loop_message *message)
{
	struct nbd_client *client = container_of(message, struct nbd_client, kick);
	struct io *inbox = NULL;
	bool mine;

	pthread_mutex_lock(&client->lock);
	client->kicked = false;
	mine = atomic_load(&client->owner) == loop_self();
	if (mine)
		pass_on(client);
	mine = atomic_load(&client->owner) == loop_self();
	if (mine) {
		inbox = client->inbox;
		client->inbox = NULL;
		client->inbox_last = &client->inbox;
	} else {
		nbd_owner_kick(client);
	}
	pthread_mutex_unlock(&client->lock);
	if (mine) {
		if (!client->loop)
			attach(client, loop_self());
		nbd_recovery_arrived(client);
		serve_inbox(client, inbox);
		nbd_settle(client);
	}
	nbd_client_put(client);
}

/* --- users
 * ---------------------------------------------------------------------------------------------- */

static int need_helper(struct nbd_client *client)
{
	const struct loop_config config = { .name = "nbd", .cpu = -1 };

	if (client->helper)
		return 0;
	client->helper = loop_create(&config, NULL);
	if (client->helper && !loop_start(client->helper, NULL))
		return 0;
	loop_destroy(client->helper);
	client->helper = NULL;
	return -ENOMEM;
}

/* Users have come or gone; with the lock. */
static void reconsider(struct nbd_client *client)
{
	struct loop *owner = atomic_load(&client->owner), *next = choose(client);

	if (next == owner)
		return;
	if (owner && owner == loop_self()) {
		pass_on(client);
		return;
	}
	if (!owner)
		atomic_store(&client->owner, next);
	nbd_owner_kick(client);
}

int nbd_owner_join(struct nbd_client *client, struct nbd_queue *queue, struct loop *loop, bool idle)
{
	int ret = 0;

	queue->loop = loop;
	queue->idle = idle;
	pthread_mutex_lock(&client->lock);
	if (loop_is_passing(loop))
		ret = need_helper(client);
	if (!ret) {
		list_add(&client->users, &queue->link);
		reconsider(client);
	}
	pthread_mutex_unlock(&client->lock);
	return ret;
}

void nbd_owner_leave(struct nbd_client *client, struct nbd_queue *queue)
{
	pthread_mutex_lock(&client->lock);
	list_remove(&queue->link);
	reconsider(client);
	pthread_mutex_unlock(&client->lock);
}

void nbd_owner_submit(struct nbd_client *client, struct io *io)
{
	struct loop *loop = io->queue->loop;

	/* That this loop is the owner, and that it has attached, changes on this thread alone. */
	if (atomic_load_explicit(&client->owner, memory_order_acquire) == loop &&
	    client->loop == loop) {
		nbd_request(client, io);
		return;
	}
	pthread_mutex_lock(&client->lock);
	io->next = NULL;
	*client->inbox_last = io;
	client->inbox_last = &io->next;
	nbd_owner_kick(client);
	pthread_mutex_unlock(&client->lock);
}

void nbd_owner_renew(struct nbd_client *client)
{
	pthread_mutex_lock(&client->lock);
	atomic_store(&client->renew, true);
	nbd_owner_kick(client);
	pthread_mutex_unlock(&client->lock);
}

void nbd_owner_close(struct nbd_client *client)
{
	/* The helper's last messages run before it ends. */
	if (client->helper)
		loop_stop(client->helper);
	loop_destroy(client->helper);
	pthread_mutex_lock(&client->lock);
	client->helper = NULL;
	client->closed = true;
	for (unsigned i = 0; i < NBD_CONNECTIONS; i++) {
		struct nbd_link *link = &client->links[i];

		if (link->arrived)
			nbd_close(link->arrived);
		link->arrived = NULL;
		if (link->handle && nbd_aio_is_ready(link->handle))
			nbd_aio_disconnect(link->handle, 0); /* politely, without waiting */
		nbd_close(link->handle);
		link->handle = NULL;
	}
	pthread_mutex_unlock(&client->lock);
	nbd_client_put(client);
}
