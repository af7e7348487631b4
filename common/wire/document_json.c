/* Reads JSON objects that this program has printed. It uses the YAML reader of job files, because
 * JSON is a subset of YAML. See document.h. */
#include <stdio.h>
#include <string.h>

#include "common/wire/codec.h"
#include "common/wire/reader.h"
#include "common/wire/document.h"

#define OBJECT_BUDGET (1u << 20) /* bytes of the arena of an object */

static void skip_blanks(cop_json_stream *s) {
    for (; s->at < s->end && strchr(" \t\r\n", *s->at) && *s->at; s->at++)
        s->line += *s->at == '\n';
}

/* The end of the object at s->at: the byte after the brace that closes it. NULL: no brace closes
 * it. Braces in strings do not count. */
static const char *find_end(const cop_json_stream *s) {
    size_t depth = 0;
    bool quoted = false;
    COP_ASSERT(s->at < s->end && *s->at == '{');
    for (const char *p = s->at; p < s->end; p++) {
        if (quoted && *p == '\\' && p + 1 < s->end)
            p++;
        else if (*p == '"')
            quoted = !quoted;
        else if (!quoted && *p == '{')
            depth++;
        else if (!quoted && *p == '}' && --depth == 0)
            return p + 1;
    }
    return NULL;
}

/* Writes the place where the stream is, such as "ensemble.json:3". */
static void place_of(const cop_json_stream *s, char *out, size_t size) {
    snprintf(out, size, "%.400s:%zu", s->name, s->line);
}

static cop_err read_object(const char *place, yaml_document_t *document, const cop_proto_type *type,
                           ProtobufCMessage **out, cop_error *error) {
    const cop_field_path top = {""};
    cop_reader r = {.source = place,
                    .document = document,
                    .root = cop_proto_create(type, OBJECT_BUDGET),
                    .error = error};
    cop_proto *message = r.root;
    if (!message) return cop_no_memory(error);
    cop_err e = cop_reader_message(&r, yaml_document_get_root_node(document), type, &top, &message);
    if (e)
        cop_proto_free(r.root);
    else
        *out = message;
    return e;
}

/* Fails with an error about JSON. `sentence` is an error of the YAML reader that begins with
 * `place`. */
static cop_err fail_syntax(const char *place, const char *sentence, cop_error *error) {
    const size_t length = strlen(place);
    const char *what = strncmp(sentence, place, length) == 0 ? sentence + length : sentence;
    what += strspn(what, ": ");
    if (strncmp(what, "not YAML: ", 10) == 0) what += 10;
    return cop_fail(error, COP_ERR_INPUT, "%s: not JSON: %.200s", place, what);
}

cop_err cop_document_next_json(cop_json_stream *s, const ProtobufCMessageDescriptor *type,
                               ProtobufCMessage **out, cop_error *error) {
    char place[440];
    yaml_document_t document;
    cop_error syntax = {0};
    COP_ASSERT(s->at <= s->end);
    *out = NULL;
    if (!s->line) s->line = 1;
    skip_blanks(s);
    if (s->at == s->end) return COP_OK;
    place_of(s, place, sizeof place);
    if (*s->at != '{')
        return cop_fail(error, COP_ERR_INPUT, "%s: not JSON: expected an object, {...}", place);
    const char *end = find_end(s);
    if (!end) return cop_fail(error, COP_ERR_INPUT, "%s: not JSON: the object has no end", place);
    const cop_yaml_source from = {place, s->at, (size_t)(end - s->at), false};
    cop_err e = cop_yaml_load(&from, &document, &syntax);
    if (e) return e == COP_ERR_INPUT ? fail_syntax(place, syntax.text, error) : e;
    e = read_object(place, &document, type, out, error);
    yaml_document_delete(&document);
    for (; s->at < end; s->at++) s->line += *s->at == '\n';
    return e;
}
