/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_stream.c - bytes to and from an NBD client, as they are or in TLS; see nbd_stream.h
 *
 * TLS is OpenSSL's, on the socket itself. What is to be sent is gathered into records of the
 * largest size first: replies are many small pieces, and a record for each would cost more than the
 * copy. Bytes that were gathered count as written; the caller comes back for them, see
 * nbd_stream_staged().
 *
 * Credentials are where other servers of NBD have them: a directory with ca-cert.pem,
 * server-cert.pem and server-key.pem, or a file of GnuTLS's psktool with a line NAME:HEXKEY each.
 */
#include "transport/nbd_stream.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/error.h"

#define STAGE   65536u /* four records */
#define PSK_MAX 256u   /* bytes of a key */

struct nbd_tls {
	SSL_CTX *context;
	char *psk; /* path, or NULL */
};

/* --- credentials -------------------------------------------------------------------- */

static const char *reason(void)
{
	unsigned long code = ERR_peek_last_error();
	const char *text = code ? ERR_reason_error_string(code) : NULL;

	return text ? text : "no reason given";
}

static int load(struct nbd_tls *tls, const char *directory, bool verify, struct error *err)
{
	char ca[4096], cert[4096], key[4096];

	snprintf(ca, sizeof ca, "%s/ca-cert.pem", directory);
	snprintf(cert, sizeof cert, "%s/server-cert.pem", directory);
	snprintf(key, sizeof key, "%s/server-key.pem", directory);
	if (SSL_CTX_use_certificate_chain_file(tls->context, cert) != 1)
		return error_set(err, EINVAL, "tls-certificates: %s: %s", cert, reason());
	if (SSL_CTX_use_PrivateKey_file(tls->context, key, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_check_private_key(tls->context) != 1)
		return error_set(err, EINVAL, "tls-certificates: %s: %s", key, reason());
	if (!verify)
		return 0;
	if (SSL_CTX_load_verify_locations(tls->context, ca, NULL) != 1)
		return error_set(err, EINVAL,
				 "tls-certificates: %s: %s; it says whose clients may come in", ca,
				 reason());
	SSL_CTX_set_client_CA_list(tls->context, SSL_load_client_CA_file(ca));
	SSL_CTX_set_verify(tls->context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return 0;
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The key in a line "NAME:HEXKEY" if the name is @name; 0: it is not. */
static unsigned key_of_line(const char *line, const char *name, unsigned char *key, unsigned most)
{
	size_t length = strlen(name);
	unsigned bytes = 0;

	if (strncmp(line, name, length) || line[length] != ':')
		return 0;
	for (line += length + 1; hex(line[0]) >= 0 && hex(line[1]) >= 0 && bytes < most; line += 2)
		key[bytes++] = (unsigned char)(hex(line[0]) << 4 | hex(line[1]));
	return line[strspn(line, "\r\n")] ? 0 : bytes;
}

/* The file is read each time, so that keys can be added and withdrawn. 0: there is no such name. */
static unsigned find_key(SSL *ssl, const char *name, unsigned char *key, unsigned most)
{
	const char *path = SSL_get_app_data(ssl);
	FILE *file = fopen(path, "re");
	unsigned bytes = 0;
	char line[1024];

	while (file && !bytes && fgets(line, sizeof line, file))
		bytes = key_of_line(line, name, key, most);
	if (file)
		fclose(file);
	OPENSSL_cleanse(line, sizeof line);
	return bytes;
}

struct nbd_tls *nbd_tls_open(const char *certificates, const char *psk, bool verify,
			     struct error *err)
{
	struct nbd_tls *tls = calloc(1, sizeof *tls);

	if (tls)
		tls->context = SSL_CTX_new(TLS_server_method());
	if (!tls || !tls->context || (psk && !(tls->psk = strdup(psk)))) {
		error_set(err, ENOMEM, "out of memory");
		nbd_tls_close(tls);
		return NULL;
	}
	SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION);
	SSL_CTX_set_options(tls->context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
						  SSL_OP_NO_TICKET | SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_session_cache_mode(tls->context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(tls->context,
			 SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	if (psk && access(psk, R_OK))
		error_set(err, errno, "tls-psk: %s: %s", psk, strerror(errno));
	else if (psk)
		SSL_CTX_set_psk_server_callback(tls->context, find_key);
	if (!(psk && err->code) && (!certificates || !load(tls, certificates, verify, err)))
		return tls;
	nbd_tls_close(tls);
	ERR_clear_error();
	return NULL;
}

void nbd_tls_close(struct nbd_tls *tls)
{
	if (!tls)
		return;
	SSL_CTX_free(tls->context);
	free(tls->psk);
	free(tls);
}

/* --- TLS ---------------------------------------------------------------------------- */

int nbd_stream_encrypt(struct nbd_stream *stream, struct nbd_tls *tls)
{
	stream->tls = SSL_new(tls->context);
	stream->staged = malloc(STAGE);
	if (!stream->tls || !stream->staged || SSL_set_fd(stream->tls, stream->fd) != 1)
		return -ENOMEM;
	SSL_set_app_data(stream->tls, tls->psk);
	SSL_set_accept_state(stream->tls);
	return 0;
}

int nbd_stream_handshake(struct nbd_stream *stream, const char **why)
{
	int ret, code;

	ERR_clear_error();
	ret = SSL_do_handshake(stream->tls);
	if (ret == 1)
		return 0;
	code = SSL_get_error(stream->tls, ret);
	if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE)
		return -EAGAIN;
	*why = code == SSL_ERROR_SSL ? reason() : "the client left";
	return -EPROTO;
}

/* What a failed call of OpenSSL means. */
static ssize_t failure(struct nbd_stream *stream, int ret)
{
	switch (SSL_get_error(stream->tls, ret)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		return errno ? -errno : -EPIPE;
	default:
		return -EPROTO;
	}
}

static ssize_t read_records(struct nbd_stream *stream, const struct iovec *vec, int count)
{
	size_t total = 0;

	for (int i = 0; i < count; i++) {
		for (size_t at = 0; at < vec[i].iov_len;) {
			size_t most = vec[i].iov_len - at;
			int ret;

			ERR_clear_error();
			ret = SSL_read(stream->tls, (char *)vec[i].iov_base + at,
				       most > INT32_MAX ? INT32_MAX : (int)most);
			if (ret <= 0)
				return total ? (ssize_t)total : failure(stream, ret);
			at += (size_t)ret;
			total += (size_t)ret;
		}
	}
	return (ssize_t)total;
}

/* 0 when nothing is left, or -errno. */
static ssize_t send_staged(struct nbd_stream *stream)
{
	while (nbd_stream_staged(stream)) {
		int ret;

		ERR_clear_error();
		ret = SSL_write(stream->tls, stream->staged + stream->staged_sent,
				(int)(stream->staged_bytes - stream->staged_sent));
		if (ret <= 0)
			return failure(stream, ret) ?: -EPIPE;
		stream->staged_sent += (size_t)ret;
	}
	stream->staged_bytes = stream->staged_sent = 0;
	return 0;
}

static ssize_t write_records(struct nbd_stream *stream, const struct iovec *vec, int count)
{
	ssize_t total = 0, ret = send_staged(stream);

	if (ret)
		return ret;
	for (int i = 0; i < count && stream->staged_bytes < STAGE; i++) {
		size_t n = STAGE - stream->staged_bytes;

		if (n > vec[i].iov_len)
			n = vec[i].iov_len;
		memcpy(stream->staged + stream->staged_bytes, vec[i].iov_base, n);
		stream->staged_bytes += n;
		total += (ssize_t)n;
	}
	ret = send_staged(stream);
	return ret && ret != -EAGAIN ? ret : total;
}

/* --- either ------------------------------------------------------------------------- */

ssize_t nbd_stream_read(struct nbd_stream *stream, const struct iovec *vec, int count)
{
	ssize_t n;

	if (stream->tls)
		return read_records(stream, vec, count);
	do
		n = count == 1 ? recv(stream->fd, vec->iov_base, vec->iov_len, MSG_DONTWAIT)
			       : readv(stream->fd, vec, count);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t nbd_stream_write(struct nbd_stream *stream, const struct iovec *vec, int count)
{
	struct msghdr message = { .msg_iov = (struct iovec *)vec, .msg_iovlen = (size_t)count };
	ssize_t n;

	if (stream->tls)
		return write_records(stream, vec, count);
	do
		n = sendmsg(stream->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

void nbd_stream_close(struct nbd_stream *stream)
{
	if (stream->tls) {
		ERR_clear_error();
		SSL_shutdown(stream->tls);
		SSL_free(stream->tls);
		stream->tls = NULL;
	}
	free(stream->staged);
	stream->staged = NULL;
	if (stream->fd < 0)
		return;
	/* The kernel may hold the socket for a while, for a watch that has just ended. */
	shutdown(stream->fd, SHUT_RDWR);
	close(stream->fd);
	stream->fd = -1;
}
