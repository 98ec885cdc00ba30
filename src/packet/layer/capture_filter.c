/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * capture_filter.c - compiles and runs capture filters; see capture_filter.h
 *
 * The machine (McCanne and Jacobson, "The BSD Packet Filter", 1993): an accumulator A, an index X,
 * sixteen words of memory. A load beyond the packet ends the program, without a match, and so does
 * a division by zero. bpf_validate() has seen that every jump lands in the program and that it
 * ends with a return. Jumps go forward, but for those that "protochain" is made of, which follow
 * the extension headers of IPv6: a packet that makes it go round too often does not match.
 */
#include "packet/layer/capture_filter.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pcap/pcap.h>
#include <stdlib.h>
#include <string.h>

#include "packet/layer/pcapng.h"
#include "util/error.h"

#define TAG_AT    12u /* where a tag stands in a frame, and its length */
#define TAG_BYTES 4u
#define ROUNDS    64u /* most jumps back of one run */

/* --- compiling ---------------------------------------------------------------------- */

int capture_filter_compile(struct capture_filter *filter, const char *text, struct error *err)
{
	struct bpf_program program = { 0 };
	pcap_t *pcap;
	int ret = 0;

	*filter = (struct capture_filter){ 0 };
	if (!text || !*text)
		return 0;
	if (strlen(text) > PCAPNG_TEXT)
		return error_set(err, EINVAL, "filter: it is longer than %u characters",
				 PCAPNG_TEXT);
	pcap = pcap_open_dead(DLT_EN10MB, PACKET_MAX);
	if (!pcap)
		return error_set(err, ENOMEM, "out of memory");
	if (pcap_compile(pcap, &program, text, 1, PCAP_NETMASK_UNKNOWN)) {
		ret = error_set(err, EINVAL,
				"filter: '%.200s': %s; expected an expression such as tcp port 80, "
				"see pcap-filter(7)",
				text, pcap_geterr(pcap));
	} else if (!bpf_validate(program.bf_insns, (int)program.bf_len)) {
		ret = error_set(err, EINVAL,
				"filter: '%.200s': libpcap makes no good program of it", text);
	} else {
		filter->count = program.bf_len;
		filter->code = malloc(program.bf_len * sizeof *filter->code);
		if (filter->code)
			memcpy(filter->code, program.bf_insns,
			       program.bf_len * sizeof *filter->code);
		else
			ret = error_set(err, ENOMEM, "out of memory");
	}
	pcap_freecode(&program);
	pcap_close(pcap);
	return ret;
}

void capture_filter_release(struct capture_filter *filter)
{
	free(filter->code);
	*filter = (struct capture_filter){ 0 };
}

/* --- loads -------------------------------------------------------------------------- */

/* Bytes of the frame as it is here, wherever they are. */
static bool fetch(const struct packet *packet, uint32_t at, uint8_t *to, unsigned size)
{
	if (at > packet->length || size > packet->length - at)
		return false;
	packet_copy_out(packet, at, to, size);
	return true;
}

/* What does not lie in one piece in the head: beyond it, or where a tag was. */
static bool load_slowly(const struct packet *packet, uint64_t at, unsigned size, uint8_t *to)
{
	uint8_t tag[TAG_BYTES] = { 0x81, 0x00, (uint8_t)(packet->tag >> 8), (uint8_t)packet->tag };

	if (at > PACKET_MAX)
		return false;
	if (!packet->tagged)
		return fetch(packet, (uint32_t)at, to, size);
	for (unsigned i = 0; i < size; i++, at++) {
		if (at >= TAG_AT && at < TAG_AT + TAG_BYTES)
			to[i] = tag[at - TAG_AT];
		else if (!fetch(packet, (uint32_t)(at < TAG_AT ? at : at - TAG_BYTES), &to[i], 1))
			return false;
	}
	return true;
}

/* @size bytes at @at as a number: 1, 2 or 4 bytes. False if they are not there. */
static inline bool load(const struct packet *packet, uint64_t at, unsigned size, uint32_t *value)
{
	const uint8_t *from = packet->head + at;
	uint8_t bytes[4];
	uint16_t half;
	uint32_t word;

	if (packet->tagged || at + size > packet->head_length) {
		if (!load_slowly(packet, at, size, bytes))
			return false;
		from = bytes;
	}
	switch (size) {
	case 1:
		*value = *from;
		break;
	case 2:
		memcpy(&half, from, 2);
		*value = ntohs(half);
		break;
	default:
		memcpy(&word, from, 4);
		*value = ntohl(word);
	}
	return true;
}

/* --- the machine -------------------------------------------------------------------- */

static bool calculate(unsigned operation, uint32_t operand, uint32_t *a)
{
	switch (operation) {
	case BPF_ADD:
		*a += operand;
		return true;
	case BPF_SUB:
		*a -= operand;
		return true;
	case BPF_MUL:
		*a *= operand;
		return true;
	case BPF_DIV:
		*a = operand ? *a / operand : 0;
		return operand;
	case BPF_MOD:
		*a = operand ? *a % operand : 0;
		return operand;
	case BPF_AND:
		*a &= operand;
		return true;
	case BPF_OR:
		*a |= operand;
		return true;
	case BPF_XOR:
		*a ^= operand;
		return true;
	case BPF_LSH:
		*a = operand < 32 ? *a << operand : 0;
		return true;
	case BPF_RSH:
		*a = operand < 32 ? *a >> operand : 0;
		return true;
	case BPF_NEG:
		*a = -*a;
		return true;
	default:
		return false;
	}
}

static bool compare(unsigned comparison, uint32_t a, uint32_t operand)
{
	switch (comparison) {
	case BPF_JEQ:
		return a == operand;
	case BPF_JGT:
		return a > operand;
	case BPF_JGE:
		return a >= operand;
	default: /* BPF_JSET */
		return a & operand;
	}
}

bool capture_filter_run(const struct capture_filter *filter, const struct packet *packet)
{
	uint32_t a = 0, x = 0, memory[BPF_MEMWORDS] = { 0 };
	unsigned rounds = ROUNDS;

	for (const struct bpf_insn *at = filter->code;; at++) {
		uint32_t k = at->k;

		switch (at->code) {
		case BPF_RET | BPF_K:
			return k;
		case BPF_RET | BPF_A:
			return a;
		/* what most programs are made of, before all else */
		case BPF_JMP | BPF_JEQ | BPF_K:
			at += a == k ? at->jt : at->jf;
			continue;
		case BPF_JMP | BPF_JSET | BPF_K:
			at += a & k ? at->jt : at->jf;
			continue;
		case BPF_LD | BPF_W | BPF_ABS:
			if (!load(packet, k, 4, &a))
				return false;
			continue;
		case BPF_LD | BPF_H | BPF_ABS:
			if (!load(packet, k, 2, &a))
				return false;
			continue;
		case BPF_LD | BPF_B | BPF_ABS:
			if (!load(packet, k, 1, &a))
				return false;
			continue;
		case BPF_LD | BPF_W | BPF_IND:
			if (!load(packet, (uint64_t)x + k, 4, &a))
				return false;
			continue;
		case BPF_LD | BPF_H | BPF_IND:
			if (!load(packet, (uint64_t)x + k, 2, &a))
				return false;
			continue;
		case BPF_LD | BPF_B | BPF_IND:
			if (!load(packet, (uint64_t)x + k, 1, &a))
				return false;
			continue;
		case BPF_LDX | BPF_MSH | BPF_B:
			if (!load(packet, k, 1, &x))
				return false;
			x = (x & 0xf) << 2;
			continue;
		case BPF_LD | BPF_W | BPF_LEN:
			a = packet->length + (packet->tagged ? TAG_BYTES : 0);
			continue;
		case BPF_LDX | BPF_W | BPF_LEN:
			x = packet->length + (packet->tagged ? TAG_BYTES : 0);
			continue;
		case BPF_LD | BPF_IMM:
			a = k;
			continue;
		case BPF_LDX | BPF_IMM:
			x = k;
			continue;
		case BPF_LD | BPF_MEM:
			a = memory[k];
			continue;
		case BPF_LDX | BPF_MEM:
			x = memory[k];
			continue;
		case BPF_ST:
			memory[k] = a;
			continue;
		case BPF_STX:
			memory[k] = x;
			continue;
		case BPF_MISC | BPF_TAX:
			x = a;
			continue;
		case BPF_MISC | BPF_TXA:
			a = x;
			continue;
		case BPF_JMP | BPF_JA:
			if ((int32_t)k < 0 && !--rounds)
				return false;
			at += (int32_t)k;
			continue;
		default:
			break;
		}
		if (BPF_CLASS(at->code) == BPF_JMP) {
			bool met = compare(BPF_OP(at->code), a, BPF_SRC(at->code) == BPF_X ? x : k);

			at += met ? at->jt : at->jf;
		} else if (BPF_CLASS(at->code) != BPF_ALU ||
			   !calculate(BPF_OP(at->code), BPF_SRC(at->code) == BPF_X ? x : k, &a)) {
			return false;
		}
	}
}
