/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log.h - one line on stderr for each thing worth telling
 *
 * When systemd reads stderr (JOURNAL_STREAM is set) a line begins with the
 * "<N>" priority of sd-daemon(3). Safe from any thread; never on the hot path.
 * What a guest can cause at will goes through log_limited().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/** Least important level that is still written. Default LOG_INFO. */
void log_set_level(enum log_level level);

/** Parses "error", "warn", "info", "debug". False if @name is none of them. */
bool log_parse_level(const char *name, enum log_level *level);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)

/** State of one limited source of messages; zero-initialise. One thread. */
struct log_limit {
	uint64_t window; /**< second in which @count began */
	unsigned count;  /**< messages in that second */
};

/** True at most 5 times a second: `if (log_limited(&x)) log_warn(...)`. */
bool log_limited(struct log_limit *limit);
