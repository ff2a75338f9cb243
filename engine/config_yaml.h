// SPDX-License-Identifier: MIT
//
// config_yaml: the few verbs with which the YAML file is read. Private to config_yaml.c and
// config_models.c.
//
// The document is a graph of nodes (libyaml's document API). It is walked by schema, never by its
// own depth: a node that contains itself is no danger. Each verb blames the line of the node it
// fails on.
#ifndef ENGINE_CONFIG_YAML_H
#define ENGINE_CONFIG_YAML_H

#include <yaml.h>

#include "engine/config_reader.h"

// The text of a scalar; owned by the document. `key` is what errors call it.
bool yaml_text(struct config_reader *reader, const yaml_node_t *node, const char *key,
               const char **text);

// The items of a sequence, 1 to `max` of them.
bool yaml_list(struct config_reader *reader, const yaml_node_t *node, const char *key, size_t max,
               size_t *count);
yaml_node_t *yaml_item(yaml_document_t *document, const yaml_node_t *list, size_t at);

// Sort the values of a mapping by key into values[], NULL for keys that are not there. A key that
// is not in names[] or comes twice is an error; NULL names match nothing. `what` names the mapping.
bool yaml_fields(struct config_reader *reader, yaml_document_t *document, const yaml_node_t *map,
                 const char *what, const char *const *names, size_t count, yaml_node_t **values);

// Let errors blame this node.
void yaml_blame(struct config_reader *reader, const yaml_node_t *node, const char *key);

// The `models` list, once all providers are known (config_models.c).
bool config_models_read(struct config_reader *reader, yaml_document_t *document,
                        const yaml_node_t *list);

#endif
