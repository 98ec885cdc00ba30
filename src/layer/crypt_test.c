/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt_test.c - sectors, and requests on encrypted disks: in memory of all shapes, on several
 * loops, of all lengths, with helpers, with errors from below
 */
#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "layer/crypt_cipher.h"
#include "layer/crypt_short.h"
#include "layer/crypt_testing.h"
#include "loop/workers.h"
#include "util/log.h"

static char directory[200], key_file[300], images[2][300];

/* --- sectors ---------------------------------------------------------------------------- */

/* IEEE 1619-2007, annex B: vectors 4 (AES-128) and 10 (AES-256), of 512 bytes each. */
static const struct vector {
	unsigned key_size;
	const char *key;
	uint64_t tweak;
	const char *begin, *end;
} vectors[] = {
	{ 32,
	  "\x27\x18\x28\x18\x28\x45\x90\x45\x23\x53\x60\x28\x74\x71\x35\x26"
	  "\x31\x41\x59\x26\x53\x58\x97\x93\x23\x84\x62\x64\x33\x83\x27\x95",
	  0,
	  "\x27\xa7\x47\x9b\xef\xa1\xd4\x76\x48\x9f\x30\x8c\xd4\xcf\xa6\xe2"
	  "\xa9\x6e\x4b\xbe\x32\x08\xff\x25\x28\x7d\xd3\x81\x96\x16\xe8\x9c",
	  "\x0a\x28\x2d\xf9\x20\x14\x7b\xea\xbe\x42\x1e\xe5\x31\x9d\x05\x68" },
	{ 64,
	  "\x27\x18\x28\x18\x28\x45\x90\x45\x23\x53\x60\x28\x74\x71\x35\x26"
	  "\x62\x49\x77\x57\x24\x70\x93\x69\x99\x59\x57\x49\x66\x96\x76\x27"
	  "\x31\x41\x59\x26\x53\x58\x97\x93\x23\x84\x62\x64\x33\x83\x27\x95"
	  "\x02\x88\x41\x97\x16\x93\x99\x37\x51\x05\x82\x09\x74\x94\x45\x92",
	  0xff,
	  "\x1c\x3b\x3a\x10\x2f\x77\x03\x86\xe4\x83\x6c\x99\xe3\x70\xcf\x9b"
	  "\xea\x00\x80\x3f\x5e\x48\x23\x57\xa4\xae\x12\xd4\x14\xa3\xe6\x3b",
	  "\xc4\xf3\x6f\xfd\xa9\xfc\xea\x70\xb9\xc6\xe6\x93\xe1\x48\xc1\x51" },
};

static void knows_the_standards_vectors(void **unused)
{
	(void)unused;
	for (unsigned i = 0; i < sizeof vectors / sizeof *vectors; i++) {
		const struct vector *v = &vectors[i];
		struct error err = { 0 };
		struct crypt_cipher *cipher = crypt_cipher_create(v->key, v->key_size, 512, &err);
		struct crypt_cipher *other = cipher ? crypt_cipher_copy(cipher) : NULL;
		unsigned char plain[512], out[512];
		struct iovec vec = { plain, sizeof plain };
		struct io_data data = { .vec = &vec, .count = 1 };

		assert_non_null(other);
		crypt_cipher_free(cipher); /* a copy stands on its own */
		for (unsigned b = 0; b < sizeof plain; b++)
			plain[b] = (unsigned char)b;
		assert_int_equal(crypt_encrypt(other, v->tweak, data, out, sizeof out), 0);
		assert_memory_equal(out, v->begin, 32);
		assert_memory_equal(out + sizeof out - 16, v->end, 16);
		vec.iov_base = out;
		assert_int_equal(crypt_decrypt(other, v->tweak, data, sizeof out), 0);
		assert_memory_equal(out, plain, sizeof plain);
		crypt_cipher_free(other);
	}
}

/* OpenSSL's XTS, used in the plainest way. */
static void encrypt_plainly(const struct vector *v, uint32_t size, uint64_t tweak,
			    const unsigned char *from, unsigned char *to, uint64_t length)
{
	const EVP_CIPHER *xts = v->key_size == 64 ? EVP_aes_256_xts() : EVP_aes_128_xts();
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	int written;

	for (uint64_t at = 0; at < length; at += size) {
		uint64_t iv[2] = { htole64(tweak + at / 512), 0 };

		assert_int_equal(EVP_EncryptInit_ex(context, xts, NULL,
						    (const unsigned char *)v->key,
						    (unsigned char *)iv),
				 1);
		assert_int_equal(
			EVP_EncryptUpdate(context, to + at, &written, from + at, (int)size), 1);
	}
	EVP_CIPHER_CTX_free(context);
}

/* All lengths and addresses, for both sizes, against that; by each way there is. */
static void agrees_with_xts_of_openssl(void **state)
{
	static unsigned char plain[300 * 512 + 64], expected[sizeof plain], out[sizeof plain];

	if (!crypt_short_use(*(enum crypt_short_way *)*state)) {
		print_message("# this processor has not got it\n");
		skip();
	}
	for (size_t i = 0; i < sizeof plain; i++)
		plain[i] = (unsigned char)(i * 2654435761u >> 13);
	for (unsigned n = 0; n < 600; n++) {
		const struct vector *v = &vectors[n % 2];
		uint32_t size = n / 2 % 4 == 3 ? 4096 : 512;
		uint64_t tweak = (uint64_t)n << n % 50, length = (1 + n % (153600 / size)) * size;
		unsigned from = n % 33, to = n * 7 % 33;
		struct iovec vec = { plain + from, length };
		struct io_data data = { .vec = &vec, .count = 1 };
		struct crypt_cipher *cipher = crypt_cipher_create(v->key, v->key_size, size, NULL);

		encrypt_plainly(v, size, tweak, plain + from, expected, length);
		memset(out, 0x5a, sizeof out);
		assert_int_equal(crypt_encrypt(cipher, tweak, data, out + to, length), 0);
		assert_memory_equal(out + to, expected, length);
		assert_int_equal(out[to + length], 0x5a);
		vec.iov_base = out + to;
		assert_int_equal(crypt_decrypt(cipher, tweak, data, length), 0);
		assert_memory_equal(out + to, plain + from, length);
		assert_int_equal(out[to + length], 0x5a);
		crypt_cipher_free(cipher);
	}
}

/* The number of a sector counts units of 512 bytes whatever its size, and has more than 32 bits. */
static void numbers_sectors_as_dm_crypt_does(void **unused)
{
	static unsigned char plain[3 * 4096], all[sizeof plain], one[4096];
	const uint64_t tweak = 0x1234567890;

	(void)unused;
	for (uint32_t size = 512; size <= 4096; size *= 2) {
		struct error err = { 0 };
		struct crypt_cipher *cipher = crypt_cipher_create(vectors[1].key, 64, size, &err);
		struct iovec vec = { plain, sizeof plain };
		struct io_data data = { .vec = &vec, .count = 1 };

		assert_non_null(cipher);
		memset(plain, 0, sizeof plain);
		assert_int_equal(crypt_encrypt(cipher, tweak, data, all, sizeof plain), 0);
		for (uint32_t at = 0; at < sizeof plain; at += size) {
			assert_int_equal(crypt_encrypt(cipher, tweak + at / 512, data, one, size),
					 0);
			assert_memory_equal(all + at, one, size);
			assert_true(!at || memcmp(all, one, 16));
		}
		memset(all, 1, sizeof all);
		assert_int_equal(crypt_encrypt_zeroes(cipher, tweak, all, sizeof all), 0);
		for (uint32_t at = 0; at < sizeof plain; at += size) {
			assert_int_equal(crypt_encrypt(cipher, tweak + at / 512, data, one, size),
					 0);
			assert_memory_equal(all + at, one, size);
		}
		crypt_cipher_free(cipher);
	}
}

static void refuses_equal_halves(void **unused)
{
	struct error err = { 0 };
	char key[64];

	(void)unused;
	memset(key, 7, sizeof key);
	assert_null(crypt_cipher_create(key, sizeof key, 512, &err));
	assert_non_null(strstr(err.text, "volume key"));
}

/* --- actors: each a loop of its own, with requests in a range of its own --------------------- */

#define SLOTS   24
#define VECTORS 20
#define SPACE   (1u << 20) /* bytes of a slot */

struct slot {
	struct actor *actor;
	unsigned index;
	unsigned char expected[SPACE]; /* of the disk */
	unsigned char known[SPACE / 512];
	unsigned char *memory, *copy; /* of the request */
	size_t room;
	enum io_op op;
	uint64_t offset, length; /* in the slot */
};

struct actor {
	struct disk *disk;
	enum loop_engine engine;
	uint64_t base; /* of its range, bytes */
	unsigned slots;
	unsigned left; /* requests to begin */
	unsigned out, failed;
	bool errors; /* some are to be expected */
	uint64_t random;
	struct loop *loop;
	struct loop_message start, end;
	struct disk_queue *queue;
	struct slot slot[SLOTS];
	char failure[200];
};

static uint64_t draw(struct actor *a, uint64_t below)
{
	a->random ^= a->random >> 12;
	a->random ^= a->random << 25;
	a->random ^= a->random >> 27;
	return a->random * 0x2545f4914f6cdd1dull % below;
}

static void next(struct slot *s);

/* Memory for the request in iovecs of odd lengths at odd places, or in a few tidy ones. */
static struct io_data make_data(struct slot *s, struct iovec *vec)
{
	struct actor *a = s->actor;
	bool tidy = draw(a, 2);
	uint64_t left = s->length, at = 0, skip = draw(a, 3) ? 0 : 1 + draw(a, 100);
	unsigned count = 1 + (unsigned)draw(a, VECTORS), n = 0;

	s->room = s->length + skip + VECTORS * 128;
	s->memory = malloc(s->room);
	s->copy = malloc(s->room);
	for (size_t i = 0; i < s->room; i++)
		s->memory[i] = (unsigned char)(i * 7 + s->offset / 512 + a->left);
	while (left) {
		uint64_t bytes = n + 1 == count || left < 512 ? left
				 : tidy                       ? (1 + draw(a, left / 512)) * 512
							      : 1 + draw(a, left);

		vec[n] = (struct iovec){ s->memory + at, bytes + (n ? 0 : skip) };
		at += vec[n++].iov_len + (tidy ? 0 : draw(a, 100));
		left -= bytes;
	}
	memcpy(s->copy, s->memory, s->room);
	return (struct io_data){ .vec = vec, .count = n, .skip = (uint32_t)skip };
}

static void check(struct slot *s, struct io *io)
{
	struct actor *a = s->actor;
	unsigned char *flat = malloc(s->length ? s->length : 1);

	a->failed += io->status != 0;
	if (io->status && !a->errors)
		snprintf(a->failure, sizeof a->failure, "%s failed: %d", io_op_name(s->op),
			 io->status);
	if (s->op == IO_WRITE && memcmp(s->memory, s->copy, s->room))
		snprintf(a->failure, sizeof a->failure, "a write changed the guest's memory");
	if (s->op == IO_WRITE || s->op == IO_READ)
		io_data_copy_out(io->data, flat, s->length);
	else
		memset(flat, 0, s->length);
	if (s->op == IO_READ && !io->status) {
		for (uint64_t at = 0; at < s->length; at += 512)
			if (s->known[(s->offset + at) / 512] &&
			    memcmp(flat + at, s->expected + s->offset + at, 512))
				snprintf(a->failure, sizeof a->failure,
					 "slot %u: other bytes at %" PRIu64 " of a read of %" PRIu64
					 " at %" PRIu64,
					 s->index, at, s->length, s->offset);
	} else if (s->op == IO_WRITE || s->op == IO_ZEROES) {
		memcpy(s->expected + s->offset, flat, s->length);
		memset(s->known + s->offset / 512, !io->status, s->length / 512);
	}
	free(flat);
	free(s->memory);
	free(s->copy);
	s->memory = s->copy = NULL;
}

static void done(struct layer *layer, struct io *io)
{
	struct slot *s = (struct slot *)io_frame(io)->note[0];

	(void)layer;
	check(s, io);
	io_put(io);
	s->actor->out--;
	next(s);
}

static void next(struct slot *s)
{
	static const enum io_op ops[] = { IO_READ,  IO_READ,   IO_READ,  IO_WRITE,
					  IO_WRITE, IO_ZEROES, IO_FLUSH, IO_DISCARD };
	struct actor *a = s->actor;
	uint64_t block = a->disk->block_size, most = draw(a, 3) ? 16 : SPACE / block;
	struct io *io;

	if (!a->left || *a->failure) {
		if (!a->out)
			loop_send(a->loop, &a->end);
		return;
	}
	a->left--;
	a->out++;
	s->op = ops[draw(a, sizeof ops / sizeof *ops)];
	s->length = s->op == IO_FLUSH ? 0 : (1 + draw(a, most)) * block;
	s->offset = s->op == IO_FLUSH ? 0 : draw(a, (SPACE - s->length) / block + 1) * block;
	io = io_get(&a->queue->ios);
	io->op = (uint8_t)s->op;
	io->flags = s->op == IO_ZEROES ? (uint8_t)draw(a, 4)
				       : (s->op == IO_WRITE ? (uint8_t)draw(a, 2) : 0);
	io->offset = s->op == IO_FLUSH ? 0 : a->base + s->index * SPACE + s->offset;
	io->length = s->length;
	if (s->op == IO_READ || s->op == IO_WRITE)
		io->data = make_data(s, io_vector(io));
	disk_submit(a->queue, io, done)->note[0] = (uintptr_t)s;
}

static void act(struct loop_message *message)
{
	struct actor *a = container_of(message, struct actor, start);

	a->queue = disk_queue_open(a->disk, a->loop, a->slots, VECTORS + 1);
	if (!a->queue)
		abort();
	for (unsigned i = 0; i < a->slots; i++) {
		a->slot[i].actor = a;
		a->slot[i].index = i;
		next(&a->slot[i]);
	}
}

static sem_t ended;

static void leave(struct loop_message *message)
{
	struct actor *a = container_of(message, struct actor, end);

	disk_queue_close(a->queue);
	sem_post(&ended);
}

/* @count actors at once; the number of requests that failed. */
static unsigned play(struct disk *disk, unsigned count, enum loop_engine engine, unsigned requests,
		     bool errors)
{
	const struct loop_config config = { .name = "actor", .engine = engine, .cpu = -1 };
	struct actor *actors = calloc(count, sizeof *actors);
	unsigned failed = 0;
	struct timespec limit;

	sem_init(&ended, 0, 0);
	for (unsigned i = 0; i < count; i++) {
		struct actor *a = &actors[i];

		a->disk = disk;
		a->slots = SLOTS / count;
		a->base = (uint64_t)i * a->slots * SPACE;
		a->left = requests;
		a->errors = errors;
		a->random = 88172645463325252ull + i;
		a->start.run = act;
		a->end.run = leave;
		a->loop = loop_create(&config, NULL);
		assert_non_null(a->loop);
		assert_int_equal(loop_start(a->loop, NULL), 0);
		loop_send(a->loop, &a->start);
	}
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 50;
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(sem_timedwait(&ended, &limit), 0);
	for (unsigned i = 0; i < count; i++) {
		loop_stop(actors[i].loop);
		loop_destroy(actors[i].loop);
		if (*actors[i].failure)
			fail_msg("actor %u: %s", i, actors[i].failure);
		failed += actors[i].failed;
	}
	free(actors);
	sem_destroy(&ended);
	return failed;
}

static struct disk *open_image(bool large, const struct layer_config *between, const char *workers)
{
	struct error err = { 0 };
	struct disk *disk = crypt_testing_disk(images[large], large, between, &err, "key-file",
					       key_file, "workers", workers, "workers-from", "128K",
					       NULL);

	if (!disk)
		fail_msg("%s", err.text);
	assert_int_equal(disk->size, SLOTS * SPACE);
	return disk;
}

static void keeps_what_is_written(void **unused)
{
	(void)unused;
	for (int large = 0; large < 2; large++) {
		struct disk *disk = open_image(large, NULL, "0");

		play(disk, 1, LOOP_AUTO, 300, false);
		disk_close(disk);
	}
}

static void works_on_several_loops_with_helpers(void **unused)
{
	(void)unused;
	if (!workers_count())
		print_message("# one core: no helpers\n");
	for (int large = 0; large < 2; large++) {
		struct disk *disk = open_image(large, NULL, "auto");

		play(disk, 3, LOOP_THREADS, 120, false);
		disk_close(disk);
	}
}

/* More large writes at once than there are buffers, so that some have to wait for one. */
static void has_writes_wait_for_buffers(void **unused)
{
	struct layer_setting slow[] = { { (char *)"delay", (char *)"2ms", 0 },
					{ (char *)"jitter", (char *)"3ms", 0 } };
	struct layer_config flaky = { .ops = layer_find("flaky"), .settings = slow, .count = 2 };
	struct disk *disk = open_image(false, &flaky, "auto");

	(void)unused;
	play(disk, 1, LOOP_AUTO, 300, false);
	disk_close(disk);
}

static void passes_errors_on(void **unused)
{
	struct layer_setting bad[] = { { (char *)"errors", (char *)"20%", 0 },
				       { (char *)"torn", (char *)"10%", 0 },
				       { (char *)"ops", (char *)"write", 0 },
				       { (char *)"jitter", (char *)"500us", 0 } };
	struct layer_config flaky = { .ops = layer_find("flaky"), .settings = bad, .count = 4 };
	struct disk *disk = open_image(true, &flaky, "auto");

	(void)unused;
	assert_true(play(disk, 2, LOOP_AUTO, 300, true) > 20);
	disk_close(disk);
}

/* --- what is below ------------------------------------------------------------------------ */

static void read_image(bool large, uint64_t offset, void *to, size_t length)
{
	int fd = open(images[large], O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, to, length, (off_t)(CRYPT_TESTING_DATA + offset)), length);
	close(fd);
}

static void leaves_nothing_plain_below(void **unused)
{
	static unsigned char bytes[300 << 10], below[sizeof bytes], zero[sizeof bytes];
	struct disk *disk = open_image(false, NULL, "auto");

	(void)unused;
	memset(bytes, 'p', sizeof bytes);
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_WRITE, 0, 4096, sizeof bytes, bytes), 0);
	read_image(false, 4096, below, sizeof below);
	for (size_t at = 0; at < sizeof below; at += 16)
		assert_true(memcmp(below + at, bytes, 16));
	/* Zeroes are encrypted like anything else, even where space might be given back. */
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_ZEROES, IO_UNMAP, 4096, sizeof bytes, NULL),
			 0);
	read_image(false, 4096, below, sizeof below);
	for (size_t at = 0; at < sizeof below; at += 16)
		assert_true(memcmp(below + at, zero, 16));
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_READ, 0, 4096, sizeof bytes, bytes), 0);
	assert_memory_equal(bytes, zero, sizeof bytes);
	disk_close(disk);
}

static void lets_discards_through_only_if_told(void **unused)
{
	static const char zero[4096], *const choices[] = { "false", "true" };
	char below[4096];

	(void)unused;
	for (unsigned allowed = 0; allowed < 2; allowed++) {
		struct error err = { 0 };
		struct disk *disk = crypt_testing_disk(images[0], false, NULL, &err, "key-file",
						       key_file, "discard", choices[allowed], NULL);

		assert_non_null(disk);
		assert_int_equal(disk->limits.discard, allowed);
		memset(below, 'd', sizeof below);
		assert_int_equal(testing_io(disk, LOOP_AUTO, IO_WRITE, 0, 0, sizeof below, below),
				 0);
		assert_int_equal(testing_io(disk, LOOP_AUTO, IO_DISCARD, 0, 0, 4096, NULL), 0);
		read_image(false, 0, below, sizeof below);
		assert_int_equal(!memcmp(below, zero, sizeof below), allowed);
		disk_close(disk);
	}
}

static void grows(void **unused)
{
	struct disk *disk = open_image(false, NULL, "0");
	struct error err = { 0 };
	char bytes[512];

	(void)unused;
	assert_int_equal(disk_resize(disk, SLOTS * SPACE + 8192, &err), 0);
	memset(bytes, 'g', sizeof bytes);
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_WRITE, 0, SLOTS * SPACE + 8192 - 512,
				    sizeof bytes, bytes),
			 0);
	disk_close(disk);
	assert_int_equal(truncate(images[0], SLOTS * SPACE + CRYPT_TESTING_DATA), 0);
}

static int prepare(void **unused)
{
	struct error err = { 0 };

	(void)unused;
	testing_directory(directory);
	snprintf(key_file, sizeof key_file, "%s/key", directory);
	crypt_testing_file(key_file, "correct horse\n", 14);
	for (int large = 0; large < 2; large++) {
		snprintf(images[large], sizeof images[large], "%s/image%d", directory, large);
		if (crypt_testing_make(images[large], SLOTS * SPACE, large, key_file, &err)) {
			print_error("%s\n", err.text);
			return -1;
		}
	}
	return 0;
}

static int clean_up(void **unused)
{
	(void)unused;
	unlink(images[0]);
	unlink(images[1]);
	unlink(key_file);
	rmdir(directory);
	workers_end();
	return 0;
}

int main(void)
{
	static enum crypt_short_way ways[] = { CRYPT_SHORT_ANY, CRYPT_SHORT_AVX2,
					       CRYPT_SHORT_AVX512 };
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(knows_the_standards_vectors),
		cmocka_unit_test_prestate(agrees_with_xts_of_openssl, &ways[0]),
		cmocka_unit_test_prestate(agrees_with_xts_of_openssl, &ways[1]),
		cmocka_unit_test_prestate(agrees_with_xts_of_openssl, &ways[2]),
		cmocka_unit_test(numbers_sectors_as_dm_crypt_does),
		cmocka_unit_test(refuses_equal_halves),
		cmocka_unit_test(keeps_what_is_written),
		cmocka_unit_test(works_on_several_loops_with_helpers),
		cmocka_unit_test(has_writes_wait_for_buffers),
		cmocka_unit_test(passes_errors_on),
		cmocka_unit_test(leaves_nothing_plain_below),
		cmocka_unit_test(lets_discards_through_only_if_told),
		cmocka_unit_test(grows),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("crypt", tests, prepare, clean_up);
}
