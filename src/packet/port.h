/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * port.h - a place on a switch: what is plugged in there (a NIC, an uplink), its layers, its
 * counters
 *
 *     NIC or uplink  --in-->  layers, first to last  -->  switch  -->
 *                    <--out--  layers, last to first  <--          <--
 *
 * Directions are the switch's: in is what the guest (or the world behind an uplink) sends.
 *
 * A port has a lane on each loop: what belongs to the port there, and is touched by that loop's
 * thread only: the states of its layers, counters, what is about to be sent. What is plugged in is
 * present on one loop or several (the queues of a NIC). A packet for a port that is present on the
 * loop where it came in is sent there; else it crosses to a loop where the port is
 * present (crossing.h).
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "io/stats.h"
#include "loop/loop.h"
#include "packet/packet.h"
#include "util/option.h"

struct chain_of_layers;
struct error;
struct json_t;
struct lane;
struct kept;
struct port;
struct vswitch;

/** Most loops; config.loops has the same limit. */
#define PORT_LOOPS 256u

enum packet_direction { PACKET_IN, PACKET_OUT, PACKET_DIRECTIONS };

/** Why a packet was dropped by the switch or a port; names in port_drop_names. */
enum port_drop {
	DROP_MALFORMED, /**< shorter than an Ethernet header, longer than any frame */
	DROP_OFFLOAD,   /**< a request to sum or cut it that makes no sense */
	DROP_VLAN,      /**< in: a tag that this port does not take */
	DROP_SOURCE, /**< in: its source address is a multicast address, or a static one of another
			port */
	DROP_FLOOD_LIMIT, /**< in: over flood-limit */
	DROP_SELF,        /**< in: its destination is behind the port it came from */
	DROP_ISOLATED,    /**< in: its destination is isolated as well */
	DROP_RESERVED,    /**< in: to an address that no bridge forwards (802.1Q, table 8-1) */
	DROP_NOWHERE,     /**< in: no port wants it */
	DROP_DOWN,        /**< the port is down, or nobody is plugged in */
	DROP_TOO_LONG,    /**< out: longer than the port's MTU, or than the guest's buffers */
	DROP_NO_BUFFER,   /**< out: the guest has no receive buffers, the uplink's queue is full */
	DROP_FILTER,      /**< out: not for the guest, by its receive mode and tables */
	DROP_NO_MEMORY,   /**< the pool is full, or too many are crossing */
	DROP_ERROR,       /**< out: the kernel or the peer refused it */
	PORT_DROPS
};
extern const char *const port_drop_names[PORT_DROPS];

/** Counters of one lane; its thread writes, anybody reads. */
struct lane_stats {
	struct {
		stats_counter packets, bytes; /**< received (in), delivered (out) */
		stats_counter drops[PORT_DROPS];
	} direction[PACKET_DIRECTIONS];
	stats_counter
		flooded; /**< in: sent to more than one port, since its destination is not known */
	stats_counter crossed; /**< in: handed to another loop */
	stats_counter refused; /**< in: addresses not learned: over the port's cap, or too fast */
	stats_counter cut;     /**< out: packets made by cutting large ones */
	stats_counter summed;  /**< out: checksums computed */
};

/** What is plugged in. */
struct port_ops {
	const char *kind; /**< "virtio-net", "tap", ... */
	/**
	 * Sends the live packets of @batch, all of which fit @lane->accepts. What it cannot send it
	 * counts with lane_drop(lane, PACKET_OUT, ...). What it sends it counts with lane_sent().
	 * It never waits. The packets are borrowed until it returns. On the lane's loop.
	 */
	void (*transmit)(struct lane *lane, struct packet_batch *batch);
	/** What there is to say of it for status and the API; a new object or NULL; control thread.
	 * May be absent. */
	struct json_t *(*report)(struct port *port);
	/** Up or down has changed by the user's will (@port->up). Control thread. May be absent. */
	void (*link_changed)(struct port *port);
};

/** A port on one loop. */
struct lane {
	struct port *port;
	struct loop *loop;
	unsigned index;                /**< of the loop, and of the lane in port->lanes */
	struct packet_pool *pool;      /**< of the loop */
	struct chain_of_layers *chain; /**< the layers, as of now; see chain.h */
	void *endpoint;          /**< the plugged-in's; NULL: it is not present on this loop */
	unsigned accepts;        /**< OFFLOAD_ of what is plugged in; it sets it before lane_up() */
	uint32_t mtu;            /**< of the port, as of now on this loop */
	bool up;                 /**< likewise */
	struct packet_batch out; /**< switched here, about to be sent; borrowed, or views */
	bool touched;            /**< it is on the list of those with something in @out */
	struct lane *next_touched;
	struct kept *going_on, **going_on_last; /**< what layers have passed on; see chain.h */
	struct loop_task go_on;
	uint64_t flood_second; /**< the second that @flooded_now counts */
	uint32_t flooded_now;  /**< frames that went to several ports */
	uint32_t learned_now;  /**< addresses that were new, in that second */
	struct lane_stats stats;
};

/** What a user says of a port, whatever is plugged in. */
struct port_config {
	char *switch_name;  /**< "switch" */
	uint64_t mtu;       /**< longest IP packet: 68..65535 */
	uint64_t vlan;      /**< that untagged frames belong to, 1..4094; 0 with trunk: none */
	char *trunk;        /**< VLANs that come and go with a tag: "all", "10,20-29"; NULL: none */
	bool isolated;      /**< it and other isolated ports do not reach one another */
	uint64_t addresses; /**< most MAC addresses that are learned here */
	char *statics; /**< "static": MAC addresses that are behind it for good, "A,B"; NULL: none
			*/
	bool learning;
	bool unknown; /**< gets frames whose destination is not known */
	uint64_t
		flood_limit; /**< frames a second from here that go to several ports; 0: no limit */
	char *mirror; /**< "mirror": ports whose frames, in and out, are copied here: "all", "A,B";
			 such a port sends nothing into the switch */
	bool up;
};
extern const struct option port_options[]; /**< into struct port_config */

/** What a layer may know of its port. */
struct port_facts {
	const char *name;
	const char *kind;
	uint8_t mac[6]; /**< of a NIC; zeroes: not known */
	bool has_mac;
	uint32_t mtu;
};

struct port {
	char *name;
	struct vswitch *vswitch;
	unsigned index; /**< in its switch; stays while it is plugged in */
	const struct port_ops *ops;
	void *owner;               /**< the plugged-in's */
	struct port_config config; /**< control thread; the loops see vswitch views of it */
	struct port_facts facts;
	bool up;          /**< by config; control thread */
	bool plugged;     /**< somebody is (a guest's driver, a peer); for status; control thread */
	char reason[160]; /**< why not, if there is something to say; "" */
	_Atomic uint64_t present[PORT_LOOPS / 64]; /**< loops where an endpoint is */
	unsigned lane_count;
	struct lane **lanes;          /**< one for each loop */
	struct packet_layer **layers; /**< first is next to the device; control thread */
	unsigned layer_count;
	bool layers_changing; /**< see port_set_layers() */
};

/**
 * Plugs a port into @vswitch: its options come from @config, whose texts it takes over (and frees
 * on failure). Layers: port_set_layers(). Control thread; loops may be running. NULL with @err.
 */
struct port *port_create(struct vswitch *vswitch, const char *name, struct port_config *config,
			 const struct port_facts *facts, const struct port_ops *ops, void *owner,
			 struct error *err);

/**
 * Takes it out, when what was plugged in is no longer present anywhere and all its bursts have
 * been released; @done(@data) on the control loop when no loop knows it any more, and it is freed.
 */
void port_destroy(struct port *port, void (*done)(void *data), void *data);

/** Checks @config against what the tables of options cannot say. 0 or -EINVAL with @err: "NAME of
 * the option: ...". */
int port_config_check(const struct port_config *config, struct error *err);

/**
 * Other settings, while packets flow: takes the texts of @config over, frees them on failure. The
 * switch cannot change. 0 or -errno with @err and nothing changed. In force on all loops before
 * @done(@data, 0) is called on the control loop.
 */
int port_change(struct port *port, struct port_config *config, void (*done)(void *data, int status),
		void *data, struct error *err);

/* --- its loop: for what is plugged in -------------------------------------------------- */

static inline struct lane *port_lane(struct port *port, unsigned loop_index)
{
	return port->lanes[loop_index];
}

/** The lane on @loop. */
struct lane *port_lane_of(struct port *port, const struct loop *loop);

/** From now on packets for the port may be sent here; @endpoint is not NULL. @lane->accepts is set.
 */
void lane_up(struct lane *lane, void *endpoint);
/** transmit() is not called here any more. */
void lane_down(struct lane *lane);

/**
 * Packets have come in. The caller has filled @burst (burst_begin, burst_add) and calls burst_put()
 * afterwards. Offloads need not have been checked. Packets may be dropped, changed, sent, lent.
 */
void lane_receive(struct lane *lane, struct burst *burst);

/** Counts packet @i of @batch as dropped, and takes it out. */
static inline void lane_drop(struct lane *lane, enum packet_direction direction,
			     enum port_drop cause, struct packet_batch *batch, unsigned i)
{
	stats_add(&lane->stats.direction[direction].drops[cause], 1);
	batch_take(batch, i);
}

/** Counts @packets and @bytes as delivered. */
static inline void lane_sent(struct lane *lane, uint64_t packets, uint64_t bytes)
{
	stats_add(&lane->stats.direction[PACKET_OUT].packets, packets);
	stats_add(&lane->stats.direction[PACKET_OUT].bytes, bytes);
}
