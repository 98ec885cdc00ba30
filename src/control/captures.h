/* SPDX-License-Identifier: BSD-3-Clause */
/* captures.h - captures that last as long as somebody reads them; see captures.c */
#pragma once

struct call;

/** The route: answers with a stream of pcapng of the port that the path names. */
unsigned route_capture(struct call *call);
