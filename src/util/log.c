/* SPDX-License-Identifier: BSD-3-Clause */
/* log.c - the log on stderr; see log.h */
#include "util/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct {
	const char *name;
	int priority; /* syslog(3), for the journal */
} levels[] = {
	[LOG_ERROR] = { "error", 3 },
	[LOG_WARN] = { "warn", 4 },
	[LOG_INFO] = { "info", 6 },
	[LOG_DEBUG] = { "debug", 7 },
};

static atomic_int least = LOG_INFO;

void log_set_level(enum log_level level)
{
	atomic_store(&least, (int)level);
}

bool log_parse_level(const char *name, enum log_level *level)
{
	for (unsigned i = 0; i < sizeof levels / sizeof *levels; i++) {
		if (!strcmp(name, levels[i].name)) {
			*level = i;
			return true;
		}
	}
	return false;
}

void log_write(enum log_level level, const char *format, ...)
{
	char line[1024];
	va_list args;
	int n;

	if ((int)level > atomic_load_explicit(&least, memory_order_relaxed))
		return;
	if (getenv("JOURNAL_STREAM"))
		n = snprintf(line, sizeof line, "<%d>", levels[level].priority);
	else
		n = snprintf(line, sizeof line, "penstock: %s%s",
			     level == LOG_INFO ? "" : levels[level].name,
			     level == LOG_INFO ? "" : ": ");
	va_start(args, format);
	n += vsnprintf(line + n, sizeof line - 1 - (size_t)n, format, args);
	va_end(args);
	if (n > (int)sizeof line - 2)
		n = sizeof line - 2;
	line[n++] = '\n';
	/* One write, so that lines of several threads do not mix. */
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* nowhere left to say it */
}

bool log_limited(struct log_limit *limit)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (limit->window != (uint64_t)now.tv_sec) {
		limit->window = (uint64_t)now.tv_sec;
		limit->count = 0;
	}
	return limit->count++ < 5;
}
