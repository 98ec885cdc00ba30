/* SPDX-License-Identifier: BSD-3-Clause */
/* client_net.c - commands about the switches and ports of a running penstock */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/client_private.h"
#include "control/invocation.h"
#include "util/must.h"

int client_set_port(const struct invocation *in)
{
	const char *name = in->arguments[0];
	json_t *options, *port, *value;
	char *path, *body;

	if (!client_name(name))
		return 2;
	options = client_assignments(in, 1);
	if (!options)
		return 2;
	path = client_path("/v1/ports/%s", name);
	body = must(json_dumps(options, JSON_COMPACT));
	port = client_ask(in, "PATCH", path, body);
	free(path);
	free(body);
	if (port) {
		const char *option;

		printf("port %s:", name);
		json_object_foreach(options, option, value)
		{
			const json_t *now = json_object_get(port, option);
			char *text = json_is_string(now) ? NULL : json_dumps(now, JSON_ENCODE_ANY);

			printf(" %s=%s", option,
			       json_is_string(now) ? json_string_value(now)
			       : text              ? text
						   : "");
			free(text);
		}
		printf("\n");
	}
	json_decref(options);
	json_decref(port);
	return port ? 0 : 1;
}

int client_addresses(const struct invocation *in)
{
	json_t *list, *address;
	char *path;
	size_t i;

	if (!client_name(in->arguments[0]))
		return 2;
	path = client_path("/v1/switches/%s/addresses", in->arguments[0]);
	list = client_ask(in, "GET", path, "");
	free(path);
	if (!list)
		return 1;
	if (in->json) {
		json_dumpf(list, stdout, JSON_INDENT(2));
		printf("\n");
	} else {
		printf("%-17s %5s %-20s %8s\n", "ADDRESS", "VLAN", "PORT", "AGE");
	}
	json_array_foreach(list, i, address)
	{
		if (in->json)
			break;
		printf("%-17s %5" PRIu64 " %-20s ", client_text(address, "mac"),
		       client_number(address, "vlan"), client_text(address, "port"));
		if (json_is_true(json_object_get(address, "static")))
			printf("%8s\n", "static");
		else
			printf("%6.0f s\n",
			       json_number_value(json_object_get(address, "age-seconds")));
	}
	json_decref(list);
	return 0;
}

int client_forget(const struct invocation *in)
{
	const char *port = in->count > 1 ? in->arguments[1] : NULL;
	json_t *answer;
	char *path;

	if (!client_name(in->arguments[0]) || (port && !client_name(port)))
		return 2;
	path = client_path("/v1/switches/%s/addresses%s%s", in->arguments[0], port ? "?port=" : "",
			   port ? port : "");
	answer = client_ask(in, "DELETE", path, "");
	free(path);
	if (!answer)
		return 1;
	printf("switch %s: %" PRIu64 " addresses forgotten\n", in->arguments[0],
	       client_number(answer, "forgotten"));
	json_decref(answer);
	return 0;
}
