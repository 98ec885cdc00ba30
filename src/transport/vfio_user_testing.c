/* SPDX-License-Identifier: BSD-3-Clause */
/* vfio_user_testing.c - the server and the client of the tests; see vfio_user_testing.h */
#include "transport/vfio_user_testing.h"

#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "frontend/device.h"
#include "loop/loop.h"
#include "memory/memory.h"
#include "transport/transport.h"
#include "util/error.h"
#include "util/log.h"

static struct loop *control, *loops[1];
static char directory[64];

struct served served[DEVICES];
struct vfu_client client;

/* --- the server --------------------------------------------------------------------- */

/* Something to do on the control thread, while the test waits. */
struct errand {
	struct loop_message message;
	void (*run)(struct errand *errand);
	struct served *on;
	sem_t done;
};

static void run_errand(struct loop_message *message)
{
	struct errand *errand = container_of(message, struct errand, message);

	errand->run(errand);
}

static void on_control(void (*run)(struct errand *errand), struct served *on)
{
	struct errand errand = { .message.run = run_errand, .run = run, .on = on };

	sem_init(&errand.done, 0, 0);
	loop_send(control, &errand.message);
	sem_wait(&errand.done);
	sem_destroy(&errand.done);
}

static void open_server(struct errand *errand)
{
	struct transport_loops where = { control, loops, 1, 0 };
	struct error err = { 0 };

	errand->on->device = testing_create("testing0", errand->on->path, &err);
	assert_non_null(errand->on->device);
	errand->on->server = vfio_user_transport.listen(errand->on->device, &where, &err);
	assert_non_null(errand->on->server);
	sem_post(&errand->done);
}

static void closed(void *data)
{
	struct errand *errand = data;

	errand->on->device->ops->destroy(errand->on->device);
	sem_post(&errand->done);
}

static void close_server(struct errand *errand)
{
	vfio_user_transport.close(errand->on->server, closed, errand);
}

void open_served(struct served *s)
{
	on_control(open_server, s);
}

void close_served(struct served *s)
{
	on_control(close_server, s);
}

struct seen seen;

static void look(struct errand *errand)
{
	const struct device *device = errand->on->device;

	seen.connected = device->connected;
	seen.broken = device->broken;
	memcpy(seen.reason, device->reason, sizeof seen.reason);
	seen.accesses = stats_read(&device->stats[0].accesses);
	seen.interrupts = stats_read(&device->stats[0].interrupts);
	sem_post(&errand->done);
}

void see(void)
{
	on_control(look, &served[0]);
}

static struct loop *make_loop(const char *name, enum loop_engine engine)
{
	struct loop_config config = {
		.name = name, .engine = engine, .cpu = -1, .poll_limit = 50000
	};
	struct error err = { 0 };
	struct loop *loop = loop_create(&config, &err);

	assert_non_null(loop);
	assert_int_equal(loop_start(loop, &err), 0);
	return loop;
}

int start_all(void **state)
{
	const char *temporary = getenv("TMPDIR");

	(void)state;
	log_set_level(getenv("VERBOSE") ? LOG_DEBUG : LOG_ERROR);
	snprintf(directory, sizeof directory, "%s/penstock-XXXXXX", temporary ? temporary : "/tmp");
	assert_non_null(mkdtemp(directory));
	control = make_loop("control", LOOP_THREADS);
	loops[0] = make_loop("functions", LOOP_AUTO);
	for (unsigned i = 0; i < DEVICES; i++) {
		snprintf(served[i].path, sizeof served[i].path, "%s/%u", directory, i);
		open_served(&served[i]);
	}
	return 0;
}

int stop_all(void **state)
{
	(void)state;
	for (unsigned i = 0; i < DEVICES; i++)
		close_served(&served[i]);
	loop_stop(loops[0]);
	loop_stop(control);
	loop_destroy(loops[0]);
	loop_destroy(control);
	return rmdir(directory);
}

int connect_client(void **state)
{
	(void)state;
	return vfu_open(&client, served[0].path);
}

int disconnect_client(void **state)
{
	(void)state;
	vfu_disconnect(&client);
	return 0;
}

/* --- memory, and transfers ---------------------------------------------------------- */

char *ram;
int ram_fd;

int connect_with_ram(void **state)
{
	ram = vfu_memory(RAM, &ram_fd);
	for (unsigned i = 0; ram && i < RAM; i++)
		ram[i] = (char)(i % 251 + 1);
	return ram ? connect_client(state) : -1;
}

int disconnect_with_ram(void **state)
{
	munmap(ram, RAM);
	close(ram_fd);
	return disconnect_client(state);
}

void start_transfer(uint64_t address, uint32_t length, bool to_guest)
{
	assert_int_equal(vfu_put(&client, 0, TESTING_ADDRESS, 8, address), 0);
	assert_int_equal(vfu_put(&client, 0, TESTING_LENGTH, 4, length), 0);
	assert_int_equal(vfu_put(&client, 0, TESTING_START, 4, to_guest), 0);
}

int transfer(uint64_t address, uint32_t length, bool to_guest)
{
	uint64_t status;

	start_transfer(address, length, to_guest);
	for (unsigned i = 0; i < 1000; i++) {
		status = vfu_get(&client, 0, TESTING_STATUS, 4);
		if (status != TESTING_BUSY)
			return (int)status;
		vfu_serve(&client, 1);
	}
	return -ETIMEDOUT;
}
