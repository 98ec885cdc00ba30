/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_stream.h - bytes to and from an NBD client, as they are or in TLS
 *
 * Non-blocking. One thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

struct error;
struct nbd_tls;
struct ssl_st;

/** A connected socket. */
struct nbd_stream {
	int fd;
	struct ssl_st *tls; /**< NULL: in the clear */
	char *staged;       /**< with TLS: what the next records hold */
	size_t staged_bytes, staged_sent;
};

/** What a server needs for TLS: NULL with @err. One of @certificates (directory), @psk (file). */
struct nbd_tls *nbd_tls_open(const char *certificates, const char *psk, bool verify,
			     struct error *err);
void nbd_tls_close(struct nbd_tls *tls);

/** From now on TLS is spoken. 0 or -errno. */
int nbd_stream_encrypt(struct nbd_stream *stream, struct nbd_tls *tls);

/** Goes on with the handshake: 0 when it is done, -EAGAIN, or -EPROTO with @why. */
int nbd_stream_handshake(struct nbd_stream *stream, const char **why);

/** Reads into @vec: how many bytes, 0 at the end, -EAGAIN if there are none now, or -errno. */
ssize_t nbd_stream_read(struct nbd_stream *stream, const struct iovec *vec, int count);

/**
 * Writes from @vec: how many bytes were taken, -EAGAIN if none can be now, or -errno.
 */
ssize_t nbd_stream_write(struct nbd_stream *stream, const struct iovec *vec, int count);

/** True if bytes that were taken by nbd_stream_write() are still to be sent, by calling it again.
 */
static inline bool nbd_stream_staged(const struct nbd_stream *stream)
{
	return stream->staged_sent < stream->staged_bytes;
}

/** Ends TLS if it was spoken, and closes the socket. */
void nbd_stream_close(struct nbd_stream *stream);
