/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * queues_test.c - one target with queues on two loops, two adapters on one disk, a control loop:
 * what has to hold between threads
 *
 * Guests are threads of plain code: each sends a command to its queue's loop and waits for it.
 */
#include <errno.h>
#include <semaphore.h>
#include <unistd.h>

#include "frontend/scsi/scsi_testing.h"

static struct loop *loops[2], *control;
static struct adapter a, b;
static struct scsi_queue *queues[2], *queue_b;
static struct disk *disk;

/* --- a disk on which each request is atomic, as sectors of hardware are ---------------- */

static uint8_t sectors[1u << 20];
static pthread_mutex_t sectors_lock = PTHREAD_MUTEX_INITIALIZER;

static void atomic_limits(struct layer *layer, struct limits *limits)
{
	(void)layer;
	limits->size = sizeof sectors;
	limits->block_size = limits->physical_block_size = 512;
}

static void atomic_submit(struct layer *layer, struct io *io)
{
	(void)layer;
	pthread_mutex_lock(&sectors_lock);
	if (io->op == IO_READ)
		io_data_copy_in(io->data, sectors + io->offset, io->length);
	else if (io->op == IO_WRITE)
		io_data_copy_out(io->data, sectors + io->offset, io->length);
	pthread_mutex_unlock(&sectors_lock);
	io_finish(io, 0);
}

static const struct layer_ops atomic_ops = {
	.name = "atomic",
	.size = sizeof(struct layer),
	.backend = true,
	.limits = atomic_limits,
	.submit = atomic_submit,
};

/* --- something done on a loop, waited for --------------------------------------------- */

struct call {
	struct loop_message message;
	void (*act)(struct call *call);
	sem_t done;
	void *with;
	unsigned index;
	struct scsi_command command;
	struct scsi_task_request request;
	struct device_change change;
	struct iovec out, in;
};

static void run_call(struct loop_message *message)
{
	struct call *call = container_of(message, struct call, message);

	call->act(call);
}

static void wait_for(struct call *call)
{
	struct timespec limit;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 30;
	if (sem_timedwait(&call->done, &limit))
		abort(); /* it never came back */
	sem_destroy(&call->done);
}

static void send_call(struct loop *loop, struct call *call, void (*act)(struct call *call))
{
	sem_init(&call->done, 0, 0);
	call->act = act;
	call->message.run = run_call;
	loop_send(loop, &call->message);
}

static void on_loop(struct loop *loop, struct call *call, void (*act)(struct call *call))
{
	send_call(loop, call, act);
	wait_for(call);
}

/* --- commands ----------------------------------------------------------------------- */

static void command_done(struct scsi_command *command)
{
	sem_post(&((struct call *)command->owner)->done);
}

static void execute(struct call *call)
{
	scsi_execute(call->with, &call->command);
}

static void prepare(struct call *call, struct scsi_queue *queue, unsigned lun, const uint8_t *cdb,
		    size_t length, void *out, size_t out_length, void *in, size_t in_length)
{
	*call = (struct call){ .with = queue };
	memcpy(call->command.cdb, cdb, length);
	call->command.cdb_length = (uint8_t)length;
	call->command.lun = (uint64_t)lun << 48;
	call->out = (struct iovec){ out, out_length };
	call->in = (struct iovec){ in, in_length };
	call->command.out = (struct io_data){ .vec = &call->out, .count = 1 };
	call->command.in = (struct io_data){ .vec = &call->in, .count = 1 };
	call->command.out_length = out_length;
	call->command.in_length = in_length;
	call->command.done = command_done;
	call->command.owner = call;
}

/* A command's result, as run_result() has it. */
static uint32_t result(const struct scsi_command *c)
{
	const uint8_t *s = c->sense;

	return c->no_target ? 0xff000000
	       : c->status != SCSI_CHECK_CONDITION
		       ? (uint32_t)c->status << 24
		       : 0x02000000u | (uint32_t)(s[2] & 15) << 16 | (uint32_t)s[12] << 8 | s[13];
}

static uint32_t run(struct scsi_queue *queue, unsigned lun, const uint8_t *cdb, size_t length,
		    void *out, size_t out_length, void *in, size_t in_length)
{
	struct call call;

	prepare(&call, queue, lun, cdb, length, out, out_length, in, in_length);
	on_loop(queue->loop, &call, execute);
	return result(&call.command);
}

static uint32_t run_retry(struct scsi_queue *queue, unsigned lun, const uint8_t *cdb, size_t length,
			  void *out, size_t out_length, void *in, size_t in_length)
{
	uint32_t got;

	do /* a unit attention is told once */
		got = run(queue, lun, cdb, length, out, out_length, in, in_length);
	while ((got & 0xffff0000) == 0x02060000);
	return got;
}

/* --- start and stop ------------------------------------------------------------------- */

static void open_queue(struct call *call)
{
	struct adapter *adapter = call->with;
	struct scsi_queue *queue = scsi_queue_open(adapter->target, call->index, loop_self(), 8);

	if (adapter == &a)
		queues[call->index] = queue;
	else
		queue_b = queue;
	sem_post(&call->done);
}

static void close_queue(struct call *call)
{
	scsi_queue_close(call->with);
	sem_post(&call->done);
}

static void make_target(struct call *call)
{
	struct adapter *adapter = call->with;
	struct error err = { 0 };

	adapter->target = scsi_target_create(&adapter->device, ADAPTER_QUEUES, &adapter_events,
					     adapter, &err);
	adapter_add(adapter, 0, 0, disk);
	sem_post(&call->done);
}

static void destroy_target(struct call *call)
{
	scsi_target_destroy(((struct adapter *)call->with)->target);
	sem_post(&call->done);
}

static struct loop *make_loop(const char *name)
{
	struct loop_config config = { .name = name, .engine = LOOP_AUTO, .cpu = -1 };
	struct loop *loop = loop_create(&config, NULL);

	if (!loop || loop_start(loop, NULL))
		abort();
	return loop;
}

static void make_adapter(struct adapter *adapter, const char *vm)
{
	struct call call = { .with = adapter };
	struct error err = { 0 };

	*adapter = (struct adapter){ .plan = { .vm = vm, .name = "scsi0", .socket = "" } };
	adapter->device.kind = "testing";
	if (device_init(&adapter->device, &adapter->plan, ADAPTER_UNITS, ADAPTER_QUEUES, &err))
		abort();
	on_loop(control, &call, make_target);
}

static int start(void **unused)
{
	struct layer_config stack = { .ops = &atomic_ops };

	(void)unused;
	disk = testing_open("d", &(struct disk_config){ 0 }, &stack, 1, NULL, NULL);
	assert_non_null(disk);
	control = make_loop("control");
	loops[0] = make_loop("loop0");
	loops[1] = make_loop("loop1");
	make_adapter(&a, "vm1");
	make_adapter(&b, "vm2");
	for (unsigned i = 0; i < 2; i++) {
		struct call call = { .with = &a, .index = i };

		on_loop(loops[i], &call, open_queue);
	}
	on_loop(loops[1], &(struct call){ .with = &b }, open_queue);
	run_retry(queues[0], 0, CDB(0, 0, 0, 0, 0, 0), NO_DATA);
	run_retry(queue_b, 0, CDB(0, 0, 0, 0, 0, 0), NO_DATA);
	return 0;
}

static int stop(void **unused)
{
	struct call call = { .with = queues[0] };

	(void)unused;
	on_loop(loops[0], &call, close_queue);
	on_loop(loops[1], &(struct call){ .with = queues[1] }, close_queue);
	on_loop(loops[1], &(struct call){ .with = queue_b }, close_queue);
	on_loop(control, &(struct call){ .with = &a }, destroy_target);
	on_loop(control, &(struct call){ .with = &b }, destroy_target);
	for (unsigned i = 0; i < 2; i++) {
		loop_stop(loops[i]);
		loop_destroy(loops[i]);
	}
	loop_stop(control);
	loop_destroy(control);
	device_release(&a.device);
	device_release(&b.device);
	disk_close(disk);
	return 0;
}

/* --- COMPARE AND WRITE against writes -------------------------------------------------- */

/* A block says who wrote it last, and how often it was incremented since. */
struct block {
	uint64_t writer, count;
	uint8_t rest[496];
};

static atomic_bool over;

/* Increments by COMPARE AND WRITE; how often that succeeded. */
static void *increment(void *with)
{
	struct block pair[2] = { 0 };
	uintptr_t done = 0;

	while (!atomic_load(&over)) {
		uint32_t got =
			run(with, 0, CDB(0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0), NULL, 0, pair, 512);

		if (got)
			abort();
		pair[1] = pair[0];
		pair[1].count++;
		got = run(with, 0, CDB(0x89, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0), pair,
			  1024, NULL, 0);
		if (got != 0 && got != 0x020e1d00)
			abort();
		done += !got;
	}
	return (void *)done;
}

static void compare_and_write_is_atomic(void **unused)
{
	struct scsi_queue *with[3] = { queues[0], queues[1], queues[1] };
	pthread_t threads[3];
	struct block block = { 0 };
	uintptr_t increments = 0;
	unsigned failed = 0, lost = 0;

	(void)unused;
	atomic_store(&over, false);
	for (unsigned i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, increment, with[i]);
	for (uint64_t n = 1; n <= 1500; n++) {
		struct scsi_queue *queue = queues[n % 2];

		block = (struct block){ .writer = n };
		failed += run(queue, 0, CDB(0x2a, 0, 0, 0, 0, 9, 0, 0, 1, 0), &block, 512, NULL, 0);
		failed += run(queue, 0, CDB(0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0), NULL, 0, &block, 512);
		lost += block.writer != n; /* an increment has put an older one back */
		if (n % 4 == 0)
			usleep(200); /* so that increments succeed too */
	}
	atomic_store(&over, true);
	for (unsigned i = 0; i < 3; i++) {
		void *done;

		pthread_join(threads[i], &done);
		increments += (uintptr_t)done;
	}
	assert_int_equal(failed, 0);
	assert_int_equal(lost, 0);
	assert_true(increments > 0);
	assert_false(queues[0]->ports[0].writes_held || queues[1]->ports[0].writes_held);
}

/* Without other writes nothing is lost: through two queues and another VM's adapter. */
static void increments_add_up(void **unused)
{
	struct scsi_queue *with[3] = { queues[0], queues[1], queue_b };
	pthread_t threads[3];
	struct block block = { 0 };
	uint64_t total = 0;

	(void)unused;
	atomic_store(&over, false);
	assert_int_equal(
		run(queues[0], 0, CDB(0x2a, 0, 0, 0, 0, 9, 0, 0, 1, 0), &block, 512, NULL, 0), 0);
	for (unsigned i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, increment, with[i]);
	usleep(300000);
	atomic_store(&over, true);
	for (unsigned i = 0; i < 3; i++) {
		void *done;

		pthread_join(threads[i], &done);
		total += (uintptr_t)done;
	}
	assert_int_equal(
		run(queues[0], 0, CDB(0x28, 0, 0, 0, 0, 9, 0, 0, 1, 0), NULL, 0, &block, 512), 0);
	assert_true(total > 0);
	assert_int_equal(block.count, total);
}

/* --- units that change under traffic --------------------------------------------------- */

static atomic_uint odd;

static void *traffic(void *with)
{
	uint8_t bytes[1024];

	while (!atomic_load(&over)) {
		uint32_t got = run(with, 1, CDB(0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0), NULL, 0, bytes,
				   sizeof bytes);

		/* good, not there, or a reason to look again; no medium */
		if (got && got != 0x02052500 && got >> 16 != 0x0206 && got >> 8 != 0x02023a &&
		    got != 0xff000000)
			atomic_fetch_add(&odd, 1);
	}
	return NULL;
}

static void change_done(struct device_change *change)
{
	sem_post(&((struct call *)change->owner)->done);
}

static void add_unit(struct call *call)
{
	struct scsi_unit_settings settings = { 0 };
	struct error err = { 0 };

	options_init(scsi_unit_options, &settings);
	settings.lun = 1;
	settings.type = 2;
	if (scsi_unit_add(a.target, 1, &settings, call->with, &err))
		abort();
	sem_post(&call->done);
}

static void set_disk(struct call *call)
{
	call->change = (struct device_change){ .done = change_done, .owner = call };
	scsi_unit_set_disk(a.target, 1, call->with, &call->change);
}

static void remove_unit(struct call *call)
{
	call->change = (struct device_change){ .done = change_done, .owner = call };
	scsi_unit_remove(a.target, 1, &call->change);
}

static int change_with(void (*act)(struct call *call), struct disk *with)
{
	struct call call = { .with = with };

	on_loop(control, &call, act);
	return call.change.status;
}

static void units_change_under_traffic(void **unused)
{
	struct disk *media[2] = { adapter_disk("m0", "1M", NULL), adapter_disk("m1", "2M", NULL) };
	pthread_t threads[2];

	(void)unused;
	atomic_store(&over, false);
	atomic_store(&odd, 0);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, traffic, queues[i]);
	for (unsigned round = 0; round < 40; round++) {
		int ret;

		change_with(add_unit, media[0]);
		/* Changed at once: refused while the unit is still coming. */
		while ((ret = change_with(set_disk, media[1])))
			assert_int_equal(ret, -EBUSY);
		disk_close(media[0]); /* nobody uses it */
		media[0] = adapter_disk("m0", "1M", NULL);
		assert_int_equal(change_with(set_disk, NULL), 0);
		assert_int_equal(change_with(set_disk, media[0]), 0);
		assert_int_equal(change_with(remove_unit, NULL), 0);
	}
	atomic_store(&over, true);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(atomic_load(&odd), 0);
	disk_close(media[0]);
	disk_close(media[1]);
}

/* --- task management over all queues ---------------------------------------------------- */

static void managed(struct scsi_task_request *request)
{
	sem_post(&((struct call *)request->owner)->done);
}

static void manage(struct call *call)
{
	call->request.done = managed;
	call->request.owner = call;
	scsi_task_manage(call->with, &call->request);
}

static void *writes(void *with)
{
	uint8_t bytes[512] = { 0 };

	while (!atomic_load(&over))
		run(with, 0, CDB(0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0), bytes, 512, NULL, 0);
	return NULL;
}

static void resets_under_traffic(void **unused)
{
	pthread_t threads[3];

	(void)unused;
	atomic_store(&over, false);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, writes, queues[i]);
	pthread_create(&threads[2], NULL, writes, queue_b);
	for (unsigned i = 0; i < 200; i++) {
		struct call call = { .with = queues[i % 2] };

		call.request.function = i % 3 == 0   ? SCSI_ABORT_TASK_SET
					: i % 3 == 1 ? SCSI_LOGICAL_UNIT_RESET
						     : SCSI_BUS_RESET;
		on_loop(loops[i % 2], &call, manage);
		assert_int_equal(call.request.response, SCSI_FUNCTION_COMPLETE);
	}
	atomic_store(&over, true);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

/* --- PREEMPT AND ABORT: what the other VM has under way is over before it is done -------- */

static uint32_t reserve_out(struct scsi_queue *queue, uint8_t action, uint8_t type, uint64_t key,
			    uint64_t action_key)
{
	uint8_t list[24] = { 0 };

	put64(list, key);
	put64(list + 8, action_key);
	return run_retry(queue, 0, CDB(0x5f, action, type, 0, 0, 0, 0, 0, 24, 0), list, 24, NULL,
			 0);
}

static void fencing(void **unused)
{
	pthread_t threads[2];

	(void)unused;
	atomic_store(&over, false);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, writes, queues[i]);
	for (unsigned i = 0; i < 50; i++) {
		uint8_t bytes[512], back[512];

		assert_int_equal(reserve_out(queues[0], 6, 0, 0, 1), 0);
		assert_int_equal(reserve_out(queues[0], 1, 5, 1, 0), 0);
		assert_int_equal(reserve_out(queue_b, 6, 0, 0, 2), 0);
		assert_int_equal(reserve_out(queue_b, 5, 5, 2, 1), 0);
		/* The other one's writes do not arrive any more. */
		memset(bytes, (int)i + 1, sizeof bytes);
		assert_int_equal(
			run(queue_b, 0, CDB(0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0), bytes, 512, NULL, 0),
			0);
		usleep(500);
		assert_int_equal(
			run(queue_b, 0, CDB(0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0), NULL, 0, back, 512),
			0);
		assert_memory_equal(bytes, back, 512);
		assert_int_equal(reserve_out(queue_b, 3, 0, 2, 0), 0);
	}
	atomic_store(&over, true);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
}

/* --- a disk that must stay on one loop, where there are two ------------------------------ */

static struct layer_ops single_ops;

static void add_single(struct call *call)
{
	struct scsi_unit_settings settings = { .lun = 1 };
	struct disk *single = call->with;
	struct error err = { 0 };

	single_ops = *single->top->ops;
	single_ops.single_loop = true;
	single->top->ops = &single_ops;
	call->change.status = scsi_unit_add(a.target, 1, &settings, single, &err);
	assert_non_null(strstr(err.text, "one loop"));
	assert_false(scsi_target_single_loop(a.target));
	sem_post(&call->done);
}

static void one_loop_only(void **unused)
{
	struct disk *single = adapter_disk("single", "1M", NULL);

	(void)unused;
	assert_int_equal(change_with(add_single, single), -EINVAL);
	disk_close(single);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(compare_and_write_is_atomic),
		TEST(increments_add_up),
		TEST(units_change_under_traffic),
		TEST(resets_under_traffic),
		TEST(fencing),
		TEST(one_loop_only),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests_name("scsi/queues", tests, NULL, NULL);
}
