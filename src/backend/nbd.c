/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd.c - an export of an NBD server: the layer; see nbd_private.h for its parts */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "backend/nbd_private.h"

#define SECOND        1000000000ull
#define EXTRA_WAIT    (2 * SECOND) /* for a connection beyond the first */
#define PROBE_WAIT    (2 * SECOND) /* for the size, when the disk is to grow */
#define FOREVER       (10ull * 365 * 86400 * SECOND)
#define PHYSICAL_MOST 4096u

struct nbd {
	struct layer layer;
	char *uri;
	uint64_t connections;
	uint64_t reconnect_delay, timeout, open_timeout; /* ns */
	uint64_t replay_memory;                          /* bytes */

	struct nbd_client *client;
	struct nbd_queue service; /* while the disk is in service */
	struct layer_stop *stop;
	struct loop_message leave;
};

/* --- opening ------------------------------------------------------------------------------- */

/* More connections, as far as the server lets us have them. */
static void connect_more(struct nbd *n, struct nbd_client *client)
{
	uint64_t patience = n->open_timeout < EXTRA_WAIT ? n->open_timeout : EXTRA_WAIT;

	if (n->connections > 1 && !client->export.multi_conn) {
		log_info("disk %s: nbd: one connection: the server does not say that more are safe",
			 n->layer.disk);
		return;
	}
	while (client->links_count < n->connections) {
		struct nbd_link *link = &client->links[client->links_count];
		struct nbd_export export;
		struct error err = { 0 };

		link->handle = nbd_dial(n->uri, patience, &export, &err);
		if (link->handle && nbd_dial_compare(&client->export, &export, &err)) {
			nbd_close(link->handle);
			link->handle = NULL;
		}
		if (!link->handle) {
			log_warn("disk %s: nbd: %u of %llu connections: %s", n->layer.disk,
				 client->links_count, (unsigned long long)n->connections, err.text);
			return;
		}
		client->links_count++;
		atomic_fetch_add(&client->connected, 1);
	}
}

static int check_export(struct nbd *n, const struct nbd_export *e, struct error *err)
{
	if (e->read_only && !n->layer.read_only)
		return error_set(
			err, EROFS,
			"%s: the server exports it read-only; set read-only: true of the disk",
			n->uri);
	if (e->size < e->minimum || e->size < 512)
		return error_set(err, EINVAL, "%s: the export is empty", n->uri);
	return 0;
}

static void set_times(const struct nbd *n, struct nbd_client *client)
{
	atomic_store(&client->reconnect_delay, n->reconnect_delay);
	atomic_store(&client->timeout, n->timeout);
	atomic_store(&client->open_timeout, n->open_timeout);
}

static int nbd_open(struct layer *layer, struct error *err)
{
	struct nbd *n = (struct nbd *)layer;
	struct nbd_client *client = nbd_client_new(layer->disk, n->uri, n->replay_memory, err);
	char size[32];
	int ret;

	if (!client)
		return -err->code;
	set_times(n, client);
	client->links[0].handle = nbd_dial(n->uri, n->open_timeout, &client->export, err);
	ret = client->links[0].handle ? check_export(n, &client->export, err) : -err->code;
	if (ret) {
		nbd_owner_close(client);
		return ret;
	}
	client->links_count = 1;
	atomic_store(&client->connected, 1);
	atomic_store(&client->size, client->export.size);
	/* What a penstock before us was told is written, and had no time to flush. */
	if (!layer->read_only && client->export.flush) {
		ret = nbd_dial_flush(client->links[0].handle, n->uri, n->open_timeout, err);
		if (ret) {
			nbd_owner_close(client);
			return ret;
		}
	}
	connect_more(n, client);
	n->client = client;
	log_info("disk %s: %s, %s, connections: %u%s", layer->disk, n->uri,
		 format_size(client->export.size, size, sizeof size), client->links_count,
		 layer->read_only ? ", read-only" : "");
	if (!client->export.flush && !layer->read_only)
		log_warn("disk %s: nbd: the server has no flush: when data are safe is up to it",
			 layer->disk);
	return 0;
}

static void nbd_close_layer(struct layer *layer)
{
	nbd_owner_close(((struct nbd *)layer)->client);
}

/* --- what it can take ----------------------------------------------------------------------- */

static uint32_t between(uint32_t low, uint32_t value, uint32_t high)
{
	return value < low ? low : value > high ? high : value;
}

static void nbd_limits(struct layer *layer, struct limits *limits)
{
	const struct nbd_client *client = ((struct nbd *)layer)->client;
	const struct nbd_export *e = &client->export;
	uint64_t size = atomic_load(&client->size);

	limits->size = size - size % e->minimum;
	limits->block_size = e->minimum < 512 ? 512 : e->minimum;
	limits->physical_block_size = between(limits->block_size, e->preferred, PHYSICAL_MOST);
	limits->optimal_io = e->preferred > PHYSICAL_MOST ? e->preferred : 0;
	limits->read_only = layer->read_only;
	limits->discard = e->trim;
}

/* The server does the growing, and tells only new connections. */
static int nbd_resize(struct layer *layer, uint64_t size, struct error *err)
{
	struct nbd *n = (struct nbd *)layer;
	struct nbd_client *client = n->client;
	struct nbd_export now = { 0 };
	struct nbd_handle *probe = NULL;
	char a[32], b[32];

	if (size > atomic_load(&client->size) && client->export.multi_conn) {
		probe = nbd_dial(n->uri, PROBE_WAIT, &now, err);
		nbd_close(probe);
	}
	if (now.size > atomic_load(&client->size))
		atomic_store(&client->size, now.size);
	if (size > atomic_load(&client->size))
		return error_set(err, ENOSPC,
				 "nbd: the export has %s, and its server alone can make it %s%s",
				 format_size(atomic_load(&client->size), a, sizeof a),
				 format_size(size, b, sizeof b),
				 client->export.multi_conn
					 ? ""
					 : "; a new size is seen after a reconnect: "
					   "restart the server");
	nbd_owner_renew(client);
	return 0;
}

static json_t *nbd_report(struct layer *layer)
{
	struct nbd_client *client = ((struct nbd *)layer)->client;
	unsigned connected = atomic_load(&client->connected);

	return json_pack("{s:s, s:i, s:i, s:I, s:I}", "state",
			 connected                      ? "connected"
			 : atomic_load(&client->failed) ? "failed"
							: "reconnecting",
			 "connected", (int)connected, "wanted", (int)client->links_count, "losses",
			 (json_int_t)atomic_load(&client->losses), "unstable",
			 (json_int_t)atomic_load(&client->unstable));
}

/* --- other options while it is in use ------------------------------------------------------------
 */

static int nbd_prepare(struct layer *layer, const struct layer_plan *plan, struct error *err)
{
	const struct nbd *is = (struct nbd *)layer, *wanted = (const struct nbd *)plan->options;

	if (wanted->connections != is->connections || wanted->replay_memory != is->replay_memory)
		return error_set(err, EBUSY,
				 "%s cannot change while the disk is in use; the time limits can",
				 wanted->connections != is->connections ? "connections"
									: "replay-memory");
	return 0;
}

static void nbd_commit(struct layer *layer)
{
	struct nbd *n = (struct nbd *)layer;

	set_times(n, n->client);
}

/* --- requests -----------------------------------------------------------------------------------
 */

static int nbd_queue_open(struct layer *layer, struct io_queue *queue)
{
	return nbd_owner_join(((struct nbd *)layer)->client, layer_queue_state(layer, queue),
			      queue->loop, false);
}

static void nbd_queue_close(struct layer *layer, struct io_queue *queue)
{
	nbd_owner_leave(((struct nbd *)layer)->client, layer_queue_state(layer, queue));
}

/* --- in service, with or without queues ---------------------------------------------------------
 */

static void nbd_start(struct layer *layer, struct loop *home)
{
	struct nbd *n = (struct nbd *)layer;

	list_init(&n->service.link);
	nbd_owner_join(n->client, &n->service, home, true);
}

static void leave(struct loop_message *message)
{
	struct nbd *n = container_of(message, struct nbd, leave);

	nbd_owner_leave(n->client, &n->service);
	loop_send(n->stop->loop, &n->stop->done);
}

static void nbd_stop(struct layer *layer, struct layer_stop *stop)
{
	struct nbd *n = (struct nbd *)layer;

	n->stop = stop;
	n->leave.run = leave;
	loop_send(n->service.loop, &n->leave);
}

static void nbd_submit(struct layer *layer, struct io *io)
{
	io->op_kernel.data = layer;
	nbd_owner_submit(((struct nbd *)layer)->client, io);
}

/* Whoever writes to an export that we only read is nobody we know of. */
static bool nbd_identity(const struct layer *layer, char *text, size_t size)
{
	const struct nbd *n = (const struct nbd *)layer;

	return (size_t)snprintf(text, size, "%s", n->uri) < size;
}

static const struct option nbd_options[] = {
	{ .name = "uri",
	  .type = OPTION_STRING,
	  .offset = offsetof(struct nbd, uri),
	  .required = true,
	  .help = "The export: nbd://host[:port]/export, nbd+unix:///export?socket=/path, nbd+vsock://; "
		  "nbds://, nbds+unix:// and nbds+vsock:// with TLS, to which tls-certificates=DIRECTORY "
		  "or tls-psk-file=FILE may be added as parameters and a user name before the host, as "
		  "nbd_connect_uri(3) describes them." },
	{ .name = "connections",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct nbd, connections),
	  .fallback = "1",
	  .min = 1,
	  .max = NBD_CONNECTIONS,
	  .help = "How many at most, if the server says that several are safe (multi-conn); else one." },
	{ .name = "reconnect-delay",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct nbd, reconnect_delay),
	  .fallback = "120s",
	  .max = FOREVER,
	  .help = "How long requests wait for a lost server before they fail with an I/O error. Penstock "
		  "goes on trying after that." },
	{ .name = "timeout",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct nbd, timeout),
	  .fallback = "60s",
	  .max = FOREVER,
	  .help = "A connection on which a request has no answer for so long is taken for lost; 0s: never." },
	{ .name = "open-timeout",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct nbd, open_timeout),
	  .fallback = "10s",
	  .min = 10000000,
	  .max = FOREVER,
	  .help = "How long connecting and shaking hands may take, each time." },
	{ .name = "replay-memory",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct nbd, replay_memory),
	  .fallback = "32M",
	  .min = 1u << 20,
	  .max = 1ull << 32,
	  .help = "Memory for copies of writes that the server may still lose. When it is half full, the "
		  "server is told to flush." },
	{ 0 },
};

const struct layer_ops nbd_ops = {
	.name = "nbd",
	.summary = "an export of an NBD server: nbdkit, qemu-nbd, nbd-server, another penstock",
	.description =
		"Connects to a Network Block Device server, by TCP, a UNIX socket or vsock, with TLS or "
		"without. Discarding, writing zeroes, FUA and the server's block sizes are used where it "
		"has them; a request longer than it takes is cut.\n\n"
		"Formats of other programs (qcow2, VMDK, VDI, VHDX) are served by qemu-nbd behind it: "
		"`qemu-nbd --persistent --socket /run/disk.sock --format qcow2 disk.qcow2`, and the uri "
		"nbd+unix:///?socket=/run/disk.sock.\n\n"
		"A lost connection is made anew while requests wait; the guest sees a pause. What the server "
		"had acknowledged but not made stable is remembered, in replay-memory, and sent again after "
		"a reconnect, in its order and before anything else, with the writes that had no answer yet. "
		"So a server that is killed, or a host that crashes, and comes back with what it had flushed "
		"loses nothing, and a flush that succeeds afterwards tells the truth. If a write cannot be "
		"repeated, the next flush fails. After reconnect-delay requests fail; what the server "
		"acknowledged before is still repeated when it returns.\n\n"
		"A server that comes back smaller, read-only or without a feature that it had is refused, and "
		"the log says so. Larger is fine: `penstock resize` lets the guest have it.\n\n"
		"Two things are beyond a client. A server that forgets what it had flushed (one that "
		"keeps its bytes in memory alone, and is restarted) loses data. And where the network fails "
		"while the server lives on, the server may execute a request of the old connection late, after "
		"it was repeated and overwritten on the new one; servers in use end what belongs to a dead "
		"connection first.\n\n"
		"As a leg of a mirror it wants a short reconnect-delay: until that is over, the mirror waits "
		"for the leg.\n\n"
		"Nothing locks an export against a second writer. Host names are looked up again at each "
		"reconnect.",
	.example =
		"disks:\n"
		"  db:\n"
		"    stack:\n"
		"      - nbd: {uri: \"nbd+unix:///?socket=/run/penstock/db.sock\", reconnect-delay: 5s}\n",
	.size = sizeof(struct nbd),
	.options = nbd_options,
	.backend = true,
	.place_option = "uri",
	.queue_state = sizeof(struct nbd_queue),
	.open = nbd_open,
	.close = nbd_close_layer,
	.limits = nbd_limits,
	.resize = nbd_resize,
	.prepare = nbd_prepare,
	.commit = nbd_commit,
	.start = nbd_start,
	.stop = nbd_stop,
	.queue_open = nbd_queue_open,
	.queue_close = nbd_queue_close,
	.submit = nbd_submit,
	.identity = nbd_identity,
	.report = nbd_report,
};
