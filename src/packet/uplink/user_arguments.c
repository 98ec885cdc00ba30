/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * user_arguments.c - from the settings of an uplink `user` to the command line of passt
 *
 * Checked here is what passt would not say well, or not at all: it does not know which option of
 * ours its own came from.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packet/uplink/user.h"
#include "util/error.h"

#define MTU_MOST 65520u /* that passt announces: with a header of Ethernet no more than 65535 */

static int add(struct user_arguments *arguments, struct error *err, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int add(struct user_arguments *arguments, struct error *err, const char *format, ...)
{
	va_list args;
	char *word;
	int ret;

	if (arguments->count == USER_WORDS)
		return error_set(err, EINVAL, "forward: expected fewer entries");
	va_start(args, format);
	ret = vasprintf(&word, format, args);
	va_end(args);
	if (ret < 0)
		return error_set(err, ENOMEM, "out of memory");
	arguments->word[arguments->count++] = word;
	arguments->word[arguments->count] = NULL;
	return 0;
}

void user_arguments_release(struct user_arguments *arguments)
{
	for (unsigned i = 0; i < arguments->count; i++)
		free(arguments->word[i]);
	arguments->count = 0;
}

/* Calls @each for the entries of @list, separated by commas, without spaces around them. */
static int for_each_entry(const char *list, struct user_arguments *arguments, struct error *err,
			  int (*each)(const char *entry, struct user_arguments *arguments,
				      struct error *err))
{
	for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
		char entry[160];
		size_t length;
		int ret;

		at += strspn(at, " ");
		length = strcspn(at, ",");
		while (length && at[length - 1] == ' ')
			length--;
		if (length >= sizeof entry)
			return error_set(err, EINVAL, "'%.40s...' is too long", at);
		memcpy(entry, at, length);
		entry[length] = 0;
		ret = each(entry, arguments, err);
		if (ret)
			return ret;
	}
	return 0;
}

static bool is_address(int family, const char *text)
{
	unsigned char bytes[sizeof(struct in6_addr)];

	return inet_pton(family, text, bytes) == 1;
}

/* --- forwarded ports ---------------------------------------------------------------- */

struct ports {
	unsigned first, last;
};

/* "80" or "8000-8010" at *@text, which goes on behind it. */
static bool parse_ports(const char **text, struct ports *ports)
{
	char *end;

	if (**text < '0' || **text > '9')
		return false;
	ports->first = ports->last = (unsigned)strtoul(*text, &end, 10);
	if (*end == '-' && end[1] >= '0' && end[1] <= '9')
		ports->last = (unsigned)strtoul(end + 1, &end, 10);
	*text = end;
	return ports->first >= 1 && ports->last <= 65535 && ports->first <= ports->last;
}

/* An address and the colon behind it at *@text, which goes on there; or none. */
static bool parse_address(const char **text, char address[64])
{
	const char *begin = *text, *end;
	bool six = *begin == '[';

	*address = 0;
	begin += six;
	end = six ? strchr(begin, ']') : strchr(begin, ':');
	if (!six && (!end || !memchr(begin, '.', (size_t)(end - begin))))
		return true; /* a port */
	if (!end || end - begin >= 64 || (six && end[1] != ':'))
		return false;
	memcpy(address, begin, (size_t)(end - begin));
	address[end - begin] = 0;
	*text = end + (six ? 2 : 1);
	return is_address(six ? AF_INET6 : AF_INET, address);
}

static int forward(const char *entry, struct user_arguments *arguments, struct error *err)
{
	bool udp = !strncmp(entry, "udp:", 4);
	const char *at = entry + (udp || !strncmp(entry, "tcp:", 4) ? 4 : 0);
	struct ports host = { 0 }, guest;
	char address[64];
	bool good;
	int ret;

	good = parse_address(&at, address) && parse_ports(&at, &host);
	guest = host;
	if (good && *at == ':') {
		at++;
		good = parse_ports(&at, &guest);
	}
	if (!good || *at)
		return error_set(err, EINVAL,
				 "forward: '%s': expected [tcp:|udp:][ADDRESS:]PORT[:GUEST-PORT], "
				 "as in tcp:127.0.0.1:8080:80 or udp:[::1]:5000-5010",
				 entry);
	if (host.last - host.first != guest.last - guest.first)
		return error_set(
			err, EINVAL,
			"forward: '%s': expected as many ports of the guest as of the host", entry);
	ret = add(arguments, err, udp ? "-u" : "-t");
	if (ret)
		return ret;
	return add(arguments, err, "%s%s%u-%u:%u-%u", address, *address ? "/" : "", host.first,
		   host.last, guest.first, guest.last);
}

/* --- the rest ----------------------------------------------------------------------- */

static int address(const char *entry, struct user_arguments *arguments, struct error *err)
{
	char text[64];
	const char *slash = strchr(entry, '/');
	unsigned bits = 0;
	int end = 0, ret;

	snprintf(text, sizeof text, "%.*s", (int)(slash ? slash - entry : 63), entry);
	if (slash && (sscanf(slash, "/%u%n", &bits, &end) != 1 || slash[end] || bits < 1 ||
		      bits > 31 || strchr(text, ':')))
		text[0] = 0;
	if (!is_address(AF_INET, text) && !is_address(AF_INET6, text))
		return error_set(err, EINVAL,
				 "address: '%s': expected an IPv4 address with the length of its "
				 "prefix (10.0.2.15/24), or an IPv6 address",
				 entry);
	ret = add(arguments, err, "-a") ?: add(arguments, err, "%s", text);
	if (!ret && slash)
		ret = add(arguments, err, "-n") ?: add(arguments, err, "%u", bits);
	return ret;
}

static int gateway(const char *entry, struct user_arguments *arguments, struct error *err)
{
	if (!is_address(AF_INET, entry) && !is_address(AF_INET6, entry))
		return error_set(err, EINVAL, "gateway: '%s': expected an IPv4 or an IPv6 address",
				 entry);
	return add(arguments, err, "-g") ?: add(arguments, err, "%s", entry);
}

static int dns(const char *entry, struct user_arguments *arguments, struct error *err)
{
	if (strcmp(entry, "none") && !is_address(AF_INET, entry) && !is_address(AF_INET6, entry))
		return error_set(err, EINVAL, "dns: '%s': expected addresses, or none", entry);
	return add(arguments, err, "-D") ?: add(arguments, err, "%s", entry);
}

int user_arguments(const struct user_settings *settings, uint32_t mtu,
		   struct user_arguments *arguments, struct error *err)
{
	int ret;

	arguments->count = 0;
	ret = add(arguments, err, "%s", settings->program) ?: add(arguments, err, "-f") ?:
	      add(arguments, err, "-q") ?: add(arguments, err, "-F") ?:
	      add(arguments, err, "%d", USER_CHILD_FD) ?: add(arguments, err, "-m") ?:
	      add(arguments, err, "%u", mtu < MTU_MOST ? mtu : MTU_MOST);
	if (!ret && !settings->ipv6)
		ret = add(arguments, err, "-4");
	if (!ret && !settings->ipv4)
		ret = add(arguments, err, "-6");
	if (!ret && !settings->loopback)
		ret = add(arguments, err, "--no-map-gw");
	if (!ret && settings->interface)
		ret = add(arguments, err, "-i") ?: add(arguments, err, "%s", settings->interface);
	if (!ret && settings->address)
		ret = for_each_entry(settings->address, arguments, err, address);
	if (!ret && settings->gateway)
		ret = for_each_entry(settings->gateway, arguments, err, gateway);
	if (!ret && settings->dns)
		ret = for_each_entry(settings->dns, arguments, err, dns);
	if (!ret && settings->forward)
		ret = for_each_entry(settings->forward, arguments, err, forward);
	/* passt would forward the ports of TCP for UDP as well. */
	if (!ret && (!settings->forward || !strstr(settings->forward, "udp:")))
		ret = add(arguments, err, "-u") ?: add(arguments, err, "none");
	if (ret)
		user_arguments_release(arguments);
	return ret;
}
