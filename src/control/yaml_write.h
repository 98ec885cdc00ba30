/* SPDX-License-Identifier: BSD-3-Clause */
/* yaml_write.h - JSON as YAML, for people; see yaml_write.c */
#pragma once

#include <jansson.h>

/**
 * @json, an object, as one document of YAML that yaml_parse() reads back to the same tree. Text
 * that free() takes; NULL: memory is short.
 */
char *yaml_write(const json_t *json);
