/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_request.c - what a request of an NBD client may be, and what it is answered
 *
 * Plain functions of bytes. A reply is one message: a header, and what follows it. With structured
 * replies negotiated a read is answered by one chunk with all its data, an error by a chunk with a
 * text, and all else by the short simple reply, which the protocol allows then as well.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "transport/nbd_private.h"

bool nbd_request_read(struct nbd_request *request, const uint8_t *bytes)
{
	struct nbd_request_header header;

	memcpy(&header, bytes, sizeof header);
	request->cookie = header.cookie; /* theirs, in whatever order */
	request->offset = be64toh(header.offset);
	request->length = be32toh(header.length);
	request->type = be16toh(header.type);
	request->flags = be16toh(header.flags);
	return be32toh(header.magic) == NBD_REQUEST_MAGIC;
}

/* The transmission flag that must have been offered for a command; UINT16_MAX: unknown. */
static uint16_t needed(uint16_t type)
{
	switch (type) {
	case NBD_CMD_READ:
	case NBD_CMD_WRITE:
		return 0;
	case NBD_CMD_FLUSH:
		return NBD_FLAG_SEND_FLUSH;
	case NBD_CMD_TRIM:
		return NBD_FLAG_SEND_TRIM;
	case NBD_CMD_CACHE:
		return NBD_FLAG_SEND_CACHE;
	case NBD_CMD_WRITE_ZEROES:
		return NBD_FLAG_SEND_WRITE_ZEROES;
	default:
		return UINT16_MAX;
	}
}

static bool writes(uint16_t type)
{
	return type == NBD_CMD_WRITE || type == NBD_CMD_TRIM || type == NBD_CMD_WRITE_ZEROES;
}

/* FUA is for any command, once it was offered. */
static uint16_t flags_allowed(uint16_t type, const struct nbd_terms *terms)
{
	uint16_t allowed = terms->flags & NBD_FLAG_SEND_FUA ? NBD_CMD_FLAG_FUA : 0;

	if (type == NBD_CMD_READ && terms->structured)
		allowed |= NBD_CMD_FLAG_DF;
	if (type == NBD_CMD_WRITE_ZEROES)
		allowed |= NBD_CMD_FLAG_NO_HOLE;
	return allowed;
}

enum nbd_error nbd_request_check(const struct nbd_request *request, const struct nbd_terms *terms,
				 uint64_t size)
{
	uint16_t type = request->type, offered = needed(type);

	if (writes(type) && terms->flags & NBD_FLAG_READ_ONLY)
		return NBD_EPERM;
	if (offered & ~terms->flags || request->flags & ~flags_allowed(type, terms))
		return NBD_EINVAL;
	if (type == NBD_CMD_FLUSH)
		return request->offset || request->length ? NBD_EINVAL : NBD_OK;
	if (request->offset % terms->block_size || request->length % terms->block_size)
		return NBD_EINVAL;
	if (request->offset > size || request->length > size - request->offset)
		return type == NBD_CMD_WRITE || type == NBD_CMD_WRITE_ZEROES ? NBD_ENOSPC
									     : NBD_EINVAL;
	if (type == NBD_CMD_READ && request->length > NBD_PAYLOAD_BYTES)
		return terms->structured ? NBD_EOVERFLOW : NBD_EINVAL;
	if (type == NBD_CMD_WRITE && request->length > NBD_PAYLOAD_BYTES)
		return NBD_EINVAL;
	return NBD_OK;
}

enum nbd_error nbd_error_of(int status, uint16_t type)
{
	switch (-status) {
	case 0:
		return NBD_OK;
	case EPERM:
	case EACCES:
	case EROFS:
		return NBD_EPERM;
	case ENOMEM:
		return NBD_ENOMEM;
	case EINVAL:
	case EOPNOTSUPP:
		return NBD_EINVAL;
	case ERANGE:
		return type == NBD_CMD_WRITE || type == NBD_CMD_WRITE_ZEROES ? NBD_ENOSPC
									     : NBD_EINVAL;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return NBD_ENOSPC;
	default:
		return NBD_EIO;
	}
}

/* --- replies ------------------------------------------------------------------------- */

static void answer_simply(struct nbd_request *request, enum nbd_error error)
{
	request->head.simple = (struct nbd_simple_reply){ htobe32(NBD_SIMPLE_MAGIC), htobe32(error),
							  request->cookie };
	request->reply[0].iov_len = sizeof request->head.simple;
}

static struct nbd_chunk_header chunk(const struct nbd_request *request, enum nbd_chunk type,
				     size_t length)
{
	return (struct nbd_chunk_header){ htobe32(NBD_CHUNK_MAGIC), htobe16(NBD_REPLY_FLAG_DONE),
					  htobe16(type), request->cookie,
					  htobe32((uint32_t)length) };
}

void nbd_request_answer(struct nbd_request *request, const struct nbd_terms *terms)
{
	bool read = request->type == NBD_CMD_READ;

	request->reply[0].iov_base = &request->head;
	request->reply[1] = (struct iovec){ request->vec.iov_base, read ? request->length : 0 };
	if (!read || !terms->structured) {
		answer_simply(request, NBD_OK);
	} else if (request->length) {
		request->head.data = (struct nbd_chunk_data){
			chunk(request, NBD_REPLY_TYPE_OFFSET_DATA, 8 + (size_t)request->length),
			htobe64(request->offset)
		};
		request->reply[0].iov_len = sizeof request->head.data;
	} else {
		request->head.none = chunk(request, NBD_REPLY_TYPE_NONE, 0);
		request->reply[0].iov_len = sizeof request->head.none;
	}
}

static const char *text_of(enum nbd_error error)
{
	switch (error) {
	case NBD_EPERM:
		return "the export is read-only";
	case NBD_ENOMEM:
		return "the host has no memory for it";
	case NBD_EINVAL:
		return "unknown command or flag, not in whole blocks, or outside of the disk";
	case NBD_ENOSPC:
		return "no space, or outside of the disk";
	case NBD_EOVERFLOW:
		return "more than the maximum payload";
	default:
		return "the disk failed";
	}
}

void nbd_request_refuse(struct nbd_request *request, const struct nbd_terms *terms,
			enum nbd_error error)
{
	const char *text = text_of(error);
	size_t length = strlen(text);

	request->reply[0].iov_base = &request->head;
	request->reply[1] = (struct iovec){ 0 };
	if (!terms->structured) {
		answer_simply(request, error);
		return;
	}
	request->head.error =
		(struct nbd_chunk_error){ chunk(request, NBD_REPLY_TYPE_ERROR, 6 + length),
					  htobe32(error), htobe16((uint16_t)length) };
	request->reply[0].iov_len = sizeof request->head.error;
	request->reply[1] = (struct iovec){ (void *)text, length };
}
