/* SPDX-License-Identifier: BSD-3-Clause */
/* background.c - work that may wait, done by a thread of its own; see background.h */
#include "control/background.h"

#include <string.h>

#include "util/error.h"

static void ended(struct loop_message *message)
{
	struct background *b = container_of(message, struct background, message);

	pthread_join(b->thread, NULL);
	b->done(b);
}

static void *run(void *data)
{
	struct background *b = data;

	b->work(b);
	loop_send(b->control, &b->message);
	return NULL;
}

int background_start(struct background *background, struct loop *control,
		     void (*work)(struct background *), void (*done)(struct background *),
		     struct error *err)
{
	int ret;

	background->work = work;
	background->done = done;
	background->control = control;
	background->message.run = ended;
	ret = pthread_create(&background->thread, NULL, run, background);
	return ret ? error_set(err, ret, "cannot start a thread: %s", strerror(ret)) : 0;
}
