/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crypt_memory.h - where key schedules live: locked, so that they are never swapped, left out of
 * core files, and wiped when they go
 *
 * OpenSSL has its key schedules on the heap. So its allocator is ours: what a thread allocates
 * between enter and leave comes from the locked memory. libcryptsetup does the same for the keys
 * themselves, by crypt_safe_alloc().
 */
#pragma once

/** What this thread has OpenSSL allocate from here on is secret. Not nested. */
void crypt_memory_enter(void);
void crypt_memory_leave(void);

/** This process holds keys from now on: no core file is written of it. */
void crypt_memory_no_core(void);
