/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_recovery.c - after a connection is lost
 *
 *     RUNNING      requests are sent as they come
 *     RECOVERING   one was lost: nothing is sent any more; those that are left finish what they
 *                  have; a thread for each that is down dials, with growing pauses
 *     REPLAYING    one is there and nothing is under way: the history is sent again, in its order.
 *                  Changes that do not overlap go together. A change that had no answer yet is
 *                  answered by this. Then the reads and flushes that were kept, then what waits
 *
 * Why all of the history: nobody can tell a server that was restarted, and lost what it had not
 * made stable, from a network that failed for a moment. What is sent again is what the server said
 * was written and did not say was stable, so a flush that succeeds later tells the truth.
 *
 * When it takes longer than reconnect-delay, what waits fails, and so does what comes, until there
 * is a connection again; the history stays, and dialing goes on. The time counts from the first
 * loss until a server has answered a request, so that one which only shakes hands does not stretch
 * it.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "backend/nbd_private.h"

#define MS           1000000ull
#define PAUSE_FIRST  (100 * MS)
#define PAUSE_LAST   (3000 * MS)
#define REPLAY_DEPTH 16u

/* --- dialing, on a thread of its own ---------------------------------------------------------- */

static void *dial(void *data)
{
	struct nbd_link *link = data;
	struct nbd_client *client = link->client;
	struct nbd_export export = { 0 };
	struct error err = { 0 };
	struct nbd_handle *handle = nbd_dial(client->uri, client->open_timeout, &export, &err);

	pthread_mutex_lock(&client->lock);
	link->export = export;
	link->error = err;
	link->arrived = handle;
	link->dialing = false;
	link->dialed = true;
	if (client->closed && handle) {
		nbd_close(handle);
		link->arrived = NULL;
	} else {
		nbd_owner_kick(client);
	}
	pthread_mutex_unlock(&client->lock);
	nbd_client_put(client);
	return NULL;
}

static void begin_dialing(struct nbd_link *link)
{
	struct nbd_client *client = link->client;
	pthread_attr_t attributes;
	sigset_t all, old;
	pthread_t thread;
	int ret;

	pthread_mutex_lock(&client->lock);
	link->dialing = true;
	link->dialed = false;
	pthread_mutex_unlock(&client->lock);
	link->dial_at = 0;
	nbd_client_get(client);
	sigfillset(&all);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	ret = pthread_create(&thread, &attributes, dial, link);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attributes);
	if (!ret)
		return;
	nbd_client_put(client);
	pthread_mutex_lock(&client->lock);
	link->dialing = false;
	pthread_mutex_unlock(&client->lock);
	link->dial_at = loop_now(client->loop) + PAUSE_LAST;
}

/* When to try next. */
static void schedule(struct nbd_link *link)
{
	struct nbd_client *client = link->client;

	link->dial_at = loop_now(client->loop) + client->pause + 1;
	client->pause = client->pause ? client->pause * 2 : PAUSE_FIRST;
	if (client->pause > PAUSE_LAST)
		client->pause = PAUSE_LAST;
}

static void grown(struct nbd_client *client, uint64_t size)
{
	char a[32], b[32];

	if (size == client->export.size)
		return;
	log_info("disk %s: nbd: the export has grown from %s to %s (penstock resize lets the guest "
		 "have it)",
		 client->disk, format_size(client->export.size, a, sizeof a),
		 format_size(size, b, sizeof b));
	client->export.size = size;
	atomic_store(&client->size, size);
}

/* What a dialing thread brought. */
static void accept_link(struct nbd_link *link, struct nbd_handle *handle,
			const struct nbd_export *export, struct error *err)
{
	struct nbd_client *client = link->client;
	const char *what = "";

	if (handle && nbd_dial_compare(&client->export, export, err)) {
		nbd_close(handle);
		handle = NULL;
		what = "refused to go on: ";
	}
	if (!handle) {
		if (strcmp(client->complaint, err->text))
			log_warn("disk %s: nbd: %s%s", client->disk, what, err->text);
		memcpy(client->complaint, err->text, sizeof client->complaint);
		schedule(link);
		return;
	}
	*client->complaint = '\0';
	grown(client, export->size);
	link->handle = handle;
	link->lost = false;
	link->under_way = 0;
	atomic_fetch_add(&client->connected, 1);
	nbd_link_attach(link);
}

void nbd_recovery_arrived(struct nbd_client *client)
{
	for (unsigned i = 0; i < client->links_count; i++) {
		struct nbd_link *link = &client->links[i];
		struct nbd_handle *handle;
		struct nbd_export export;
		struct error err;
		bool dialed;

		pthread_mutex_lock(&client->lock);
		dialed = link->dialed;
		link->dialed = false;
		handle = link->arrived;
		link->arrived = NULL;
		export = link->export;
		err = link->error;
		pthread_mutex_unlock(&client->lock);
		if (dialed)
			accept_link(link, handle, &export, &err);
	}
}

/* --- losses
 * --------------------------------------------------------------------------------------- */

static void begin_recovery(struct nbd_client *client)
{
	client->state = NBD_RECOVERING;
	client->cursor = NULL;
}

static void drop(struct nbd_link *link)
{
	struct nbd_client *client = link->client;

	if (!client->lost_since)
		client->lost_since = loop_now(client->loop);
	nbd_link_close(link);
	schedule(link);
	begin_recovery(client);
}

static void close_lost(struct nbd_client *client)
{
	for (unsigned i = 0; i < client->links_count; i++) {
		struct nbd_link *link = &client->links[i];

		if (!link->lost)
			continue;
		atomic_fetch_add(&client->losses, 1);
		log_warn(
			"disk %s: nbd: connection lost: %s; requests under way: %u, which are kept",
			client->disk, link->reason, link->under_way);
		drop(link);
	}
}

/* The oldest command without an answer is too old. */
static void check_silence(struct nbd_client *client)
{
	uint64_t now = loop_now(client->loop);

	if (!client->timeout)
		return;
	list_for_each (l, &client->sent) {
		struct nbd_command *command = container_of(l, struct nbd_command, link);

		if (command->since + client->timeout > now)
			return;
		nbd_link_lose(command->on, "no answer within the time-out");
	}
}

static void give_up(struct nbd_client *client)
{
	if (!client->failing) {
		log_error("disk %s: nbd: no connection for %llu s (reconnect-delay): requests fail "
			  "until there is one",
			  client->disk,
			  (unsigned long long)(client->reconnect_delay / (1000 * MS)));
		client->failing = true;
		atomic_store(&client->failed, true);
	}
	nbd_request_fail(client);
}

/* --- sending again
 * ---------------------------------------------------------------------------------- */

static bool overlaps(const struct nbd_client *client, const struct past *past)
{
	for (const struct list *l = client->sent.next; l != &client->sent; l = l->next) {
		const struct nbd_command *c = container_of(l, struct nbd_command, link);

		if (c->offset < past->offset + past->length && past->offset < c->offset + c->length)
			return true;
	}
	return false;
}

static unsigned under_way(const struct nbd_client *client)
{
	unsigned count = 0;

	for (unsigned i = 0; i < client->links_count; i++)
		count += client->links[i].under_way;
	return count;
}

/* A change that was acknowledged, and may be lost. */
static bool send_again(struct nbd_client *client, struct past *past)
{
	struct nbd_command *command = past->command;

	if (!command) {
		command = nbd_request_command(client);
		if (!command)
			return false;
		command->replay = true;
		command->op = past->op;
		command->flags = client->export.fua ? past->flags : past->flags & (uint8_t)~IO_FUA;
		command->offset = past->offset;
		command->length = past->length;
		command->data = past->data;
	}
	client->replayed++;
	nbd_link_send(client, command);
	return true;
}

static void replay(struct nbd_client *client)
{
	while (client->cursor && !client->unsettled && under_way(client) < REPLAY_DEPTH) {
		struct past *past = client->cursor;

		if (history_wanted(&client->history, past)) {
			if (overlaps(client, past) || !send_again(client, past))
				return;
		}
		client->cursor = history_next(&client->history, past);
	}
	if (client->cursor || under_way(client) || client->unsettled)
		return;
	history_walked(&client->history);
	client->state = NBD_RUNNING;
	client->failing = false;
	atomic_store(&client->failed, false);
	log_info("disk %s: nbd: connected again; changes sent again: %u", client->disk,
		 client->replayed);
	if (list_empty(&client->kept) && !client->waiting)
		client->lost_since = 0;
}

static void begin_replay(struct nbd_client *client)
{
	if (under_way(client) || !atomic_load(&client->connected))
		return;
	client->state = NBD_REPLAYING;
	client->replayed = 0;
	client->cursor = history_first(&client->history);
}

/* --- the server has grown
 * ------------------------------------------------------------------------------- */

/* A connection goes on with the size that it began with. */
static void renew(struct nbd_client *client)
{
	if (client->state == NBD_RUNNING)
		begin_recovery(client);
	if (client->state != NBD_RECOVERING || under_way(client))
		return;
	atomic_store(&client->renew, false);
	client->export.size = atomic_load(&client->size);
	for (unsigned i = 0; i < client->links_count; i++) {
		struct nbd_link *link = &client->links[i];

		if (link->handle && (uint64_t)nbd_get_size(link->handle) < client->export.size)
			drop(link);
	}
}

/* --- what there is to do
 * --------------------------------------------------------------------------------- */

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return !a || (b && b < a) ? b : a;
}

static void set_timer(struct nbd_client *client)
{
	uint64_t at = 0;

	if (client->timeout && !list_empty(&client->sent))
		at = container_of(client->sent.next, struct nbd_command, link)->since +
		     client->timeout;
	for (unsigned i = 0; i < client->links_count; i++)
		at = sooner(at, client->links[i].dial_at);
	if (client->lost_since && !client->failing && client->state != NBD_RUNNING)
		at = sooner(at, client->lost_since + client->reconnect_delay);
	/* One that fires too early only looks; setting it for each request would cost more. */
	if (!at || (client->timer_at && client->timer_at <= at))
		return;
	client->timer_at = at;
	loop_timer_set(client->loop, &client->timer, at);
}

void nbd_settle(struct nbd_client *client)
{
	if (client->settling || !client->loop)
		return;
	client->settling = true;
	do {
		uint64_t now = loop_now(client->loop);

		client->unsettled = false;
		close_lost(client);
		if (atomic_load_explicit(&client->renew, memory_order_relaxed))
			renew(client);
		for (unsigned i = 0; i < client->links_count; i++)
			if (client->links[i].dial_at && client->links[i].dial_at <= now)
				begin_dialing(&client->links[i]);
		if (client->state == NBD_RECOVERING)
			begin_replay(client);
		if (client->state == NBD_REPLAYING)
			replay(client);
		if (client->state != NBD_RUNNING &&
		    (client->failing ||
		     (client->lost_since && client->lost_since + client->reconnect_delay <= now)))
			give_up(client);
		if (client->state == NBD_RUNNING)
			nbd_request_pump(client);
	} while (client->unsettled);
	atomic_store_explicit(&client->unstable, history_used(&client->history),
			      memory_order_relaxed);
	set_timer(client);
	client->settling = false;
}

void nbd_recovery_timer(struct loop_timer *timer)
{
	struct nbd_client *client = container_of(timer, struct nbd_client, timer);

	client->timer_at = 0;
	check_silence(client);
	nbd_settle(client);
}

void nbd_recovery_watch(struct nbd_client *client)
{
	client->timer_at = 0;
	set_timer(client);
}
