/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt_volume_test.c - headers: whole, damaged, foreign; keys: where they come from, wrong ones;
 * and that no image is changed by being looked at
 */
#include "layer/crypt_volume.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include <libcryptsetup.h>
#include <linux/keyctl.h>
#include <openssl/evp.h>

#include "layer/crypt_testing.h"
#include "util/log.h"

#define SIZE   (64u << 10)
#define KEY    "correct horse\n"
#define HEADER (32u << 10) /* bytes of the two headers that the volumes here have */

static char directory[200], key_file[300], image[300], whole[300];

/* --- helpers ---------------------------------------------------------------------------- */

/* The whole image anew, as it was made. */
static void restore(void)
{
	char command[700];

	snprintf(command, sizeof command, "cp --sparse=always %s %s", whole, image);
	assert_int_equal(system(command), 0);
}

static void overwrite(uint64_t offset, const void *bytes, size_t length)
{
	int fd = open(image, O_WRONLY);

	assert_int_equal(pwrite(fd, bytes, length, (off_t)offset), length);
	close(fd);
}

/* A hash of the image, FNV-1a on words. */
static uint64_t sum(void)
{
	static uint64_t words[1 << 15];
	uint64_t hash = 0xcbf29ce484222325ull;
	int fd = open(image, O_RDONLY);
	ssize_t n;

	assert_true(fd >= 0);
	while ((n = read(fd, words, sizeof words)) > 0)
		for (ssize_t i = 0; i < n / 8; i++)
			hash = (hash ^ words[i]) * 0x100000001b3ull;
	close(fd);
	return hash;
}

/* Opens the image; it must fail with all of the words (ended by NULL), and leave the image as it
 * is. */
#define refused(option, value, ...)                                                                \
	refused_with((const char *[]){ option, value, NULL }, __VA_ARGS__, (char *)NULL)

static void refused_with(const char *const *options, ...)
{
	struct error err = { 0 };
	uint64_t before = sum();
	struct disk *disk = crypt_testing_disk(image, false, NULL, &err, options[0], options[1],
					       options[2], NULL);
	const char *word;
	va_list words;

	assert_null(disk);
	va_start(words, options);
	while ((word = va_arg(words, const char *)))
		if (!strstr(err.text, word))
			fail_msg("'%s' is not in: %s", word, err.text);
	va_end(words);
	assert_null(strstr(err.text, "correct horse"));
	assert_true(sum() == before);
}

static void accepted(const char *option, const char *value)
{
	struct error err = { 0 };
	uint64_t before = sum();
	struct disk *disk = crypt_testing_disk(image, false, NULL, &err, option, value, NULL);

	if (!disk)
		fail_msg("%s: %s", option, err.text);
	assert_int_equal(disk->size, SIZE);
	disk_close(disk);
	assert_true(sum() == before);
}

/* --- keys ------------------------------------------------------------------------------- */

static void reads_keys_from_files(void **unused)
{
	char path[320];
	struct error err = { 0 };
	struct disk *disk;

	(void)unused;
	restore();
	accepted("key-file", key_file);
	snprintf(path, sizeof path, "%s/other", directory);
	/* Without its newline it is another one. */
	crypt_testing_file(path, KEY, strlen(KEY) - 1);
	refused("key-file", path, "opens none", path, "newline");
	refused("key-file", "/nonesuch", "key-file", "/nonesuch", "No such file");
	/* A part of a file. */
	crypt_testing_file(path, "xxx" KEY "yyy", strlen(KEY) + 6);
	disk = crypt_testing_disk(image, false, NULL, &err, "key-file", path, "keyfile-offset", "3",
				  "keyfile-size", "14", NULL);
	assert_non_null(disk);
	disk_close(disk);
	disk = crypt_testing_disk(image, false, NULL, &err, "key-file", path, "keyfile-offset", "3",
				  "keyfile-size", "15", NULL);
	assert_null(disk);
	disk = crypt_testing_disk(image, false, NULL, &err, "key-file", path, "keyfile-size", "100",
				  NULL);
	assert_null(disk);
	assert_non_null(strstr(err.text, "keyfile-size"));
	unlink(path);
}

static void reads_keys_from_commands(void **unused)
{
	(void)unused;
	restore();
	accepted("key-command", "printf 'correct '; sleep 0.1; echo horse");
	refused("key-command", "printf 'correct horse'", "opens none");
	refused("key-command", "exit 3", "key-command", "exit status 3");
	refused("key-command", "kill -9 $$", "signal 9");
	refused("key-command", "true", "empty");
	refused("key-command", "head -c 9000000 /dev/zero", "longer than 8M");
}

static void reads_keys_from_the_keyring(void **unused)
{
	const long rings[] = { KEY_SPEC_PROCESS_KEYRING, KEY_SPEC_USER_KEYRING };
	char name[64];

	(void)unused;
	restore();
	snprintf(name, sizeof name, "penstock-test-%d", (int)getpid());
	refused("key-keyring", name, "key-keyring", name);
	for (unsigned i = 0; i < 2; i++) {
		long id = syscall(SYS_add_key, "user", name, KEY, strlen(KEY), rings[i]);

		if (id < 0) {
			print_message("# no keys here: %s\n", strerror(errno));
			skip();
		}
		accepted("key-keyring", name);
		syscall(SYS_keyctl, KEYCTL_UNLINK, id, rings[i]);
	}
}

static void wants_exactly_one_key(void **unused)
{
	struct error err = { 0 };

	(void)unused;
	restore();
	refused(NULL, NULL, "key-file", "key-command", "key-keyring");
	assert_null(crypt_testing_disk(image, false, NULL, &err, "key-file", key_file,
				       "key-command", "true", NULL));
	assert_non_null(strstr(err.text, "exactly one"));
	assert_null(crypt_testing_disk(image, false, NULL, &err, "key-command", "true",
				       "keyfile-size", "3", NULL));
	assert_non_null(strstr(err.text, "keyfile-size"));
}

static unsigned locked_kib(void)
{
	char line[200];
	unsigned kib = 0;
	FILE *status = fopen("/proc/self/status", "r");

	while (fgets(line, sizeof line, status))
		sscanf(line, "VmLck: %u", &kib);
	fclose(status);
	return kib;
}

/* Sanitizers have mlock() do nothing. */
static bool locking_works(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned before = locked_kib();
	bool works = !mlock(page, 4096) && locked_kib() > before;

	munmap(page, 4096);
	return works;
}

/* Key schedules are in locked memory while a disk is open; and this process leaves no core. */
static void keeps_keys_in(void **unused)
{
	struct error err = { 0 };
	struct disk *disk;
	unsigned locked;

	(void)unused;
	restore();
	disk = crypt_testing_disk(image, false, NULL, &err, "key-file", key_file, NULL);
	assert_non_null(disk);
	locked = locked_kib();
	disk_close(disk);
	assert_int_equal(prctl(PR_GET_DUMPABLE), 0);
	if (locking_works())
		assert_true(locked >= 4);
	else
		print_message("# no memory can be locked here\n");
}

/* --- headers ---------------------------------------------------------------------------- */

static void names_what_is_no_volume(void **unused)
{
	char noise[4096];
	int fd;

	(void)unused;
	fd = open(image, O_WRONLY | O_TRUNC);
	assert_int_equal(ftruncate(fd, 32 << 20), 0);
	refused("key-file", key_file, "no LUKS header", "penstock create crypt");
	memset(noise, 'n', sizeof noise);
	overwrite(0, noise, sizeof noise);
	refused("key-file", key_file, "no LUKS header");
	assert_int_equal(ftruncate(fd, 4096), 0);
	refused("key-file", key_file, "no LUKS header");
	close(fd);
}

static void does_without_one_of_two_headers(void **unused)
{
	char noise[4096];

	(void)unused;
	memset(noise, 'n', sizeof noise);
	restore();
	overwrite(4096, noise, sizeof noise); /* metadata of the first */
	accepted("key-file", key_file);
	restore();
	overwrite(0, noise, sizeof noise); /* all of its binary part */
	accepted("key-file", key_file);
	restore();
	overwrite(HEADER / 2, noise, sizeof noise);
	accepted("key-file", key_file);
}

static void refuses_damaged_headers(void **unused)
{
	char noise[4096];

	(void)unused;
	memset(noise, 'n', sizeof noise);
	restore();
	overwrite(4096, noise, sizeof noise);
	overwrite(HEADER / 2 + 4096, noise, sizeof noise);
	refused("key-file", key_file, "damaged", "luksHeaderRestore");
	restore();
	overwrite(HEADER, noise, sizeof noise); /* the first key slot */
	refused("key-file", key_file, "opens none");
	restore();
	assert_int_equal(truncate(image, CRYPT_TESTING_DATA), 0);
	refused("key-file", key_file, "begin at byte 16777216");
}

/* Every single byte of the first header changed, a few at a time: it opens, or says why not. */
static void survives_any_byte(void **unused)
{
	unsigned opened = 0, tries = 0;

	(void)unused;
	for (unsigned at = 0; at < 600; at += 61) {
		struct error err = { 0 };
		char bytes[2] = { (char)(at * 31), (char)~at };
		uint64_t before;
		struct disk *disk;

		restore();
		overwrite(at, bytes, 2);
		overwrite(HEADER / 2 + at, bytes, 2);
		before = sum();
		disk = crypt_testing_disk(image, false, NULL, &err, "key-file", key_file, NULL);
		assert_true(disk || *err.text);
		assert_true(sum() == before);
		opened += disk != NULL;
		tries++;
		disk_close(disk);
	}
	/* Checksums find nearly all. */
	assert_true(opened < tries / 4);
}

/* --- foreign volumes ----------------------------------------------------------------------- */

/* As cryptsetup would make them. */
static void make_foreign(const char *type, size_t key_size, uint32_t sector_size)
{
	const struct crypt_pbkdf_type pbkdf = { .type = "pbkdf2",
						.hash = "sha256",
						.iterations = 1000,
						.flags = CRYPT_PBKDF_NO_BENCHMARK };
	struct crypt_params_luks2 params = { .pbkdf = &pbkdf, .sector_size = sector_size };
	struct crypt_params_luks1 old = { .hash = "sha256" };
	struct crypt_device *device;
	int fd = open(image, O_WRONLY | O_TRUNC);

	assert_int_equal(ftruncate(fd, CRYPT_TESTING_DATA + SIZE), 0);
	close(fd);
	assert_int_equal(crypt_init(&device, image), 0);
	assert_int_equal(crypt_set_data_offset(device, CRYPT_TESTING_DATA / 512), 0);
	if (!strcmp(type, CRYPT_LUKS1))
		assert_int_equal(crypt_set_pbkdf_type(device, &pbkdf), 0);
	assert_true(crypt_format(device, type, "aes", "xts-plain64", NULL, NULL, key_size,
				 strcmp(type, CRYPT_LUKS1) ? (void *)&params : (void *)&old) >= 0);
	assert_true(crypt_keyslot_add_by_volume_key(device, CRYPT_ANY_SLOT, NULL, 0, KEY,
						    strlen(KEY)) >= 0);
	crypt_free(device);
}

/*
 * Puts @to in the place of the first @from behind @after in the metadata of both headers, and makes
 * their checksums right again. The text after it moves; at the end of the area there are zeroes.
 */
static void edit(const char *after, const char *from, const char *to)
{
	static unsigned char header[HEADER / 2], changed[HEADER / 2];
	unsigned length;
	int fd = open(image, O_RDWR);

	for (unsigned copy = 0; copy < 2; copy++) {
		char *json = (char *)header + 4096, *at;
		size_t head;

		assert_int_equal(pread(fd, header, sizeof header, copy * sizeof header),
				 sizeof header);
		at = strstr(strstr(json, after), from);
		assert_non_null(at);
		head = (size_t)(at - (char *)header);
		memset(changed, 0, sizeof changed);
		memcpy(changed, header, head);
		strcpy((char *)changed + head, to);
		strcpy((char *)changed + head + strlen(to), at + strlen(from));
		memset(changed + 448, 0, 64);
		assert_int_equal(EVP_Digest(changed, sizeof changed, changed + 448, &length,
					    EVP_sha256(), NULL),
				 1);
		assert_int_equal(pwrite(fd, changed, sizeof changed, copy * sizeof header),
				 sizeof changed);
	}
	close(fd);
}

static void takes_what_dm_crypt_could(void **unused)
{
	(void)unused;
	make_foreign(CRYPT_LUKS2, 32, 512);
	accepted("key-file", key_file);
	make_foreign(CRYPT_LUKS1, 64, 512);
	accepted("key-file", key_file);
	restore();
	edit("segments", "dynamic", "65536");
	accepted("key-file", key_file);
}

static void names_what_it_cannot_take(void **unused)
{
	(void)unused;
	make_foreign(CRYPT_LUKS2, 64, 4096);
	refused("key-file", key_file, "4096", "block-size");
	restore();
	edit("segments", "aes-xts-plain64", "aes-cbc-essiv:sha256");
	refused("key-file", key_file, "aes-cbc-essiv:sha256", "aes-xts-plain64");
	restore();
	edit("segments", "aes-xts-plain64", "serpent-xts-plain64");
	refused("key-file", key_file, "serpent-xts-plain64");
	restore();
	edit("segments", "dynamic", "131072");
	refused("key-file", key_file, "131072", "room for 65536");
	restore();
	edit("keyslots_size\":\"16744448\"", "16744448\"",
	     "16744448\",\"requirements\":{\"mandatory\":[\"something-new\"]}");
	refused("key-file", key_file, "requires");
}

/* A number that is added to that of each sector. */
static void honours_the_offset_of_sectors(void **unused)
{
	unsigned char bytes[512], below[512], other[512];
	struct error err = { 0 };
	struct disk *disk;
	int fd;

	(void)unused;
	restore();
	memset(bytes, 'o', sizeof bytes);
	for (unsigned shifted = 0; shifted < 2; shifted++) {
		if (shifted)
			edit("segments", "iv_tweak\":\"0", "iv_tweak\":\"5");
		disk = crypt_testing_disk(image, false, NULL, &err, "key-file", key_file, NULL);
		assert_non_null(disk);
		assert_int_equal(testing_io(disk, LOOP_AUTO, IO_WRITE, 0, shifted ? 0 : 5 * 512,
					    sizeof bytes, bytes),
				 0);
		disk_close(disk);
	}
	/* Sector 0 is now encrypted as sector 5 was before. */
	fd = open(image, O_RDONLY);
	assert_int_equal(pread(fd, below, 512, CRYPT_TESTING_DATA + 5 * 512), 512);
	assert_int_equal(pread(fd, other, 512, CRYPT_TESTING_DATA), 512);
	close(fd);
	assert_memory_equal(below, other, sizeof below);
}

/* --- other options for a disk in use -------------------------------------------------------- */

/* As change.c does it; nothing is inside the disk. False: it was refused, with @err. */
static bool change_options(struct disk *disk, const char *option, const char *value, bool commit,
			   struct error *err)
{
	struct layer *layer = disk->top;
	struct layer_setting setting = { (char *)option, (char *)value, 0 };
	struct layer_config config = { .ops = layer->ops, .settings = &setting, .count = 1 };
	struct layer *options = stack_options(&config, NULL, err);
	const struct layer_plan plan = { .options = options, .below = layer->below };
	bool done = !layer->ops->prepare(layer, &plan, err);

	if (done && commit) {
		options_move(layer->ops->options, layer, options);
		layer->ops->commit(layer);
	} else if (done) {
		layer->ops->abandon(layer);
	}
	stack_options_free(options);
	return done;
}

static void takes_another_key_while_in_use(void **unused)
{
	struct error err = { 0 };
	char first[4096], now[4096], other[320];
	struct disk *disk;

	(void)unused;
	restore();
	disk = crypt_testing_disk(image, false, NULL, &err, "key-file", key_file, NULL);
	assert_non_null(disk);
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_READ, 0, 0, sizeof first, first), 0);
	snprintf(other, sizeof other, "%s/other", directory);
	crypt_testing_file(other, "wrong", 5);
	assert_false(change_options(disk, "key-file", other, true, &err));
	assert_non_null(strstr(err.text, "opens none"));
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_READ, 0, 0, sizeof now, now), 0);
	assert_memory_equal(now, first, sizeof now);
	crypt_testing_file(other, KEY, strlen(KEY));
	for (unsigned commit = 0; commit < 2; commit++) {
		assert_true(change_options(disk, "key-file", other, commit, &err));
		assert_int_equal(testing_io(disk, LOOP_AUTO, IO_READ, 0, 0, sizeof now, now), 0);
		assert_memory_equal(now, first, sizeof now);
	}
	/* The source is the same: it is not asked again. */
	unlink(other);
	assert_true(change_options(disk, "key-file", other, true, &err));
	assert_int_equal(testing_io(disk, LOOP_AUTO, IO_READ, 0, 0, sizeof now, now), 0);
	assert_memory_equal(now, first, sizeof now);
	disk_close(disk);
}

/* --- making ----------------------------------------------------------------------------- */

static void makes_nothing_without_room_or_key(void **unused)
{
	struct error err = { 0 };
	struct crypt_format format = { .source.file = key_file };
	struct layer *below;
	char first[4096] = { 0 }, zero[4096] = { 0 };
	int fd;

	(void)unused;
	unlink(image);
	below = crypt_testing_image(image, 1 << 20, 4096, &err);
	assert_non_null(below);
	assert_int_equal(crypt_volume_create(&format, below, &err), -ENOSPC);
	stack_close(below);
	below = crypt_testing_image(image, 32 << 20, 4096, &err);
	assert_non_null(below);
	format.source.file = (char *)"/nonesuch";
	assert_int_equal(crypt_volume_create(&format, below, &err), -ENOENT);
	stack_close(below);
	fd = open(image, O_RDONLY);
	assert_int_equal(read(fd, first, sizeof first), sizeof first);
	close(fd);
	assert_memory_equal(first, zero, sizeof first);
}

static int prepare(void **unused)
{
	struct error err = { 0 };
	int fd;

	(void)unused;
	testing_directory(directory);
	snprintf(key_file, sizeof key_file, "%s/key", directory);
	snprintf(image, sizeof image, "%s/image", directory);
	snprintf(whole, sizeof whole, "%s/whole", directory);
	crypt_testing_file(key_file, KEY, strlen(KEY));
	fd = open(image, O_CREAT | O_WRONLY, 0600);
	close(fd);
	if (!crypt_testing_make(whole, SIZE, false, key_file, &err))
		return 0;
	print_error("%s\n", err.text);
	return -1;
}

static int clean_up(void **unused)
{
	(void)unused;
	unlink(image);
	unlink(whole);
	unlink(key_file);
	rmdir(directory);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_keys_from_files),
		cmocka_unit_test(reads_keys_from_commands),
		cmocka_unit_test(reads_keys_from_the_keyring),
		cmocka_unit_test(wants_exactly_one_key),
		cmocka_unit_test(keeps_keys_in),
		cmocka_unit_test(names_what_is_no_volume),
		cmocka_unit_test(does_without_one_of_two_headers),
		cmocka_unit_test(refuses_damaged_headers),
		cmocka_unit_test(survives_any_byte),
		cmocka_unit_test(takes_what_dm_crypt_could),
		cmocka_unit_test(names_what_it_cannot_take),
		cmocka_unit_test(honours_the_offset_of_sectors),
		cmocka_unit_test(takes_another_key_while_in_use),
		cmocka_unit_test(makes_nothing_without_room_or_key),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("crypt_volume", tests, prepare, clean_up);
}
