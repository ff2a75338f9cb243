// SPDX-License-Identifier: MIT
//
// The configuration file: YAML, one schema, strict.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "alloc/check.h"
#include "alloc/heap.h"
#include "engine/config_yaml.h"

enum { FILE_BYTES_MAX = 4 << 20, KEYS_MAX = CONFIG_OPTIONS_MAX + 1 };

struct config_file {
    yaml_document_t document;
    const char *path;
    bool loaded;
    yaml_node_t *value[KEYS_MAX]; // by index of option; the last one is `models`
};

void yaml_blame(struct config_reader *reader, const yaml_node_t *node, const char *key)
{
    reader->place.line = (int)node->start_mark.line + 1;
    reader->place.key = key;
}

static const char *kind_of(const yaml_node_t *node)
{
    switch (node->type) {
    case YAML_SEQUENCE_NODE: return "a list";
    case YAML_MAPPING_NODE: return "a mapping";
    default: return "one value";
    }
}

// Nothing here gives a tag a meaning, so a tag that somebody relies on must not be passed over.
static bool plain_tag(struct config_reader *reader, const yaml_node_t *node)
{
    if (!node->tag || strncmp((const char *)node->tag, "tag:yaml.org,2002:", 18) == 0)
        return true;
    return config_fail(reader, "the tag %.60s has no meaning here", (const char *)node->tag);
}

bool yaml_text(struct config_reader *reader, const yaml_node_t *node, const char *key,
               const char **text)
{
    yaml_blame(reader, node, key);
    if (node->type != YAML_SCALAR_NODE)
        return config_fail(reader, "expected one value, not %s", kind_of(node));
    if (!plain_tag(reader, node))
        return false;
    const char *value = (const char *)node->data.scalar.value;
    bool plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (plain && (!*value || strcmp(value, "~") == 0 || strcmp(value, "null") == 0))
        return config_fail(reader, "has no value; leave the key out for the default");
    if (strlen(value) != node->data.scalar.length)
        return config_fail(reader, "a NUL byte in the value");
    *text = value;
    return true;
}

bool yaml_list(struct config_reader *reader, const yaml_node_t *node, const char *key, size_t max,
               size_t *count)
{
    yaml_blame(reader, node, key);
    if (node->type != YAML_SEQUENCE_NODE)
        return config_fail(reader, "expected a list, not %s", kind_of(node));
    if (!plain_tag(reader, node))
        return false;
    *count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    if (*count == 0)
        return config_fail(reader, "the list is empty; leave the key out for the default");
    if (*count > max)
        return config_fail(reader, "%zu items; at most %zu are allowed", *count, max);
    return true;
}

yaml_node_t *yaml_item(yaml_document_t *document, const yaml_node_t *list, size_t at)
{
    yaml_node_t *item = yaml_document_get_node(document, list->data.sequence.items.start[at]);
    CHECK(item != NULL);
    return item;
}

static bool unknown_key(struct config_reader *reader, const char *what, const char *name,
                        const char *const *names, size_t count)
{
    const char *near = config_nearest(name, names, count);
    if (near)
        return config_fail(reader, "unknown key \"%.60s\"%s; did you mean \"%s\"?", name, what,
                           near);
    return config_fail(reader, "unknown key \"%.60s\"%s", name, what);
}

bool yaml_fields(struct config_reader *reader, yaml_document_t *document, const yaml_node_t *map,
                 const char *what, const char *const *names, size_t count, yaml_node_t **values)
{
    yaml_blame(reader, map, NULL);
    if (map->type != YAML_MAPPING_NODE)
        return config_fail(reader, "expected a mapping of keys and values%s, not %s", what,
                           kind_of(map));
    if (!plain_tag(reader, map))
        return false;
    memset(values, 0, count * sizeof(values[0]));
    const yaml_node_pair_t *pair = map->data.mapping.pairs.start;
    for (; pair < map->data.mapping.pairs.top; pair++) {
        yaml_node_t *key = yaml_document_get_node(document, pair->key);
        CHECK(key != NULL);
        yaml_blame(reader, key, NULL);
        if (key->type != YAML_SCALAR_NODE)
            return config_fail(reader, "expected a key, not %s", kind_of(key));
        const char *name = (const char *)key->data.scalar.value;
        size_t i = 0;
        while (i < count && !(names[i] && strlen(names[i]) == key->data.scalar.length &&
                              strcmp(names[i], name) == 0))
            i++;
        if (i == count)
            return unknown_key(reader, what, name, names, count);
        if (values[i])
            return config_fail(reader, "\"%s\" is given twice%s; first on line %d", name, what,
                               (int)values[i]->start_mark.line + 1);
        values[i] = yaml_document_get_node(document, pair->value);
        CHECK(values[i] != NULL);
    }
    return true;
}

// ---- the file as a whole ----

// The whole file in memory of the heap, or NULL with an error.
static uint8_t *read_file(struct config_reader *reader, const char *path, size_t *len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t room = 64 * 1024;
    uint8_t *bytes = fd < 0 ? NULL : heap_alloc(room);
    ssize_t got = fd < 0 ? -1 : 1;
    *len = 0;
    while (got > 0 && *len <= FILE_BYTES_MAX) {
        if (*len == room)
            bytes = heap_resize(bytes, room *= 2);
        got = read(fd, bytes + *len, room - *len);
        if (got > 0)
            *len += (size_t)got;
    }
    const char *why = got < 0 ? strerror(errno) : NULL;
    if (fd >= 0)
        close(fd);
    if (!why && *len > FILE_BYTES_MAX)
        why = "larger than 4M";
    if (!why)
        return bytes;
    config_fail(reader, "cannot read %.200s: %s", path, why);
    heap_free(bytes);
    return NULL;
}

static bool syntax_error(struct config_reader *reader, const yaml_parser_t *parser)
{
    reader->place.line = (int)parser->problem_mark.line + 1;
    const char *problem = parser->problem ? parser->problem : "not YAML";
    if (parser->context)
        return config_fail(reader, "%s %s", problem, parser->context);
    return config_fail(reader, "%s", problem);
}

// One document, and nothing behind it.
static bool load_document(struct config_reader *reader, yaml_parser_t *parser,
                          struct config_file *file)
{
    yaml_document_t second;
    if (!yaml_parser_load(parser, &file->document))
        return syntax_error(reader, parser);
    file->loaded = true;
    if (!yaml_document_get_root_node(&file->document))
        return true;
    if (!yaml_parser_load(parser, &second))
        return syntax_error(reader, parser);
    const yaml_node_t *root = yaml_document_get_root_node(&second);
    if (root)
        reader->place.line = (int)root->start_mark.line + 1;
    bool alone = root == NULL || config_fail(reader, "a second document; a file holds one");
    yaml_document_delete(&second);
    return alone;
}

// Sort the top of the document by option.
static bool read_outline(struct config_reader *reader, struct config_file *file)
{
    const char *names[KEYS_MAX] = {0};
    size_t count;
    const struct config_option *options = config_options(&count);
    yaml_node_t *root = yaml_document_get_root_node(&file->document);
    if (!root)
        return true; // an empty file says nothing
    for (size_t i = 0; i < count; i++)
        names[i] = options[i].traits & OPTION_NESTED ? NULL : options[i].key;
    names[KEYS_MAX - 1] = "models";
    return yaml_fields(reader, &file->document, root, "", names, KEYS_MAX, file->value);
}

bool config_file_open(struct config_reader *reader, const char *path, struct config_file **opened)
{
    yaml_parser_t parser;
    size_t len;
    uint8_t *bytes = read_file(reader, path, &len);
    if (!bytes)
        return false;
    struct config_file *file = heap_alloc(sizeof(*file));
    file->path = path;
    *opened = file;
    reader->place = (struct config_place){.source = SOURCE_FILE, .file = path};
    CHECK(yaml_parser_initialize(&parser));
    yaml_parser_set_input_string(&parser, bytes, len);
    bool good = load_document(reader, &parser, file) && read_outline(reader, file);
    yaml_parser_delete(&parser);
    heap_free(bytes);
    return good;
}

void config_file_close(struct config_file *file)
{
    if (!file)
        return;
    if (file->loaded)
        yaml_document_delete(&file->document);
    heap_free(file);
}

// ---- providers ----

enum {
    FIELD_NAME,
    FIELD_KIND,
    FIELD_URL,
    FIELD_KEY,
    FIELD_AUTH,
    FIELD_CONNECTIONS,
    FIELD_CA,
    FIELD_CERT,
    FIELD_CERT_KEY,
    FIELDS
};

static bool read_path(struct config_reader *reader, yaml_node_t *value, const char *key,
                      char **path)
{
    const char *text;
    if (!value)
        return true;
    if (!yaml_text(reader, value, key, &text))
        return false;
    heap_free(*path);
    *path = heap_copy(text);
    return true;
}

static bool read_provider_tls(struct config_reader *reader, struct config_provider *provider,
                              yaml_node_t **value)
{
    return read_path(reader, value[FIELD_CA], "ca_file", &provider->ca_file) &&
           read_path(reader, value[FIELD_CERT], "client_cert", &provider->client_cert) &&
           read_path(reader, value[FIELD_CERT_KEY], "client_key", &provider->client_key);
}

static bool read_provider_options(struct config_reader *reader, struct config_provider *provider,
                                  yaml_node_t **value)
{
    const char *text;
    uint64_t number;
    if (value[FIELD_KEY] && !(yaml_text(reader, value[FIELD_KEY], "api_key", &text) &&
                              config_provider_key(reader, provider, text)))
        return false;
    if (value[FIELD_AUTH] && !(yaml_text(reader, value[FIELD_AUTH], "auth", &text) &&
                               config_provider_auth(reader, provider, text)))
        return false;
    if (value[FIELD_CONNECTIONS]) {
        if (!yaml_text(reader, value[FIELD_CONNECTIONS], "connections", &text) ||
            !config_number(reader, text, 1, 65535, &number))
            return false;
        provider->connections_max = (uint32_t)number;
    }
    return read_provider_tls(reader, provider, value);
}

static bool read_provider(struct config_reader *reader, yaml_document_t *document,
                          const yaml_node_t *map)
{
    static const char *const names[FIELDS] = {"name",    "kind",        "base_url",
                                              "api_key", "auth",        "connections",
                                              "ca_file", "client_cert", "client_key"};
    char url[CONFIG_TEXT_MAX];
    yaml_node_t *value[FIELDS];
    struct config_provider *provider;
    const char *text;
    if (!yaml_fields(reader, document, map, " of a provider", names, FIELDS, value))
        return false;
    yaml_blame(reader, map, "providers");
    for (int i = FIELD_NAME; i <= FIELD_URL; i++)
        if (!value[i])
            return config_fail(reader, "a provider needs a %s", names[i]);
    return yaml_text(reader, value[FIELD_NAME], "name", &text) &&
           config_provider_add(reader, text, &provider) &&
           yaml_text(reader, value[FIELD_KIND], "kind", &text) &&
           config_provider_kind(reader, provider, text) &&
           yaml_text(reader, value[FIELD_URL], "base_url", &text) &&
           config_expand(reader, text, url, sizeof(url)) &&
           config_provider_url(reader, provider, url) &&
           read_provider_options(reader, provider, value);
}

static bool read_providers(struct config_reader *reader, yaml_document_t *document,
                           const yaml_node_t *list)
{
    size_t count;
    if (!yaml_list(reader, list, "providers", CONFIG_PROVIDERS_MAX, &count))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!read_provider(reader, document, yaml_item(document, list, i)))
            return false;
    return true;
}

// ---- options ----

static bool set_node(struct config_reader *reader, const struct config_option *option,
                     const yaml_node_t *node)
{
    const char *text;
    return yaml_text(reader, node, option->key, &text) && config_set(reader, option, text);
}

// One value, or a list of them where the option may be repeated.
static bool set_option(struct config_reader *reader, yaml_document_t *document,
                       const struct config_option *option, const yaml_node_t *node)
{
    size_t count;
    if (!(option->traits & OPTION_REPEATS) || node->type != YAML_SEQUENCE_NODE)
        return set_node(reader, option, node);
    if (!yaml_list(reader, node, option->key, 64, &count))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!set_node(reader, option, yaml_item(document, node, i)))
            return false;
    return true;
}

bool config_file_apply(struct config_reader *reader, struct config_file *file,
                       enum config_round round)
{
    size_t count;
    const struct config_option *options = config_options(&count);
    reader->place = (struct config_place){.source = SOURCE_FILE, .file = file->path};
    for (size_t i = 0; i < count; i++) {
        yaml_node_t *node = file->value[i];
        if (!node || options[i].round != round)
            continue;
        bool good = strcmp(options[i].key, "providers") == 0
                        ? read_providers(reader, &file->document, node)
                        : set_option(reader, &file->document, &options[i], node);
        if (!good)
            return false;
    }
    if (round == ROUND_LATE && file->value[KEYS_MAX - 1])
        return config_models_read(reader, &file->document, file->value[KEYS_MAX - 1]);
    return true;
}
