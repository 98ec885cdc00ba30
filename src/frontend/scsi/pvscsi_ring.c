/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pvscsi_ring.c - the three rings of a PVSCSI adapter, and when its driver must kick
 *
 * Rings are lists of pages in guest memory, mapped when they are set up. The table in which they
 * were mapped is held, so that touching them is always safe; when the VMM has made another one,
 * they are looked up in that, at the next request or completion, and if they are gone the function
 * breaks. Indices count freely and are taken modulo the entries. The driver's are read once, and
 * believed as far as they can be true.
 *
 * Kicks. A driver that was told SETUP_REQCALLTHRESHOLD kicks for a read or write if as many
 * requests as the threshold says are not taken yet.
 *
 *   - While we poll it is more than the ring holds, so the driver never kicks. Not to poll in vain,
 *     that is where the loop stays with the ring anyway: when the driver was given completions and
 * is likely to react, or is in the middle of submitting.
 *   - Before we sleep it becomes 1, and the ring is looked at once more; but with commands at the
 *     storage it becomes a share of them, since each that comes back makes us look as well.
 *
 * The drivers put no fence between adding a request and looking at the threshold: the processor may
 * do the second first, see a threshold that was just lowered as it was, and keep the new index in
 * its store buffer until after our look. That takes it well below a microsecond, so a timer looks
 * once more, LATE after the threshold was lowered. The same timer bounds how long a request may lie
 * there below the threshold.
 */
#include <errno.h>
#include <string.h>

#include "frontend/scsi/pvscsi_private.h"
#include "memory/memory.h"

#define REQS_PER_PAGE (PVSCSI_PAGE / (uint32_t)sizeof(struct pvscsi_req))
#define CMPS_PER_PAGE (PVSCSI_PAGE / (uint32_t)sizeof(struct pvscsi_cmp))
#define MSGS_PER_PAGE (PVSCSI_PAGE / (uint32_t)sizeof(struct pvscsi_msg))
#define BATCH         64u     /* requests taken before others get their turn */
#define AHEAD         8u      /* requests prefetched */
#define LATE          100000u /* ns */
#define SHARE         2u      /* of the commands at the storage: as many may wait for company */

static uint32_t load(const uint32_t *index)
{
	return __atomic_load_n(index, __ATOMIC_ACQUIRE);
}

static void store(uint32_t *index, uint32_t value)
{
	__atomic_store_n(index, value, __ATOMIC_RELEASE);
}

static bool ready(const struct pvscsi *p)
{
	return p->rings.memory && !p->pci.broken && p->bus_master;
}

/* --- set up ------------------------------------------------------------------------- */

/* The page number @number; NULL, and the function is broken, if it is not to be had. */
static void *map_page(struct pvscsi *p, uint64_t number, const char *what)
{
	uint64_t address = number * PVSCSI_PAGE;
	void *page;

	if (number > UINT64_MAX / PVSCSI_PAGE) {
		pci_break(&p->pci, "its %s has page number %#llx", what,
			  (unsigned long long)number);
		return NULL;
	}
	page = dma_map(&p->pci.dma, address, PVSCSI_PAGE);
	if (page)
		return page;
	if (memory_find(p->pci.dma.memory, address))
		pci_break(
			&p->pci,
			"its VMM does not share the guest's memory, and PVSCSI needs it; start QEMU with "
			"-object memory-backend-memfd,id=m,size=...,share=on -machine "
			"memory-backend=m");
	else
		pci_break(&p->pci, "its %s at guest address %#llx is outside its memory", what,
			  (unsigned long long)address);
	return NULL;
}

/* All pages in the table of now; the old one is held until then. */
static int map_rings(struct pvscsi *p)
{
	struct pvscsi_rings *r = &p->rings;
	struct memory *memory = memory_hold(p->pci.dma.memory);
	bool good = (r->state = map_page(p, r->setup.state_page, "ring state")) != NULL;

	for (uint32_t i = 0; good && i < r->setup.req_pages; i++)
		good = (r->req[i] = map_page(p, r->setup.req_page[i], "request ring")) != NULL;
	for (uint32_t i = 0; good && i < r->setup.cmp_pages; i++)
		good = (r->cmp[i] = map_page(p, r->setup.cmp_page[i], "completion ring")) != NULL;
	for (uint32_t i = 0; good && i < r->msg_setup.pages; i++)
		good = (r->msg[i] = map_page(p, r->msg_setup.page[i], "message ring")) != NULL;
	memory_release(good ? r->memory : memory);
	if (good)
		r->memory = memory;
	return good ? 0 : -EINVAL;
}

static bool pages_valid(uint32_t pages, uint32_t most)
{
	return pages && pages <= most && !(pages & (pages - 1));
}

int pvscsi_rings_setup(struct pvscsi *p, const struct pvscsi_setup_rings *setup)
{
	struct pvscsi_rings *r = &p->rings;

	if (!pages_valid(setup->req_pages, PVSCSI_RING_PAGES) ||
	    !pages_valid(setup->cmp_pages, PVSCSI_RING_PAGES))
		return pci_break(&p->pci,
				 "rings of %u and %u pages; expected powers of two, at most %u",
				 setup->req_pages, setup->cmp_pages, PVSCSI_RING_PAGES);
	pvscsi_rings_release(p);
	r->setup = *setup;
	r->req_entries = setup->req_pages * REQS_PER_PAGE;
	r->cmp_entries = setup->cmp_pages * CMPS_PER_PAGE;
	if (r->cmp_entries < r->req_entries)
		return pci_break(&p->pci, "%u completions have less room than %u requests",
				 r->cmp_entries, r->req_entries);
	if (map_rings(p))
		return -EINVAL;
	/* The indices that are the driver's it may have moved already: this comes late. */
	store(&r->state->req_cons, 0);
	store(&r->state->cmp_prod, 0);
	store(&r->state->req_entries_log2, (uint32_t)__builtin_ctz(r->req_entries));
	store(&r->state->cmp_entries_log2, (uint32_t)__builtin_ctz(r->cmp_entries));
	p->faults_seen = atomic_load(&memory_faults);
	pvscsi_rings_kick(p);
	return 0;
}

int pvscsi_msg_ring_setup(struct pvscsi *p, const struct pvscsi_setup_msg_ring *setup)
{
	struct pvscsi_rings *r = &p->rings;

	if (!ready(p))
		return 0; /* "the command is a nop" */
	if (!pages_valid(setup->pages, PVSCSI_MSG_RING_PAGES))
		return pci_break(&p->pci,
				 "a message ring of %u pages; expected a power of two, at most %u",
				 setup->pages, PVSCSI_MSG_RING_PAGES);
	r->msg_setup = *setup;
	r->msg_entries = setup->pages * MSGS_PER_PAGE;
	r->msg_next = 0;
	if (map_rings(p))
		return -EINVAL;
	store(&r->state->msg_prod, 0);
	store(&r->state->msg_entries_log2, (uint32_t)__builtin_ctz(r->msg_entries));
	return 0;
}

void pvscsi_rings_release(struct pvscsi *p)
{
	if (p->poller.active)
		loop_poller_stop(p->pci.loop, &p->poller);
	loop_timer_cancel(&p->late);
	memory_release(p->rings.memory);
	p->rings = (struct pvscsi_rings){ .heeded = p->rings.heeded };
	p->level = 0;
}

/* The rings are where they were, or at least to be had. */
static inline int still_mapped(struct pvscsi *p)
{
	unsigned faults = atomic_load_explicit(&memory_faults, memory_order_relaxed);

	if (p->rings.memory != p->pci.dma.memory && map_rings(p))
		return -EINVAL;
	if (faults == p->faults_seen)
		return 0;
	p->faults_seen = faults;
	return memory_broken(p->rings.memory)
		       ? pci_break(&p->pci, "its memory was truncated by the VMM")
		       : 0;
}

/* --- requests ----------------------------------------------------------------------- */

static void set_threshold(struct pvscsi *p, uint32_t threshold)
{
	struct pvscsi_rings *r = &p->rings;

	if (!r->heeded || r->threshold == threshold)
		return;
	r->threshold = threshold;
	store(&r->state->req_call_threshold, threshold);
}

static void suppress_kicks(struct pvscsi *p)
{
	set_threshold(p, p->rings.req_entries + 1);
}

static const struct pvscsi_req *req_at(const struct pvscsi_rings *r, uint32_t index)
{
	uint32_t at = index & (r->req_entries - 1);

	return &r->req[at / REQS_PER_PAGE][at % REQS_PER_PAGE];
}

/* Each is two cache lines that the guest's core owns. */
static void prefetch(const struct pvscsi_rings *r, uint32_t index)
{
	const char *req = (const char *)req_at(r, index);

	__builtin_prefetch(req);
	__builtin_prefetch(req + 64);
}

/* Takes at most @most; how many, or -EINVAL. */
static int take(struct pvscsi *p, unsigned most)
{
	struct pvscsi_rings *r = &p->rings;
	uint32_t waiting = load(&r->state->req_prod) - r->req_next;
	unsigned n = 0;

	if (!waiting)
		return 0;
	if (still_mapped(p))
		return -EINVAL;
	if (waiting > r->req_entries)
		return pci_break(&p->pci, "request index %u is %u entries ahead in a ring of %u",
				 r->req_next + waiting, waiting, r->req_entries);
	for (uint32_t i = 0; i < AHEAD && i < waiting; i++)
		prefetch(r, r->req_next + i);
	while (n < waiting && n < most && pvscsi_request_available(p)) {
		struct pvscsi_req req;

		if (n + AHEAD < waiting)
			prefetch(r, r->req_next + AHEAD);
		/* Copied once; only the copy is checked and used. */
		memcpy(&req, req_at(r, r->req_next), sizeof req);
		r->req_next++;
		n++;
		pvscsi_request_start(p, &req);
		if (p->pci.broken)
			return -EINVAL;
	}
	if (n)
		store(&r->state->req_cons, r->req_next);
	return (int)n;
}

/* More will follow at once if the driver has fewer in flight than it uses to: see virtqueue.c. */
static void expect(struct pvscsi *p)
{
	p->poller.deep = p->out < p->level;
	if (p->out >= p->level)
		p->level = p->out;
	else
		p->level -= (p->level - p->out + 15) / 16;
	if (p->poller.deep)
		suppress_kicks(p);
}

static bool poll_ring(struct loop_poller *poller)
{
	struct pvscsi *p = container_of(poller, struct pvscsi, poller);

	if (!ready(p) || p->stopping || p->holds || take(p, BATCH) <= 0)
		return false;
	expect(p);
	return true;
}

static bool arm_ring(struct loop_poller *poller)
{
	struct pvscsi *p = container_of(poller, struct pvscsi, poller);
	uint32_t before = p->rings.threshold;

	if (!ready(p) || p->stopping)
		return false;
	set_threshold(p, p->out < 2 * SHARE ? 1 : p->out / SHARE);
	if (before > 1 || p->rings.threshold > 1)
		loop_timer_set(p->pci.loop, &p->late, loop_now(p->pci.loop) + LATE);
	atomic_thread_fence(memory_order_seq_cst);
	/* What waits for a reset or for a free request is looked for when that has come. */
	return !p->holds && pvscsi_request_available(p) &&
	       load(&p->rings.state->req_prod) != p->rings.req_next;
}

static void look_again(struct loop_timer *timer)
{
	pvscsi_rings_kick(container_of(timer, struct pvscsi, late));
}

void pvscsi_rings_kick(struct pvscsi *p)
{
	if (ready(p) && !p->stopping)
		loop_poller_wake(p->pci.loop, &p->poller);
}

void pvscsi_rings_drain(struct pvscsi *p)
{
	if (ready(p) && !p->stopping && !p->holds)
		take(p, p->rings.req_entries);
}

/* --- completions -------------------------------------------------------------------- */

struct pvscsi_cmp *pvscsi_rings_completion(struct pvscsi *p)
{
	struct pvscsi_rings *r = &p->rings;
	uint32_t at;

	if (!ready(p) || still_mapped(p))
		return NULL;
	/* The driver's index is in the line that both sides write: looked at when it must be. */
	if (r->cmp_next - r->cmp_cons >= r->cmp_entries)
		r->cmp_cons = load(&r->state->cmp_cons);
	if (r->cmp_next - r->cmp_cons >= r->cmp_entries) {
		pci_break(&p->pci,
			  "its completion ring is full: more requests than it has room for");
		return NULL;
	}
	at = r->cmp_next++ & (r->cmp_entries - 1);
	loop_task_queue(p->pci.loop, &p->show);
	return &r->cmp[at / CMPS_PER_PAGE][at % CMPS_PER_PAGE];
}

/* All that this turn completed: one index, one interrupt. */
static void show(struct loop_task *task)
{
	struct pvscsi *p = container_of(task, struct pvscsi, show);
	struct pvscsi_rings *r = &p->rings;

	if (!ready(p) || r->cmp_shown == r->cmp_next)
		return;
	/* Before the driver sees the batch: it may react within nanoseconds. */
	if (!p->stopping && loop_poller_settled(p->pci.loop, &p->poller))
		suppress_kicks(p);
	else if (r->threshold > 1)
		pvscsi_rings_kick(p);
	r->cmp_shown = r->cmp_next;
	store(&r->state->cmp_prod, r->cmp_next);
	pvscsi_interrupt(p, PVSCSI_INTR_CMPL_0);
}

/* --- messages ----------------------------------------------------------------------- */

void pvscsi_rings_message(struct pvscsi *p, enum pvscsi_msg_type type, uint16_t target,
			  uint64_t lun)
{
	struct pvscsi_rings *r = &p->rings;
	struct pvscsi_msg msg = { .type = type, .target = target };
	uint32_t at;

	/* A driver without message ring, or not yet there, sees the units when it scans. */
	if (!ready(p) || !r->msg_entries || still_mapped(p))
		return;
	if (r->msg_next - load(&r->state->msg_cons) >= r->msg_entries) {
		if (log_limited(&p->complain))
			log_warn(
				"vm %s: %s: the guest does not read its message ring: it is not told "
				"that unit %u:0 %s",
				p->pci.device.vm, p->pci.device.label, target,
				type == PVSCSI_MSG_ADDED ? "came" : "went");
		return;
	}
	for (unsigned i = 0; i < sizeof msg.lun; i++)
		msg.lun[i] = (uint8_t)(lun >> (56 - 8 * i));
	at = r->msg_next++ & (r->msg_entries - 1);
	r->msg[at / MSGS_PER_PAGE][at % MSGS_PER_PAGE] = msg;
	store(&r->state->msg_prod, r->msg_next);
	pvscsi_interrupt(p, PVSCSI_INTR_MSG_0);
}

void pvscsi_rings_init(struct pvscsi *p)
{
	loop_poller_init(&p->poller, poll_ring, arm_ring);
	loop_timer_init(&p->late, look_again);
	p->show.run = show;
}
