/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vfio_user_irq.c - interrupts: what the VMM says of them, and how they reach it
 *
 * The VMM gives an eventfd for each vector that it wants. Which kind it has given some for is the
 * kind that the guest has enabled: MSI-X before MSI before INTx.
 *
 * INTx is a level, which an eventfd cannot carry. So it masks itself when it was sent, and the VMM
 * unmasks it when it thinks that the guest has acknowledged; if the level is high still, it is sent
 * again. Where the kernel sees the guest's acknowledgement (irqfd with a resampler), the VMM gives
 * an eventfd for that as well.
 */
#include <errno.h>
#include <linux/vfio.h>
#include <string.h>
#include <unistd.h>

#include "transport/vfio_user_private.h"

#define INTX VFIO_PCI_INTX_IRQ_INDEX
#define MSI  VFIO_PCI_MSI_IRQ_INDEX
#define MSIX VFIO_PCI_MSIX_IRQ_INDEX

static uint32_t vectors_of(const struct vfio_user *vu, uint32_t index)
{
	const struct pci_type *type = vu->dev->type;

	return index == INTX   ? type->intx
	       : index == MSI  ? type->msi_vectors
	       : index == MSIX ? type->msix_vectors
			       : 1;
}

/* --- to the VMM --------------------------------------------------------------------- */

static void write_event(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof one) < 0)
		return; /* the counter is full: it will be seen */
}

static void send_line(struct vfio_user *vu)
{
	struct vfio_irq *irq = &vu->irq[INTX];

	if (!vu->line || irq->masked || irq->fd[0] < 0)
		return;
	irq->masked = 1;
	write_event(irq->fd[0]);
}

static void line(struct pci_device *dev, bool high)
{
	struct vfio_user *vu = dev->transport;

	vu->line = high;
	send_line(vu);
}

static void send_vector(struct vfio_irq *irq, unsigned vector)
{
	if (irq->masked >> vector & 1)
		irq->pending |= 1u << vector;
	else if (irq->fd[vector] >= 0)
		write_event(irq->fd[vector]);
}

/* A guest that gave MSI fewer vectors than it could takes them all by the first (6.8.3.4). */
static void signal_vector(struct pci_device *dev, unsigned vector)
{
	struct vfio_user *vu = dev->transport;
	struct vfio_irq *irq = &vu->irq[dev->mode == PCI_MSIX ? MSIX : MSI];

	if (dev->mode == PCI_MSI && irq->fd[vector] < 0)
		vector = 0;
	send_vector(irq, vector);
}

const struct pci_transport_ops vfio_user_pci_ops = {
	.signal = signal_vector,
	.line = line,
	.broken = vfio_user_broken,
};

/* --- the state ---------------------------------------------------------------------- */

void vfio_user_irq_init(struct vfio_user *vu)
{
	for (unsigned i = 0; i < VFIO_USER_IRQS; i++) {
		vu->irq[i] = (struct vfio_irq){ 0 };
		memset(vu->irq[i].fd, -1, sizeof vu->irq[i].fd);
	}
	vu->line = false;
	vu->unmask_fd = -1;
	vu->unmask_watch = NULL;
}

static void set_fd(struct vfio_irq *irq, unsigned vector, int fd)
{
	if (irq->fd[vector] >= 0)
		close(irq->fd[vector]);
	irq->fd[vector] = fd;
	irq->masked &= ~(1u << vector);
	irq->pending &= ~(1u << vector);
}

static void drop_unmask(struct vfio_user *vu)
{
	if (vu->unmask_watch)
		loop_watch_remove(vu->loop, vu->unmask_watch);
	if (vu->unmask_fd >= 0)
		close(vu->unmask_fd);
	vu->unmask_watch = NULL;
	vu->unmask_fd = -1;
}

void vfio_user_irq_reset(struct vfio_user *vu)
{
	for (unsigned i = 0; i < VFIO_USER_IRQS; i++)
		for (unsigned vector = 0; vector < PCI_VECTORS; vector++)
			set_fd(&vu->irq[i], vector, -1);
	drop_unmask(vu);
}

static bool any_fd(const struct vfio_irq *irq)
{
	for (unsigned vector = 0; vector < PCI_VECTORS; vector++)
		if (irq->fd[vector] >= 0)
			return true;
	return false;
}

static void changed(struct vfio_user *vu)
{
	pci_interrupts_changed(vu->dev, any_fd(&vu->irq[MSIX])  ? PCI_MSIX
					: any_fd(&vu->irq[MSI]) ? PCI_MSI
								: PCI_INTX);
	send_line(vu);
}

/* --- GET_IRQ_INFO ------------------------------------------------------------------- */

int vfio_user_get_irq_info(struct vfio_user *vu, struct vfio_call *call, struct error *err)
{
	struct vfio_user_irq_info info;

	memcpy(&info, call->payload, sizeof info);
	if (info.argsz < sizeof info || info.index >= VFIO_USER_IRQS)
		return error_set(err, EINVAL, "kind %u, argsz %u", info.index, info.argsz);
	info.argsz = sizeof info;
	info.count = vectors_of(vu, info.index);
	info.flags = VFIO_IRQ_INFO_EVENTFD;
	if (info.index <= MSIX)
		info.flags |= VFIO_IRQ_INFO_MASKABLE;
	if (info.index == INTX)
		info.flags |= VFIO_IRQ_INFO_AUTOMASKED;
	memcpy(call->reply, &info, sizeof info);
	call->reply_size = sizeof info;
	return 0;
}

/* --- SET_IRQS ----------------------------------------------------------------------- */

static void unmask(struct vfio_user *vu, uint32_t index, unsigned vector)
{
	struct vfio_irq *irq = &vu->irq[index];
	uint32_t bit = 1u << vector;

	irq->masked &= ~bit;
	if (index == INTX)
		send_line(vu);
	else if (irq->pending & bit) {
		irq->pending &= ~bit;
		send_vector(irq, vector);
	}
}

static void unmask_came(void *data)
{
	unmask(data, INTX, 0);
}

/* The eventfds of the command, -1 where there are none: checked before anything changes. */
static int take_fds(struct vfio_call *call, uint32_t count, int *fd, struct error *err)
{
	uint32_t i;

	memset(fd, -1, PCI_VECTORS * sizeof *fd);
	if (!call->fds->count)
		return 0;
	if (call->fds->count != count)
		return error_set(err, EINVAL, "%u descriptors for %u vectors", call->fds->count,
				 count);
	for (i = 0; i < count; i++) {
		fd[i] = descriptors_take_eventfd(call->fds, i, err);
		if (fd[i] < 0)
			break;
	}
	if (i == count)
		return 0;
	while (i-- > 0)
		close(fd[i]);
	return -EINVAL;
}

static int set_eventfds(struct vfio_user *vu, struct vfio_call *call,
			const struct vfio_user_irq_set *set, struct error *err)
{
	int fd[PCI_VECTORS], ret = take_fds(call, set->count, fd, err);

	if (ret)
		return ret;
	for (uint32_t i = 0; i < set->count; i++)
		set_fd(&vu->irq[set->index], set->start + i, fd[i]);
	changed(vu);
	return 0;
}

static int set_unmask_eventfd(struct vfio_user *vu, struct vfio_call *call,
			      const struct vfio_user_irq_set *set, struct error *err)
{
	int fd[PCI_VECTORS], ret;

	if (set->index != INTX)
		return error_set(err, EOPNOTSUPP, "an eventfd that unmasks is for INTx only");
	ret = take_fds(call, set->count, fd, err);
	if (ret)
		return ret;
	drop_unmask(vu);
	if (fd[0] < 0)
		return 0;
	vu->unmask_fd = fd[0];
	vu->unmask_watch = loop_watch_add(vu->loop, fd[0], unmask_came, vu);
	if (vu->unmask_watch)
		return 0;
	drop_unmask(vu);
	return error_set(err, ENOMEM, "out of memory");
}

static int disable(struct vfio_user *vu, uint32_t index)
{
	for (unsigned vector = 0; vector < PCI_VECTORS; vector++)
		set_fd(&vu->irq[index], vector, -1);
	if (index == INTX)
		drop_unmask(vu);
	changed(vu);
	return 0;
}

static void act(struct vfio_user *vu, uint32_t action, uint32_t index, unsigned vector)
{
	struct vfio_irq *irq = &vu->irq[index];

	if (action == VFIO_IRQ_SET_ACTION_MASK)
		irq->masked |= 1u << vector;
	else if (action == VFIO_IRQ_SET_ACTION_UNMASK)
		unmask(vu, index, vector);
	else if (irq->fd[vector] >= 0)
		write_event(irq->fd[vector]);
}

int vfio_user_set_irqs(struct vfio_user *vu, struct vfio_call *call, struct error *err)
{
	struct vfio_user_irq_set set;
	uint32_t data, action, vectors;
	const char *wanted = call->payload + sizeof set;

	memcpy(&set, call->payload, sizeof set);
	data = set.flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
	action = set.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
	if (set.index >= VFIO_USER_IRQS || set.flags & ~(data | action) || !data || !action ||
	    data & (data - 1) || action & (action - 1))
		return error_set(err, EINVAL, "kind %u, flags %#x", set.index, set.flags);
	vectors = vectors_of(vu, set.index);
	if (set.start > vectors || set.count > vectors - set.start)
		return error_set(err, EINVAL, "vectors %u and %u more of %u", set.start, set.count,
				 vectors);
	if (call->size != sizeof set + (data == VFIO_IRQ_SET_DATA_BOOL ? set.count : 0))
		return error_set(err, EINVAL, "%u vectors in %u bytes", set.count, call->size);
	if (!set.count && data == VFIO_IRQ_SET_DATA_NONE && action == VFIO_IRQ_SET_ACTION_TRIGGER)
		return disable(vu, set.index);
	if (!set.count)
		return error_set(err, EINVAL, "no vectors");
	if (set.index > MSIX && action != VFIO_IRQ_SET_ACTION_TRIGGER)
		return error_set(err, EOPNOTSUPP, "kind %u cannot be masked", set.index);
	if (data == VFIO_IRQ_SET_DATA_EVENTFD)
		return action == VFIO_IRQ_SET_ACTION_TRIGGER ? set_eventfds(vu, call, &set, err)
		       : action == VFIO_IRQ_SET_ACTION_UNMASK
			       ? set_unmask_eventfd(vu, call, &set, err)
			       : error_set(err, EOPNOTSUPP, "the device masks nothing itself");
	for (uint32_t i = 0; i < set.count; i++)
		if (data == VFIO_IRQ_SET_DATA_NONE || wanted[i])
			act(vu, action, set.index, set.start + i);
	return 0;
}
