/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * changes_net.c - routes of the control API about switches and ports
 *
 * The layers of a port are changed in changes_layers.c, as those of a disk.
 */
#include <errno.h>
#include <string.h>

#include "control/calls.h"
#include "control/changes.h"
#include "control/daemon.h"
#include "control/networks.h"
#include "control/report.h"
#include "packet/port.h"
#include "packet/vswitch.h"
#include "util/error.h"
#include "util/suggest.h"

/* --- ports ----------------------------------------------------------------------------- */

static void offer(void *data, struct port *port)
{
	suggest_offer(data, port->name);
}

unsigned route_no_port(struct call *call, const char *name)
{
	struct suggestion nearest = suggest_for(name);

	networks_each_port(call->daemon, offer, &nearest);
	return route_fail(call, 404, "no port '%s'%s%s%s", name,
			  nearest.best ? "; did you mean '" : "", nearest.best ? nearest.best : "",
			  nearest.best ? "'?" : "");
}

unsigned route_port(struct call *call)
{
	struct port *port = daemon_port(call->daemon, call->name[0]);

	return port ? route_answer(call, report_port(call->daemon, port))
		    : route_no_port(call, call->name[0]);
}

unsigned route_ports(struct call *call)
{
	return route_answer(call, report_ports(call->daemon));
}

unsigned change_set_port(struct call *call)
{
	struct port *port = daemon_port(call->daemon, call->name[0]);
	unsigned status = 0;
	json_t *body = port ? call_body(call, &status) : NULL;
	struct error err = { 0 };
	int ret;

	if (!port)
		return route_no_port(call, call->name[0]);
	if (!body)
		return status;
	if (json_object_size(body))
		ret = networks_set_options(call->daemon, port, body, call_prepare(call, route_port),
					   &err);
	else
		ret = error_set(&err, EINVAL,
				"expected options of a port, such as {\"up\": false}");
	json_decref(body);
	return ret ? call_refuse(call, &err)
		   : call_wait(call, "all loops to know the new options of port '%s'",
			       call->name[0]);
}

/* --- switches ---------------------------------------------------------------------------- */

static unsigned no_switch(struct call *call, const char *name)
{
	struct suggestion nearest = suggest_for(name);
	struct vswitch *vswitch;

	for (unsigned i = 0; (vswitch = networks_switch_at(call->daemon, i)); i++)
		suggest_offer(&nearest, vswitch_name(vswitch));
	return route_fail(call, 404, "no switch '%s'%s%s%s", name,
			  nearest.best ? "; did you mean '" : "", nearest.best ? nearest.best : "",
			  nearest.best ? "'?" : "");
}

unsigned route_switches(struct call *call)
{
	return route_answer(call, report_switches(call->daemon));
}

unsigned route_switch(struct call *call)
{
	struct vswitch *vswitch = networks_switch(call->daemon, call->name[0]);

	return vswitch ? route_answer(call, report_switch(vswitch))
		       : no_switch(call, call->name[0]);
}

unsigned route_addresses(struct call *call)
{
	struct vswitch *vswitch = networks_switch(call->daemon, call->name[0]);

	return vswitch ? route_answer(call, report_addresses(vswitch))
		       : no_switch(call, call->name[0]);
}

unsigned change_forget(struct call *call)
{
	struct vswitch *vswitch = networks_switch(call->daemon, call->name[0]);
	const char *name = call->parameter ? call->parameter(call, "port") : NULL;
	struct port *port = vswitch && name ? vswitch_port(vswitch, name) : NULL;

	if (!vswitch)
		return no_switch(call, call->name[0]);
	if (name && !port)
		return route_fail(call, 404, "no port '%s' on switch '%s'", name, call->name[0]);
	if (call->length)
		return route_fail(call, 400, "there is a body; expected none");
	return route_answer(
		call, json_pack("{s:I}", "forgotten", (json_int_t)vswitch_forget(vswitch, port)));
}
