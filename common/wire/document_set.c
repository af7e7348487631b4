/* Implements --set a.b=c, which changes one field of a job in place. See document.h. */
#include <stdio.h>
#include <string.h>

#include "common/wire/codec.h"
#include "common/wire/document.h"
#include "common/wire/reader.h"

/* The place that a walk along the path has reached: a field of a message, or one item of a list. */
typedef struct place {
    cop_proto *message;
    const cop_proto_field *field; /* NULL: the walk has reached the message itself */
    size_t index;                 /* index of the item, if is_item is true; otherwise 0 */
    bool is_item;
    cop_field_path path; /* path of the place, for errors */
} place;

/* One --set that is being carried out. */
typedef struct setter {
    cop_reader reader; /* reads the value */
    char *rest;        /* the rest of the path; NULL at its end */
} setter;

/* Takes the next name from the rest of the path. */
static char *next_name(setter *s) {
    char *name = s->rest, *dot = name ? strchr(name, '.') : NULL;
    if (dot) *dot = '\0';
    s->rest = dot ? dot + 1 : NULL;
    return name;
}

/* If the message is a one-of, clears its other members, because `field` will be set. INPUT: the
 * path names a field inside `field`, but another member is set, as for "model.0.linear.units" if
 * model[0] is a dropout. Only a value for the whole of `field` may replace another member. */
static cop_err choose_member(const setter *s, const place *at, const cop_proto_field *field) {
    const cop_proto_type *type = at->message->descriptor;
    if (!cop_fields_one_of(type)) return COP_OK;
    for (unsigned i = 0; i < type->n_fields; i++) {
        const cop_proto_field *other = &type->fields[i];
        if (other == field || !cop_reflect_is_set(at->message, other)) continue;
        if (s->rest)
            return cop_reader_fail(&s->reader, NULL, "%s is %s: it has no fields of %s",
                                   at->path.text, other->name, field->name);
        cop_reflect_clear(at->message, other);
    }
    return COP_OK;
}

/* Steps from a message to the field that the next name of the path gives. */
static cop_err step_to_field(setter *s, place *at) {
    const char *name = next_name(s);
    const cop_proto_type *type = at->message->descriptor;
    const cop_proto_field *field = cop_reflect_find(type, name);
    if (!field || strcmp(name, "pinned") == 0)
        return cop_reader_fail_unknown(&s->reader, NULL, &at->path, type, name);
    COP_TRY(choose_member(s, at, field));
    at->field = field;
    at->path = cop_field_path_member(&at->path, name);
    return COP_OK;
}

/* Steps from a list to the item whose index is the next name of the path, as in "model.1". */
static cop_err step_to_item(setter *s, place *at) {
    uint64_t index;
    size_t count = cop_reflect_count(at->message, at->field);
    const char *name = next_name(s);
    if (!count)
        return cop_reader_fail(&s->reader, NULL, "%s is empty: set the whole list", at->path.text);
    if (!cop_parse_u64(name, &index) || index >= count)
        return cop_reader_fail(&s->reader, NULL, "%s has no item \"%s\": expected 0 to %zu",
                               at->path.text, name, count - 1);
    at->index = (size_t)index;
    at->is_item = true;
    at->path = cop_field_path_item(&at->path, at->index);
    return COP_OK;
}

/* Steps from a field to the message that is its value. Makes the message if the field is not set.
 */
static cop_err step_inside(setter *s, place *at) {
    if (at->field->type != PROTOBUF_C_TYPE_MESSAGE)
        return cop_reader_fail(&s->reader, NULL, "%s has no fields", at->path.text);
    cop_proto *inner = cop_reflect_message(at->message, at->field, at->index);
    if (!inner) {
        inner = cop_reflect_new(s->reader.root, at->field->descriptor);
        if (!inner) return cop_reader_no_memory(&s->reader);
        *(cop_proto **)cop_reflect_put(at->message, at->field) = inner;
        cop_reader_record_line(&s->reader, &at->path, NULL);
    }
    COP_ASSERT(inner->descriptor == at->field->descriptor);
    *at = (place){.message = inner, .path = at->path};
    return COP_OK;
}

static cop_err find_place(setter *s, place *at) {
    while (s->rest) {
        if (at->field) COP_TRY(step_inside(s, at));
        COP_TRY(step_to_field(s, at));
        if (s->rest && at->field->label == PROTOBUF_C_LABEL_REPEATED) COP_TRY(step_to_item(s, at));
    }
    return COP_OK;
}

static cop_err assign(const setter *s, const place *at, const yaml_node_t *node) {
    COP_ASSERT(at->field != NULL && !s->rest);
    const cop_proto_field *other = cop_fields_excluded(at->message->descriptor, at->field);
    if (other) cop_reflect_clear(at->message, other);
    if (!at->is_item) {
        COP_TRY(cop_reader_field(&s->reader, node, at->field, &at->path, at->message));
        return COP_OK;
    }
    if (at->field->type != PROTOBUF_C_TYPE_MESSAGE)
        return cop_reader_fail(&s->reader, NULL, "cannot set %s alone: set the whole list",
                               at->path.text);
    cop_proto *item = NULL;
    COP_TRY(cop_reader_message(&s->reader, node, at->field->descriptor, &at->path, &item));
    cop_proto **items = (cop_proto **)(uintptr_t)cop_reflect_at(at->message, at->field, at->index);
    *items = item;
    cop_reader_record_line(&s->reader, &at->path, node);
    return COP_OK;
}

/* Copies the path before "=" into `path`, and writes "model[1].linear" as "model.1.linear". Returns
 * false if there is no path, or if it does not fit. */
static bool split(const char *assignment, char *path, size_t size) {
    const char *equals = strchr(assignment, '=');
    size_t length = equals ? (size_t)(equals - assignment) : 0, to = 0;
    if (!length || length >= size) return false;
    for (size_t i = 0; i < length; i++)
        if (assignment[i] != ']') path[to++] = assignment[i] == '[' ? '.' : assignment[i];
    path[to] = '\0';
    return to > 0;
}

cop_err cop_document_set(Coppice__Job *job, const char *assignment, cop_error *error) {
    char path[256], source[128];
    yaml_document_t document;
    if (!split(assignment, path, sizeof path))
        return cop_fail(error, COP_ERR_INPUT,
                        "--set %.60s: expected FIELD=VALUE, such as train.batch=64", assignment);
    snprintf(source, sizeof source, "--set %.100s", assignment);
    const char *value = strchr(assignment, '=') + 1;
    const cop_yaml_source from = {source, value, strlen(value), false};
    COP_TRY(cop_yaml_load(&from, &document, error));
    setter s = {
        .reader = {.source = source, .document = &document, .root = &job->base, .error = error},
        .rest = path};
    place at = {.message = &job->base};
    const yaml_node_t *node = yaml_document_get_root_node(&document);
    cop_err e = find_place(&s, &at);
    if (!e && !node) e = cop_reader_fail(&s.reader, NULL, "the value is missing");
    if (!e) e = assign(&s, &at, node);
    yaml_document_delete(&document);
    return e;
}
