/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt.c - transparent encryption, in the format of LUKS
 *
 * Read: below, then decrypted in the guest's own memory, on the way up. Write: encrypted into a
 * bounce buffer of the queue, since the guest's memory is not ours to change, and sent from there.
 * A write that is longer than a buffer goes in windows, a few of them at a time; zeroes are
 * something to be encrypted like anything else, and go the same way.
 *
 * Large requests are computed by several cores; see crypt_split.c. What a key is and where it comes
 * from: crypt_volume.c, crypt_key.c; where it is kept: crypt_memory.c.
 *
 * Discards tell whoever sees the ciphertext which parts are in use, and what was discarded reads as
 * noise. So, as with dm-crypt, they end here unless they are allowed.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "layer/crypt_private.h"
#include "layer/stack.h"
#include "util/error.h"
#include "util/log.h"

#define WINDOWS 4 /* of one request under way at once */

struct crypt_queue {
	struct crypt_cipher *cipher;
	struct crypt_bounces bounces;
	struct crypt_jobs *jobs;
	struct log_limit limit;
};

/* notes of the frame of a write that fits a buffer, a part too */
enum { NOTE_BOUNCE, NOTE_WHOLE };
/* notes of the frame of a request that goes in windows */
enum { NOTE_NEXT, NOTE_ALL_SENT };

static struct io_frame *own_frame(struct io *io)
{
	return &io->frame[io->depth - 1];
}

static uint64_t tweak(const struct crypt *c, const struct io *io)
{
	return c->keys->volume.tweak + io->offset / 512;
}

static void failed(struct crypt *c, struct io *io, int status)
{
	struct crypt_queue *q = layer_queue_state(&c->layer, io->queue);

	if (log_limited(&q->limit))
		log_error("disk %s: crypt: OpenSSL failed at byte %llu", c->layer.disk,
			  (unsigned long long)io->offset);
	io_finish(io, status);
}

/* --- read ------------------------------------------------------------------------------- */

static void decrypted(struct layer *layer, struct io *io)
{
	if (io->status)
		failed((struct crypt *)layer, io, io->status);
	else
		io_finish(io, 0);
}

static void read_done(struct layer *layer, struct io *io)
{
	struct crypt *c = (struct crypt *)layer;
	struct crypt_queue *q = layer_queue_state(layer, io->queue);
	struct crypt_task task = {
		.tweak = tweak(c, io), .data = io->data, .length = io->length, .whole = io->length
	};

	if (io->status)
		io_finish(io, io->status);
	else if (crypt_compute(c, q->jobs, q->cipher, io, &task, decrypted, &io->status))
		decrypted(layer, io);
}

/* --- write, in one piece ------------------------------------------------------------------ */

/* The ciphertext is in the buffer. */
static void encrypted(struct layer *layer, struct io *io)
{
	struct crypt *c = (struct crypt *)layer;
	struct crypt_bounce *bounce = (struct crypt_bounce *)own_frame(io)->note[NOTE_BOUNCE];

	if (io->status) {
		failed(c, io, io->status);
		return;
	}
	io->op = IO_WRITE;
	io->flags &= IO_FUA;
	io->data = (struct io_data){ .vec = &bounce->vec, .count = 1 };
	io->offset += c->keys->volume.data_offset;
	io_send(layer->below, io);
}

/* WRITE or, in a part, ZEROES, with its frame pushed. */
static void start_write(struct layer *layer, struct io *io)
{
	struct crypt *c = (struct crypt *)layer;
	struct crypt_queue *q = layer_queue_state(layer, io->queue);
	struct crypt_bounce *bounce = crypt_bounce_take(&q->bounces, io);
	struct crypt_task task = { .tweak = tweak(c, io),
				   .data = io->data,
				   .zeroes = io->op == IO_ZEROES,
				   .length = io->length,
				   .whole = own_frame(io)->note[NOTE_WHOLE] };

	if (!bounce)
		return; /* until one comes back */
	own_frame(io)->note[NOTE_BOUNCE] = (uintptr_t)bounce;
	task.to = bounce->vec.iov_base;
	if (crypt_compute(c, q->jobs, q->cipher, io, &task, encrypted, &io->status))
		encrypted(layer, io);
}

static void return_bounce(struct layer *layer, struct io *io)
{
	struct crypt_queue *q = layer_queue_state(layer, io->queue);
	struct crypt_bounce *bounce = (struct crypt_bounce *)io_frame(io)->note[NOTE_BOUNCE];
	struct io *waiting = crypt_bounce_return(&q->bounces, bounce);

	if (waiting)
		start_write(layer, waiting);
}

static void write_done(struct layer *layer, struct io *io)
{
	return_bounce(layer, io);
	io_finish(io, io->status);
}

/* --- write, in windows --------------------------------------------------------------------- */

static void window_done(struct layer *layer, struct io *part);

/* The next part, or the end of them. */
static void next_window(struct layer *layer, struct io *whole)
{
	struct io_frame *frame = own_frame(whole);
	uint64_t start = frame->note[NOTE_NEXT], left = whole->length - start;
	uint64_t length = left < CRYPT_WINDOW ? left : CRYPT_WINDOW;
	struct io *part;

	if (!left || whole->status) {
		frame->note[NOTE_ALL_SENT] = true;
		io_parts_end(whole);
		return;
	}
	part = io_part(whole, start, length, whole->offset + start);
	frame->note[NOTE_NEXT] += length;
	io_push(layer, part, window_done)->note[NOTE_WHOLE] = whole->length;
	start_write(layer, part);
}

static void window_done(struct layer *layer, struct io *part)
{
	struct io *whole = part->whole;
	bool more = !own_frame(whole)->note[NOTE_ALL_SENT];

	return_bounce(layer, part);
	io_part_end(part, part->status);
	/* Held until all are sent. */
	if (more)
		next_window(layer, whole);
}

static void windows_done(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, io->status);
}

static void start_windows(struct layer *layer, struct io *io)
{
	struct io_frame *frame = io_parts_begin(layer, io, windows_done);

	frame->note[NOTE_NEXT] = 0;
	frame->note[NOTE_ALL_SENT] = false;
	for (unsigned i = 0; i < WINDOWS && !frame->note[NOTE_ALL_SENT]; i++)
		next_window(layer, io);
}

/* --- a request ----------------------------------------------------------------------------- */

static void ignored(struct layer *layer, struct io *io)
{
	(void)layer;
	io_finish(io, io->status);
}

static void crypt_submit(struct layer *layer, struct io *io)
{
	struct crypt *c = (struct crypt *)layer;

	switch (io->op) {
	case IO_READ:
		io_push(layer, io, read_done);
		io->offset += c->keys->volume.data_offset;
		io_send(layer->below, io);
		break;
	case IO_WRITE:
		if (io->length > CRYPT_WINDOW) {
			start_windows(layer, io);
			break;
		}
		io_push(layer, io, write_done)->note[NOTE_WHOLE] = io->length;
		start_write(layer, io);
		break;
	case IO_ZEROES:
		start_windows(layer, io);
		break;
	case IO_DISCARD:
		io_push(layer, io, ignored);
		io->offset += c->keys->volume.data_offset;
		if (c->discard)
			io_send(layer->below, io);
		else
			io_finish(io, 0); /* advice that is not taken */
		break;
	default:
		io_send(layer->below, io);
		break;
	}
}

/* --- its life ------------------------------------------------------------------------------- */

static void crypt_queue_close(struct layer *layer, struct io_queue *queue)
{
	struct crypt_queue *q = layer_queue_state(layer, queue);

	crypt_jobs_destroy(q->jobs);
	crypt_bounces_close(&q->bounces);
	crypt_cipher_free(q->cipher);
}

static int crypt_queue_open(struct layer *layer, struct io_queue *queue)
{
	struct crypt_queue *q = layer_queue_state(layer, queue);

	q->cipher = crypt_cipher_copy(((struct crypt *)layer)->keys->cipher);
	q->jobs = crypt_jobs_create();
	if (q->cipher && q->jobs && !crypt_bounces_open(&q->bounces, queue->roots.total))
		return 0;
	crypt_queue_close(layer, queue);
	return -ENOMEM;
}

static void forget(struct crypt_keys *keys)
{
	if (!keys)
		return;
	crypt_spares_close(keys);
	crypt_cipher_free(keys->cipher);
	free(keys);
}

/* The volume on @below, unlocked as @options say; NULL with @err. */
static struct crypt_keys *unlock(const struct crypt *options, const struct layer *layer,
				 struct layer *below, struct error *err)
{
	struct crypt_keys *keys = calloc(1, sizeof *keys);
	struct crypt_volume *v;
	bool done = false;

	if (!keys) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	v = &keys->volume;
	pthread_mutex_init(&keys->spare.lock, NULL);
	if (crypt_volume_open(v, below, &options->source, err))
		goto out;
	if (layer->block_size < v->sector_size)
		error_set(err, EINVAL,
			  "the volume's sectors have %u bytes, and the disk's blocks %u; set the "
			  "disk's option block-size to %u",
			  v->sector_size, layer->block_size, v->sector_size);
	else
		keys->cipher =
			crypt_cipher_create(v->key, (unsigned)v->key_size, v->sector_size, err);
	crypt_volume_forget_key(v);
	if (!keys->cipher)
		goto out;
	done = !crypt_spares_open(keys);
	if (!done)
		error_set(err, ENOMEM, "out of memory");
	else
		log_info(
			"disk %s: LUKS%u volume %s, aes-xts-plain64, %zu bits, sectors of %u bytes",
			layer->disk, v->version, v->uuid, v->key_size * 8, v->sector_size);
out:
	if (done)
		return keys;
	forget(keys);
	return NULL;
}

static void crypt_layer_close(struct layer *layer)
{
	forget(((struct crypt *)layer)->keys);
}

static int crypt_layer_open(struct layer *layer, struct error *err)
{
	struct crypt *c = (struct crypt *)layer;

	c->helpers = crypt_helpers(c->workers);
	c->keys = unlock(c, layer, layer->below, err);
	return c->keys ? 0 : -err->code;
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static bool same_source(const struct crypt_key_source *a, const struct crypt_key_source *b)
{
	return same_text(a->file, b->file) && same_text(a->command, b->command) &&
	       same_text(a->keyring, b->keyring) && a->file_offset == b->file_offset &&
	       a->file_size == b->file_size;
}

/*
 * Whatever is to be below, it is the same volume (layer_ops.alters). So its key need not be had
 * again, but a key from somewhere else must be one that opens it.
 */
static int crypt_prepare(struct layer *layer, const struct layer_plan *plan, struct error *err)
{
	struct crypt *c = (struct crypt *)layer, *wanted = (struct crypt *)plan->options;

	c->next = NULL;
	if (same_source(&c->source, &wanted->source))
		return 0;
	c->next = unlock(wanted, layer, layer->below, err);
	return c->next ? 0 : -err->code;
}

/* The options are in the layer by now. */
static void crypt_commit(struct layer *layer)
{
	struct crypt *c = (struct crypt *)layer;

	c->helpers = crypt_helpers(c->workers);
	if (c->next) {
		forget(c->keys);
		c->keys = c->next;
		c->next = NULL;
	}
}

static void crypt_abandon(struct layer *layer)
{
	struct crypt *c = (struct crypt *)layer;

	forget(c->next);
	c->next = NULL;
}

static void crypt_limits(struct layer *layer, struct limits *limits)
{
	struct crypt *c = (struct crypt *)layer;
	uint64_t room = limits->size > c->keys->volume.data_offset
				? limits->size - c->keys->volume.data_offset
				: 0;

	if (c->keys->volume.size && c->keys->volume.size < room)
		room = c->keys->volume.size;
	limits->size = room - room % c->keys->volume.sector_size;
	if (limits->block_size < c->keys->volume.sector_size)
		limits->block_size = c->keys->volume.sector_size;
	if (limits->physical_block_size < c->keys->volume.sector_size)
		limits->physical_block_size = c->keys->volume.sector_size;
	limits->discard = limits->discard && c->discard;
}

static int crypt_resize(struct layer *layer, uint64_t size, struct error *err)
{
	struct crypt *c = (struct crypt *)layer;

	if (c->keys->volume.size)
		return error_set(err, ENOTSUP,
				 "the LUKS header says that the volume has %llu bytes; it cannot "
				 "grow",
				 (unsigned long long)c->keys->volume.size);
	if (size > UINT64_MAX - c->keys->volume.data_offset)
		return error_set(err, EINVAL, "crypt: the size is too large");
	return layer_resize(layer->below, size + c->keys->volume.data_offset, err);
}

static json_t *crypt_report(struct layer *layer)
{
	const struct crypt *c = (struct crypt *)layer;

	return json_pack("{s:s, s:i, s:i, s:s, s:i}", "cipher", "aes-xts-plain64", "key-bits",
			 (int)c->keys->volume.key_size * 8, "sector-size",
			 (int)c->keys->volume.sector_size, "uuid", c->keys->volume.uuid,
			 "luks-version", (int)c->keys->volume.version);
}

static const struct option crypt_options[] = {
	CRYPT_KEY_OPTIONS(struct crypt, source),
	{ .name = "discard",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct crypt, discard),
	  .fallback = "false",
	  .help = "Let the guest's discards through. They show to whoever sees the ciphertext which parts "
		  "are in use, and what was discarded reads as noise, not as zeroes." },
	{ .name = "workers",
	  .type = OPTION_UINT,
	  .automatic = true,
	  .offset = offsetof(struct crypt, workers),
	  .fallback = "auto",
	  .help = "Most worker threads that help with one large request; 0: none. auto: one for each core "
		  "but one." },
	{ .name = "workers-from",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct crypt, workers_from),
	  .fallback = "512K",
	  .min = 128 << 10,
	  .help = "Smallest request that is split over worker threads: a smaller one is done sooner than a "
		  "thread can be woken." },
	{ 0 },
};

static uint64_t room(const void *object, uint64_t size)
{
	(void)object;
	return size + CRYPT_VOLUME_DATA_OFFSET;
}

static int create(const void *object, struct layer *below, struct error *err)
{
	return crypt_volume_create(object, below, err);
}

static const struct layer_format crypt_format = {
	.summary = "an encrypted volume in LUKS2 format, with one key slot",
	.description =
		"The volume key is drawn at random; the passphrase is the one that key-file, "
		"key-command or key-keyring gives. The header takes the first 16 MiB of PATH. "
		"cryptsetup reads the volume, and can add key slots.",
	.size = sizeof(struct crypt_format),
	.options = crypt_format_options,
	.room = room,
	.create = create,
};

const struct layer_ops crypt_ops = {
	.name = "crypt",
	.summary = "encrypts what is below, in LUKS2 format",
	.description =
		"What is below holds a LUKS2 volume (LUKS1 is read, too), as cryptsetup and Linux's dm-crypt "
		"have them: AES-XTS, sectors of 512 to 4096 bytes. Either of penstock-create(1) and "
		"cryptsetup luksFormat makes one; cryptsetup also adds key slots and removes them, while the disk is "
		"not in use. On a disk that was never written the guest reads noise.\n\n"
		"The passphrase comes from exactly one of key-file, key-command and key-keyring. It and the "
		"keys are in locked memory and wiped as soon as they are not needed; a process that has read "
		"one leaves no core file.\n\n"
		"Sectors larger than 512 bytes take a disk with a block-size that is at least as large. A "
		"header that is damaged, or a cipher other than aes-xts-plain64, is refused, and nothing "
		"is ever written to a header. Encryption keeps secrets, but does not notice changes: whoever "
		"can write to what is below can bring back old sectors or turn them into noise.",
	.example = "disks:\n"
		   "  db:\n"
		   "    stack:\n"
		   "      - crypt: {key-file: /etc/penstock/db.key}\n"
		   "      - file: {path: /var/lib/penstock/db.luks}\n",
	.format = &crypt_format,
	.size = sizeof(struct crypt),
	.options = crypt_options,
	.alters = true,
	.shows_below = true,
	.fan_out = WINDOWS,
	.queue_state = sizeof(struct crypt_queue),
	.open = crypt_layer_open,
	.close = crypt_layer_close,
	.prepare = crypt_prepare,
	.commit = crypt_commit,
	.abandon = crypt_abandon,
	.limits = crypt_limits,
	.resize = crypt_resize,
	.queue_open = crypt_queue_open,
	.queue_close = crypt_queue_close,
	.submit = crypt_submit,
	.report = crypt_report,
};
