/* SPDX-License-Identifier: BSD-3-Clause */
/* yaml_fuzz.c - configurations of any bytes, as YAML of a file and as JSON of the API: read,
 * checked, freed */
#include <stdint.h>

#include <jansson.h>

#include "control/config.h"
#include "control/json_tree.h"
#include "control/mistakes.h"
#include "control/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_tree(struct node *tree, struct mistakes *mistakes)
{
	struct config config = { 0 };

	config_init(&config);
	if (tree && config_read(&config, tree, mistakes))
		config_check_files(tree, mistakes);
	config_release(&config);
	node_free(tree);
	mistakes_release(mistakes);
	mistakes->fatal = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mistakes mistakes = { .file = "fuzz" };
	json_t *json;

	read_tree(yaml_parse((const char *)data, size, &mistakes), &mistakes);
	json = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
	if (json)
		read_tree(json_tree_read(json, &mistakes), &mistakes);
	json_decref(json);
	return 0;
}
