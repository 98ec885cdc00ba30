/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * net.c - the virtio network device (virtio 1.2, section 5.1): a port on a switch
 *
 * What is here runs on the control thread: features, config space, what the VMM says. Packets are
 * the affair of the queues, net_private.h tells the rooms.
 *
 * QEMU keeps config space and the control queue of a vhost-user NIC to itself, and warns of a
 * back-end that has config space; others read it here (option `config-space`). So status, MAC
 * address and MTU are said twice: here, and by the options of QEMU's device.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/frontend.h"
#include "frontend/virtio/net_private.h"
#include "frontend/virtio/settings.h"
#include "packet/frame.h"
#include "packet/nic.h"
#include "transport/transport.h"
#include "util/error.h"
#include "util/list.h"
#include "util/log.h"

/** What a user says about it. */
struct net_settings {
	uint64_t pairs;      /* of queues, 1..15 */
	uint64_t queue_size; /* entries, a power of two, 16..1024 */
	bool config_space;   /* the VMM reads it here */
};

extern const struct frontend virtio_net_frontend;

static struct net *net_of_device(struct device *device)
{
	return container_of(device, struct net, dev.device);
}

/* An MTU that says something; else it is not told. */
static uint16_t told_mtu(const struct net *net)
{
	uint64_t mtu = net->port->config.mtu;

	return mtu < UINT16_MAX ? (uint16_t)mtu : 0;
}

/* --- features ------------------------------------------------------------------------ */

static uint64_t net_features(struct virtio_device *dev)
{
	const struct net *net = net_of(dev);
	uint64_t features = NET_GUEST_OFFLOADS | 1ull << VIRTIO_NET_F_CSUM |
			    1ull << VIRTIO_NET_F_HOST_TSO4 | 1ull << VIRTIO_NET_F_HOST_TSO6 |
			    1ull << VIRTIO_NET_F_HOST_ECN | 1ull << NET_F_HOST_USO |
			    1ull << VIRTIO_NET_F_MRG_RXBUF | 1ull << VIRTIO_F_ANY_LAYOUT |
			    1ull << VIRTIO_NET_F_MAC | 1ull << VIRTIO_NET_F_STATUS |
			    1ull << VIRTIO_NET_F_CTRL_VQ | 1ull << VIRTIO_NET_F_CTRL_RX |
			    1ull << VIRTIO_NET_F_CTRL_RX_EXTRA | 1ull << VIRTIO_NET_F_CTRL_VLAN |
			    1ull << VIRTIO_NET_F_CTRL_MAC_ADDR |
			    1ull << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS |
			    1ull << VIRTIO_NET_F_GUEST_ANNOUNCE | 1ull << VIRTIO_NET_F_MQ;

	if (told_mtu(net))
		features |= 1ull << VIRTIO_NET_F_MTU;
	return features;
}

static void set_rules(struct net *net, uint64_t features)
{
	net_rules_init(&net->rules, features, net->pairs, net->factory_mac);
	atomic_store(&net->mac, mac_number(net->factory_mac));
	for (unsigned i = 0; i < net->place_count; i++)
		net->places[i].rules = net->rules;
}

/* All queues are out of service. QEMU says it once more for each pair; that changes nothing. */
static void net_negotiated(struct virtio_device *dev, uint64_t features)
{
	struct net *net = net_of(dev);

	if (net->port->plugged && net->features == features)
		return;
	net->features = features;
	net->port->plugged = true;
	set_rules(net, features);
}

static void net_reset(struct virtio_device *dev)
{
	struct net *net = net_of(dev);

	net->port->plugged = false;
	atomic_store(&net->announce, false);
	set_rules(net, 0);
}

/* --- config space -------------------------------------------------------------------- */

static void net_config_read(struct virtio_device *dev, void *space)
{
	const struct net *net = net_of(dev);
	struct virtio_net_config *config = space;
	uint64_t mac = htobe64(atomic_load(&net->mac) << 16);

	*config = (struct virtio_net_config){
		.status = htole16(
			(uint16_t)((net->port->up ? VIRTIO_NET_S_LINK_UP : 0) |
				   (atomic_load(&net->announce) ? VIRTIO_NET_S_ANNOUNCE : 0))),
		.max_virtqueue_pairs = htole16((uint16_t)net->pairs),
		.mtu = htole16(told_mtu(net)),
		.speed = htole32(UINT32_MAX), /* not known */
		.duplex = UINT8_MAX,
	};
	memcpy(config->mac, &mac, sizeof config->mac);
}

/* Before virtio 1.0 the driver could write its address. */
static int net_config_write(struct virtio_device *dev, uint32_t offset, const void *data,
			    uint32_t length)
{
	struct net *net = net_of(dev);
	uint8_t mac[6];

	if (offset || length != sizeof mac || dev->features >> VIRTIO_F_VERSION_1 & 1)
		return -EINVAL;
	memcpy(mac, data, sizeof mac);
	atomic_store(&net->mac, mac_number(mac));
	return 0;
}

/* What the driver set, with the inflight regions: nothing that it would not say again. */
static uint64_t net_state(struct virtio_device *dev)
{
	(void)dev;
	return 0;
}

static void net_set_state(struct virtio_device *dev, uint64_t state)
{
	(void)dev;
	(void)state;
}

static void tell_driver(struct net *net)
{
	if (net->dev.config_changed)
		net->dev.config_changed(&net->dev);
}

static void net_link_changed(struct port *port)
{
	tell_driver(port->owner);
}

/* --- queues -------------------------------------------------------------------------- */

static bool is_control(const struct net *net, const struct virtqueue *vq)
{
	unsigned pairs = vq->setup.features >> VIRTIO_NET_F_MQ & 1 ? net->pairs : 1;

	return vq->setup.features >> VIRTIO_NET_F_CTRL_VQ & 1 && vq->index == 2 * pairs;
}

/* Of the kinds of queues, what there is to do. */
struct queue_kind {
	int (*start)(struct net *net, struct virtqueue *vq);
	void (*stop)(struct virtqueue *vq);
	bool (*poll)(struct virtqueue *vq);
};

static const struct queue_kind receive_queue = { net_receive_start, net_receive_stop,
						 net_receive_poll };
static const struct queue_kind transmit_queue = { net_transmit_start, net_transmit_stop,
						  net_transmit_poll };
static const struct queue_kind control_queue = { net_control_start, net_control_stop,
						 net_control_poll };

/* NULL: the device has no such queue, by what was negotiated. */
static const struct queue_kind *kind_of(const struct net *net, const struct virtqueue *vq)
{
	if (is_control(net, vq))
		return &control_queue;
	if (vq->index >= 2 * net->pairs)
		return NULL;
	return vq->index % 2 ? &transmit_queue : &receive_queue;
}

/* A ring that goes on where another process (we, before a crash; another host) left it. */
static bool goes_on(const struct virtqueue *vq)
{
	bool packed = vq->setup.features >> VIRTIO_F_RING_PACKED & 1;

	return packed ? (vq->setup.base & 0x7fff7fff) || !(vq->setup.base >> 15 & 1)
		      : vq->setup.base != 0;
}

static int net_queue_start(struct virtio_device *dev, struct virtqueue *vq)
{
	struct net *net = net_of(dev);
	const struct queue_kind *kind = kind_of(net, vq);

	if (!kind)
		return -ENXIO;
	if (vq->index == 0) {
		atomic_store(&net->home, net_place_of(net, vq)->lane->index);
		if (goes_on(vq) && !atomic_exchange(&net->went_on, true))
			loop_send(net->control, &net->went_on_message);
	}
	return kind->start(net, vq);
}

static void net_queue_stop(struct virtqueue *vq)
{
	kind_of(net_of(vq->dev), vq)->stop(vq);
}

static bool net_queue_poll(struct virtqueue *vq)
{
	return kind_of(net_of(vq->dev), vq)->poll(vq);
}

/* --- where it is, for the network ------------------------------------------------------ */

/*
 * The guest goes on behind another process: its neighbours, and the switches between, are to learn
 * where it is now. A driver that can is asked to tell them (5.1.6.5.4); while config space is
 * QEMU's that is QEMU's affair.
 */
static void went_on(struct loop_message *message)
{
	struct net *net = container_of(message, struct net, went_on_message);
	uint64_t needed = 1ull << VIRTIO_NET_F_GUEST_ANNOUNCE | 1ull << VIRTIO_NET_F_CTRL_VQ;

	if ((net->features & needed) != needed || !net->dev.ops->config_size)
		return;
	atomic_store(&net->announce, true);
	tell_driver(net);
}

#define ERRANDS    8u  /* under way; who misses one learns from the guest's next frame */
#define RARP_BYTES 60u /* padded to what Ethernet has at least */

/* A frame of ours, and its way to a loop and back. */
struct errand {
	struct loop_message message;
	struct net *net;
	struct lane *lane; /* where it runs */
	struct burst *burst;
	uint8_t frame[RARP_BYTES];
};

static void leave(struct net *net);

static void errand_done(struct loop_message *message)
{
	struct errand *errand = container_of(message, struct errand, message);
	struct net *net = errand->net;

	burst_free(errand->burst);
	free(errand);
	net->errands--;
	if (net->leaving)
		leave(net);
}

static void errand_released(struct burst *burst)
{
	struct errand *errand = burst->owner;

	errand->message.run = errand_done;
	loop_send(errand->net->control, &errand->message);
}

static void errand_run(struct loop_message *message)
{
	struct errand *errand = container_of(message, struct errand, message);
	struct burst *burst = errand->burst;

	burst_begin(burst);
	*burst_vec(burst) = (struct iovec){ errand->frame, sizeof errand->frame };
	if (burst_add(burst, 1, 0, sizeof errand->frame))
		lane_receive(errand->lane, burst);
	burst_put(burst);
}

/* RFC 903, a request by @mac for its own address: nobody answers, but switches learn from it. */
static void make_rarp(uint8_t *frame, const uint8_t mac[6])
{
	static const uint8_t fixed[] = { 0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3 };

	memset(frame, 0, RARP_BYTES);
	memset(frame, 0xff, 6);
	memcpy(frame + 6, mac, 6);
	memcpy(frame + 12, fixed, sizeof fixed);
	memcpy(frame + 22, mac, 6);
	memcpy(frame + 32, mac, 6);
}

static int net_send_rarp(struct virtio_device *dev, const uint8_t mac[6])
{
	struct net *net = net_of(dev);
	struct errand *errand;

	if (net->errands >= ERRANDS)
		return 0;
	errand = calloc(1, sizeof *errand);
	if (!errand)
		return -ENOMEM;
	errand->net = net;
	errand->message.run = errand_run;
	errand->burst = burst_create(errand_released, errand);
	if (!errand->burst) {
		free(errand);
		return -ENOMEM;
	}
	make_rarp(errand->frame, mac);
	errand->lane = net->places[atomic_load(&net->home)].lane;
	net->errands++;
	loop_send(errand->lane->loop, &errand->message);
	return 0;
}

/* The VMM's word for what the guest was told. More than the port takes would be lost in silence. */
static int net_set_mtu(struct virtio_device *dev, uint64_t mtu, struct error *err)
{
	const struct net *net = net_of(dev);

	if (mtu >= 68 && mtu <= net->port->config.mtu)
		return 0;
	return error_set(err, EINVAL, "an MTU of %llu; that of NIC '%s' is %llu",
			 (unsigned long long)mtu, net->port->name,
			 (unsigned long long)net->port->config.mtu);
}

#define NET_OPS                                                                                    \
	.features = net_features, .negotiated = net_negotiated, .reset = net_reset,                \
	.queue_start = net_queue_start, .queue_stop = net_queue_stop,                              \
	.queue_poll = net_queue_poll, .set_mtu = net_set_mtu, .send_rarp = net_send_rarp

/* QEMU's, and with config space. */
static const struct virtio_device_ops net_ops = { NET_OPS };
static const struct virtio_device_ops net_config_ops = {
	NET_OPS,
	.config_size = sizeof(struct virtio_net_config),
	.state = net_state,
	.set_state = net_set_state,
	.config_read = net_config_read,
	.config_write = net_config_write,
};

static const struct port_ops net_port_ops = {
	.kind = "virtio-net",
	.transmit = net_place_transmit,
	.link_changed = net_link_changed,
};

/* --- made and gone ------------------------------------------------------------------- */

static void net_free(void *data)
{
	struct net *net = data;

	device_release(&net->dev.device);
	free(net);
}

static void leave(struct net *net)
{
	if (!net->errands)
		port_destroy(net->port, net_free, net);
}

/* No queue is in service. The port goes when the loops have forgotten it. */
static void net_destroy(struct device *device)
{
	struct net *net = net_of_device(device);

	net->leaving = true;
	leave(net);
}

static const struct device_ops device_ops = { .destroy = net_destroy };

static int net_check(const void *settings, const void *const *units, unsigned count,
		     struct error *err)
{
	(void)units;
	(void)count;
	return virtio_check_queue_size(((const struct net_settings *)settings)->queue_size, err);
}

static int make_port(struct net *net, const struct nic_plan *plan, struct error *err)
{
	struct port_facts facts = { .name = plan->name,
				    .kind = net_port_ops.kind,
				    .has_mac = true,
				    .mtu = (uint32_t)plan->config->mtu };
	struct port_config config;

	memcpy(facts.mac, plan->mac, sizeof facts.mac);
	if (port_config_copy(&config, plan->config))
		return error_set(err, ENOMEM, "out of memory");
	net->port =
		port_create(plan->vswitch, plan->name, &config, &facts, &net_port_ops, net, err);
	if (!net->port)
		return -err->code;
	for (unsigned i = 0; i < net->place_count; i++) {
		net->places[i].net = net;
		net->places[i].lane = port_lane(net->port, i);
	}
	return 0;
}

static struct device *net_create(const struct device_plan *plan, struct error *err)
{
	const struct net_settings *settings = plan->settings;
	const struct nic_plan *nic = plan->units[0].nic;
	const struct packet_loops *loops = vswitch_loops(nic->vswitch);
	size_t size = sizeof(struct net) + loops->count * sizeof(struct net_place);
	struct net *net = aligned_alloc(_Alignof(struct net), size);
	struct device *device;

	if (!net) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	memset(net, 0, size);
	net->pairs = (unsigned)settings->pairs;
	net->control = loops->control;
	net->place_count = loops->count;
	net->went_on_message.run = went_on;
	memcpy(net->factory_mac, nic->mac, sizeof net->factory_mac);
	device = &net->dev.device;
	device->kind = virtio_net_frontend.name;
	device->transport = virtio_net_frontend.transport->name;
	device->ops = &device_ops;
	if (device_init(device, plan, 1, 2 * net->pairs + 1, err)) {
		free(net);
		return NULL;
	}
	if (make_port(net, nic, err)) {
		net_free(net);
		return NULL;
	}
	device->queue_size = (unsigned)settings->queue_size;
	device->units[0].present = true;
	device->units[0].type = UNIT_NIC;
	device->units[0].port = net->port;
	net->dev.ops = settings->config_space ? &net_config_ops : &net_ops;
	net->dev.together = 2;
	net->dev.in_order = true;
	/* QEMU counts pairs, those who read config space count queues. */
	net->dev.queue_number = settings->config_space ? device->queues : net->pairs;
	net_reset(&net->dev);
	return device;
}

static const struct option options[] = {
	{ .name = "queue-pairs",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct net_settings, pairs),
	  .fallback = "1",
	  .min = 1,
	  .max = NET_PAIRS,
	  .help = "Pairs of queues, one to receive and one to transmit, that the guest may use; one for "
		  "each of its CPUs is best." },
	{ .name = "queue-size",
	  .type = OPTION_UINT,
	  .offset = offsetof(struct net_settings, queue_size),
	  .fallback = "256",
	  .min = 16,
	  .max = VIRTQUEUE_SIZE,
	  .help = "Entries of each queue, a power of two; what qemu-args tells the VMM." },
	{ .name = "config-space",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct net_settings, config_space),
	  .fallback = "false",
	  .help = "The VMM reads the device's configuration (address, link, MTU) here, and gives us its "
		  "control queue, as crosvm does. QEMU keeps both to itself." },
	{ 0 },
};

const struct frontend virtio_net_frontend = {
	.name = "virtio-net",
	.summary = "the virtio network device: a NIC on a switch, as fast as it gets",
	.description =
		"The network device of virtio 1.2 (section 5.1): several pairs of queues, mergeable "
		"buffers, checksums and the cutting of large TCP and UDP packets left to us in both "
		"directions. Between two guests such packets pass as they are, large and unsummed, and are "
		"copied once. Linux, the BSDs and network boot firmware (iPXE) have a driver; Windows takes one "
		"from the virtio-win collection.\n\n"
		"It is plugged into the switch that its NIC names, with the NIC's address, VLANs and "
		"layers. QEMU keeps the guest's view of the link and of its address to itself: `penstock "
		"qemu-args` tells it the address and the MTU.\n\n"
		"After a restart of penstock QEMU connects again, and the guest goes on where it was; not more "
		"is lost than was on its way.",
	.example = "switches:\n"
		   "  lan: {}\n"
		   "nics:\n"
		   "  web0: {switch: lan, mac: \"52:54:00:00:00:01\"}\n"
		   "vms:\n"
		   "  web:\n"
		   "    - {virtio-net: web0, socket: ./web-net.sock, queue-pairs: 2}\n",
	.transport = &vhost_user_transport,
	.qemu_device = "virtio-net-pci,netdev={netdev},mac={mac},mq=on,vectors={vectors},"
		       "rx_queue_size={queue-size},tx_queue_size={queue-size}",
	.reconnects = true,
	.settings_size = sizeof(struct net_settings),
	.options = options,
	.nic = true,
	.units = 1,
	.check = net_check,
	.create = net_create,
};
