/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * daemon.c - start-up and shutdown
 *
 * This thread runs the control loop; the loops that serve queues have threads of their
 * own. Start-up is the control loop's first message: loops, disks, switches, devices, uplinks,
 * sockets, exports, API, in this order, and only then are we ready. There is one way down, whether
 * a signal came or starting failed half way: what is in flight drains, then everything is closed in
 * the reverse order. So nothing starts half. Whatever must end before anything is closed (a server,
 * a disk that is being opened, a change of a unit) holds the daemon.
 *
 * Signals are blocked, and read from a descriptor that the control loop watches.
 */
#include "control/daemon.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "control/api.h"
#include "control/config.h"
#include "control/exports.h"
#include "control/moves.h"
#include "control/networks.h"
#include "control/notify.h"
#include "control/records.h"
#include "control/state.h"
#include "frontend/device.h"
#include "layer/disk.h"
#include "loop/workers.h"
#include "memory/memory.h"
#include "packet/port.h"
#include "packet/vswitch.h"
#include "transport/transport.h"
#include "util/error.h"
#include "util/log.h"
#include "util/must.h"

/* --- start-up, in the order of events ----------------------------------------------- */

/* The engine that all loops shall have, so that there is one answer and one line of log. */
static enum loop_engine choose_engine(const struct config *config)
{
	struct error why = { 0 };

	if (config->engine != LOOP_AUTO)
		return (enum loop_engine)config->engine;
	if (loop_uring_permitted(&why))
		return LOOP_URING;
	log_info("io_uring cannot be used here (%s): using threads", why.text);
	return LOOP_THREADS;
}

static int check_cpus(const char *list, const unsigned *cpus, unsigned count,
		      const cpu_set_t *allowed, struct error *err)
{
	for (unsigned i = 0; i < count; i++)
		if (!CPU_ISSET(cpus[i], allowed))
			return error_set(err, EINVAL,
					 "cpus: '%s': there is no core %u for this process; "
					 "expected cores that it may run on",
					 list, cpus[i]);
	return 0;
}

static int start_loops(struct daemon *d, struct error *err)
{
	const struct config *config = d->config;
	unsigned cpus[CONFIG_CPUS], cpu_count = 0, count = (unsigned)config->loops;
	struct loop_config loop = { .engine = choose_engine(config),
				    .poll_limit = config->poll * 1000 };
	cpu_set_t allowed;
	char name[16];

	if (sched_getaffinity(0, sizeof allowed, &allowed))
		return error_set(err, errno, "sched_getaffinity: %s", strerror(errno));
	if (config->cpus)
		cpu_count = config_cpus(config->cpus, cpus);
	if (check_cpus(config->cpus, cpus, cpu_count, &allowed, err))
		return -err->code;
	if (!count)
		count = cpu_count ? cpu_count : (unsigned)CPU_COUNT(&allowed);

	d->loops = must(calloc(count, sizeof *d->loops));
	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof name, "loop-%u", i);
		loop.name = name;
		loop.cpu = cpu_count ? (int)cpus[i % cpu_count] : -1;
		d->loops[i] = loop_create(&loop, err);
		if (!d->loops[i] || loop_start(d->loops[i], err)) {
			loop_destroy(d->loops[i]);
			return -err->code;
		}
		d->loop_count++;
	}
	log_info("penstock " PENSTOCK_VERSION ": %u loop%s, %s", count, count == 1 ? "" : "s",
		 loop_engine_name(d->loops[0]));
	return 0;
}

void daemon_start_disk(struct daemon *daemon, struct disk *disk)
{
	disk_start(disk, daemon->loops[daemon->next_home++ % daemon->loop_count]);
}

static int open_disks(struct daemon *d, struct error *err)
{
	d->disks = must(calloc(d->config->disk_count + 1, sizeof *d->disks));
	for (unsigned i = 0; i < d->config->disk_count; i++) {
		const struct config_disk *config = &d->config->disks[i];
		unsigned line = 0;

		d->disks[i] = disk_open(config->name, &config->config, &config->stack, &line, err);
		if (!d->disks[i] && d->config->file && line)
			return error_prefix(err, "%s:%u: disk '%s'", d->config->file, line,
					    config->name);
		if (!d->disks[i])
			return error_prefix(err, "disk '%s'", config->name);
		if (!record_add(d, d->disks[i]))
			must(NULL);
		d->disk_count++;
		daemon_start_disk(d, d->disks[i]);
	}
	return 0;
}

static struct device *create_device(struct daemon *d, const struct config_vm *vm,
				    const struct config_device *config, struct error *err)
{
	struct unit_plan *units = must(calloc(config->count + 1, sizeof *units));
	struct nic_plan nic;
	struct device_plan plan = {
		.vm = vm->name,
		.name = config->name,
		.socket = config->socket,
		.settings = config->settings,
		.units = units,
		.count = config->count,
	};
	struct device *device;

	for (unsigned i = 0; i < config->count; i++) {
		const struct config_unit *unit = &config->units[i];

		units[i].settings = unit->settings;
		units[i].disk = unit->disk == CONFIG_NO_DISK ? NULL : d->disks[unit->disk];
		if (unit->nic != CONFIG_NO_NIC) {
			nic = networks_plan(d, unit->nic);
			units[i].nic = &nic;
		}
	}
	device = config->frontend->create(&plan, err);
	free(units);
	return device;
}

static int create_devices(struct daemon *d, struct error *err)
{
	unsigned count = 0;

	for (unsigned v = 0; v < d->config->vm_count; v++)
		count += d->config->vms[v].count;
	d->devices = must(calloc(count + 1, sizeof *d->devices));
	for (unsigned v = 0; v < d->config->vm_count; v++) {
		const struct config_vm *vm = &d->config->vms[v];

		for (unsigned i = 0; i < vm->count; i++) {
			struct daemon_device *slot = &d->devices[d->device_count];

			slot->vm = vm;
			slot->config = &vm->devices[i];
			slot->device = create_device(d, vm, slot->config, err);
			if (!slot->device)
				return error_prefix(err, "VM '%s'", vm->name);
			d->device_count++;
		}
	}
	return 0;
}

static void log_device(const struct daemon_device *slot)
{
	const struct device *device = slot->device;
	char size[32];

	log_info("VM %s: %s on %s", slot->vm->name, device->label, device->socket);
	for (unsigned i = 0; i < device->unit_count; i++) {
		const struct device_unit *unit = &device->units[i];

		if (!unit->present)
			continue;
		if (unit->port)
			log_info("VM %s: %s: NIC %s on switch %s", slot->vm->name, device->name,
				 unit->port->name, vswitch_name(unit->port->vswitch));
		else if (unit->disk)
			log_info("VM %s: %s%s%s: disk %s (%s)", slot->vm->name, device->name,
				 *unit->name ? "/" : "", unit->name, unit->disk->name,
				 format_size(atomic_load(&unit->disk->size), size, sizeof size));
		else
			log_info("VM %s: %s/%s: empty", slot->vm->name, device->name, unit->name);
	}
	if (device->caveat)
		log_info("VM %s: %s: %s", slot->vm->name, device->name, device->caveat);
}

/* Each device begins with the loop after the last one of the device before. */
static int listen_for_vmms(struct daemon *d, struct error *err)
{
	struct transport_loops loops = { .control = d->control,
					 .loops = d->loops,
					 .count = d->loop_count };

	for (unsigned i = 0; i < d->device_count; i++) {
		struct daemon_device *slot = &d->devices[i];

		slot->server = slot->config->frontend->transport->listen(slot->device, &loops, err);
		if (!slot->server)
			return error_prefix(err, "VM '%s'", slot->vm->name);
		daemon_hold(d);
		loops.first = (loops.first + slot->device->queues) % d->loop_count;
		log_device(slot);
	}
	return 0;
}

static int open_api(struct daemon *d, struct error *err)
{
	if (!d->config->api)
		return 0;
	d->api = api_open(d->config->api, d, err);
	return d->api ? 0 : -err->code;
}

static void stop(struct daemon *d);

static void fail(struct daemon *d, const struct error *err)
{
	log_error("%s", err->text);
	d->status = 1;
	stop(d);
}

/* The second half of it, when the layers of all ports are in force. */
static void serve(struct daemon *d)
{
	struct error err = { 0 };

	if (state_begin(d, &err) || listen_for_vmms(d, &err) || exports_open(d, &err) ||
	    open_api(d, &err)) {
		fail(d, &err);
		return;
	}
	networks_start(d);
	d->started = loop_now(d->control);
	notify("READY=1\nSTATUS=Serving.");
}

static void start(struct loop_message *message)
{
	struct daemon *d = container_of(message, struct daemon, start);
	struct error err = { 0 };

	if (start_loops(d, &err) || open_disks(d, &err) || networks_open(d, &err) ||
	    create_devices(d, &err) || networks_connect(d, serve, &err))
		fail(d, &err);
}

/* --- shutdown: the same backwards --------------------------------------------------- */

void daemon_hold(struct daemon *daemon)
{
	daemon->holds++;
}

void daemon_let_go(struct daemon *daemon)
{
	/* Later, for whoever lets go may be called by what is closed then. */
	if (!--daemon->holds)
		loop_send(daemon->control, &daemon->end);
}

/* A disk whose layers' own work is ending. */
struct ending {
	struct daemon *daemon;
	struct layer_stop stop;
};

static void disk_stopped(struct loop_message *message)
{
	struct ending *ending = container_of(message, struct ending, stop.done);

	daemon_let_go(ending->daemon);
	free(ending);
}

static void stop_disk(struct daemon *d, struct disk *disk)
{
	struct ending *ending = must(calloc(1, sizeof *ending));

	ending->daemon = d;
	ending->stop = (struct layer_stop){ .loop = d->control, .done.run = disk_stopped };
	daemon_hold(d);
	if (disk_stop(disk, &ending->stop))
		must(NULL);
}

/*
 * First so that layers let go what they hold back (delay), or no guest would ever be done; then,
 * when nobody has queues of the guests' any more, for what layers do on queues that are closed.
 */
static void stop_disks(struct daemon *d)
{
	daemon_hold(d);
	for (unsigned i = 0; i < d->disk_count; i++)
		stop_disk(d, d->disks[i]);
	daemon_let_go(d);
}

static void all_closed(struct loop_message *message)
{
	struct daemon *d = container_of(message, struct daemon, end);

	if (!d->disks_stopped) {
		d->disks_stopped = true;
		stop_disks(d);
		return;
	}
	if (!d->devices_destroyed) {
		d->devices_destroyed = true;
		while (d->device_count) {
			struct device *device = d->devices[--d->device_count].device;

			device->ops->destroy(device);
		}
		networks_wait(d);
		return;
	}
	for (unsigned i = 0; i < d->loop_count; i++)
		loop_stop(d->loops[i]);
	networks_close(d);
	while (d->loop_count)
		loop_destroy(d->loops[--d->loop_count]);
	workers_end();
	while (d->disk_count) {
		record_remove(d, d->disks[--d->disk_count]);
		disk_close(d->disks[d->disk_count]);
	}
	free(d->devices);
	free(d->loops);
	free(d->disks);
	loop_watch_remove(d->control, d->signals);
	loop_stop(d->control);
}

static void server_closed(void *data)
{
	daemon_let_go(data);
}

static void stop(struct daemon *d)
{
	d->ending = true;
	notify("STOPPING=1\nSTATUS=Waiting for what is in flight.");
	api_close(d->api);
	d->api = NULL;
	moves_end(d);
	stop_disks(d);
	for (unsigned i = 0; i < d->device_count; i++) {
		struct daemon_device *slot = &d->devices[i];
		void *server = slot->server;

		if (!server)
			continue;
		slot->server = NULL;
		slot->config->frontend->transport->close(server, server_closed, d);
	}
	networks_stop(d);
	exports_close(d);
	daemon_let_go(d);
}

/* --- signals ------------------------------------------------------------------------ */

static void signal_came(void *data)
{
	struct daemon *d = data;
	struct signalfd_siginfo info;

	while (read(d->signal_fd, &info, sizeof info) == sizeof info) {
		if (info.ssi_signo == SIGHUP) {
			log_info("SIGHUP: ignored; a restart reads the configuration anew, and "
				 "guests go on");
		} else if (d->ending) {
			log_warn("%s again: ending at once", strsignal((int)info.ssi_signo));
			_exit(1);
		} else {
			log_info("%s: ending when what is in flight is done",
				 strsignal((int)info.ssi_signo));
			stop(d);
		}
	}
}

static int open_signals(struct error *err)
{
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd >= 0 ? fd : error_set(err, errno, "signalfd: %s", strerror(errno));
}

/* --- the process -------------------------------------------------------------------- */

/* Each disk, queue and VMM takes several descriptors; the soft limit is for select(2) only. */
static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit))
			log_debug("setrlimit(RLIMIT_NOFILE): %s", strerror(errno));
	}
}

int daemon_run(const struct config *config)
{
	/*
	 * Its thread is the process's first, and bears its name. It needs readiness only, and has
	 * it from epoll: io_uring would hold the sockets for some time after we are killed.
	 */
	struct loop_config control = { .name = "penstock", .engine = LOOP_THREADS, .cpu = -1 };
	struct daemon d = {
		.config = config, .holds = 1, .start.run = start, .end.run = all_closed
	};
	struct error err = { 0 };

	list_init(&d.openings);
	list_init(&d.closings);
	list_init(&d.records);
	list_init(&d.changes);
	log_set_level((enum log_level)config->log_level);
	raise_file_limit();
	memory_guard_install();
	d.signal_fd = open_signals(&err);
	d.control = d.signal_fd >= 0 ? loop_create(&control, &err) : NULL;
	if (d.control) {
		d.signals = must(loop_watch_add(d.control, d.signal_fd, signal_came, &d));
		loop_send(d.control, &d.start);
		if (loop_run(d.control, &err))
			d.status = 1;
	}
	if (err.code)
		log_error("%s", err.text);
	loop_destroy(d.control);
	if (d.signal_fd >= 0)
		close(d.signal_fd);
	return err.code ? 1 : d.status;
}

struct disk *daemon_disk(const struct daemon *daemon, const char *name)
{
	for (unsigned i = 0; i < daemon->disk_count; i++)
		if (!strcmp(daemon->disks[i]->name, name))
			return daemon->disks[i];
	return NULL;
}
