/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * yaml_write.c - JSON as YAML, as people write it
 *
 * libyaml writes the text and knows which texts need quotes. What is chosen here is the form: what
 * holds single values only stands on one line in braces, such as the options of a layer; all else,
 * and the two outermost levels, in lines of their own.
 */
#include "control/yaml_write.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define WIDTH 110 /* columns after which lists and mappings in braces go on in another line */
#define OUTER 2   /* levels that are always in lines of their own */

static bool emit_text(yaml_emitter_t *emitter, const char *text)
{
	/* To us a text is a text, but others take this one for no value. */
	yaml_scalar_style_t style = strcmp(text, "null") ? YAML_ANY_SCALAR_STYLE
							 : YAML_SINGLE_QUOTED_SCALAR_STYLE;
	yaml_event_t event;

	return yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text,
					    (int)strlen(text), 1, 1, style) &&
	       yaml_emitter_emit(emitter, &event);
}

static bool emit_scalar(yaml_emitter_t *emitter, const json_t *json)
{
	char text[64];

	if (json_is_string(json))
		return emit_text(emitter, json_string_value(json));
	if (json_is_integer(json))
		snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(json));
	else if (json_is_real(json))
		snprintf(text, sizeof text, "%.15g", json_real_value(json));
	else
		snprintf(text, sizeof text, "%s",
			 json_is_true(json)    ? "true"
			 : json_is_false(json) ? "false"
					       : "");
	return emit_text(emitter, text);
}

static bool is_single(const json_t *json)
{
	return !json_is_object(json) && !json_is_array(json);
}

static bool only_singles(const json_t *json)
{
	const char *key;
	json_t *value;
	size_t i;
	bool only = true;

	json_array_foreach(json, i, value) only = only && is_single(value);
	json_object_foreach((json_t *)json, key, value) only = only && is_single(value);
	return only;
}

static bool emit(yaml_emitter_t *emitter, const json_t *json, unsigned depth)
{
	bool braces = depth >= OUTER && only_singles(json), good;
	yaml_event_t event;
	const char *key;
	json_t *value;
	size_t i;

	if (is_single(json))
		return emit_scalar(emitter, json);
	/* An empty one has no other form. */
	braces |= !json_array_size(json) && !json_object_size(json);
	if (json_is_array(json)) {
		good = yaml_sequence_start_event_initialize(&event, NULL, NULL, 1,
							    braces ? YAML_FLOW_SEQUENCE_STYLE
								   : YAML_BLOCK_SEQUENCE_STYLE) &&
		       yaml_emitter_emit(emitter, &event);
		json_array_foreach(json, i, value) good = good && emit(emitter, value, depth + 1);
		return good && yaml_sequence_end_event_initialize(&event) &&
		       yaml_emitter_emit(emitter, &event);
	}
	good = yaml_mapping_start_event_initialize(&event, NULL, NULL, 1,
						   braces ? YAML_FLOW_MAPPING_STYLE
							  : YAML_BLOCK_MAPPING_STYLE) &&
	       yaml_emitter_emit(emitter, &event);
	json_object_foreach((json_t *)json, key, value)
		good = good && emit_text(emitter, key) && emit(emitter, value, depth + 1);
	return good && yaml_mapping_end_event_initialize(&event) &&
	       yaml_emitter_emit(emitter, &event);
}

static bool emit_document(yaml_emitter_t *emitter, const json_t *json)
{
	yaml_event_t event;

	return yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING) &&
	       yaml_emitter_emit(emitter, &event) &&
	       yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1) &&
	       yaml_emitter_emit(emitter, &event) && emit(emitter, json, 0) &&
	       yaml_document_end_event_initialize(&event, 1) &&
	       yaml_emitter_emit(emitter, &event) && yaml_stream_end_event_initialize(&event) &&
	       yaml_emitter_emit(emitter, &event);
}

char *yaml_write(const json_t *json)
{
	yaml_emitter_t emitter;
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);
	bool good;

	if (!out)
		return NULL;
	good = yaml_emitter_initialize(&emitter);
	if (good) {
		yaml_emitter_set_output_file(&emitter, out);
		yaml_emitter_set_unicode(&emitter, 1);
		yaml_emitter_set_width(&emitter, WIDTH);
		good = emit_document(&emitter, json);
		yaml_emitter_delete(&emitter);
	}
	if (fclose(out) || !good) {
		free(text);
		return NULL;
	}
	return text;
}
