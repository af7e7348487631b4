/* Loads YAML text by libyaml, in two passes. The first pass goes over the events and refuses what
 * job files do not need: aliases, anchors, tags, several documents and deep nesting. Only the
 * second pass builds a document in memory. */
#include <stdio.h>

#include "common/base/limits.h"
#include "common/wire/reader.h"

static cop_err fail_at(const cop_yaml_source *from, const yaml_mark_t *mark, const char *what,
                       cop_error *error) {
    if (!from->lines) return cop_fail(error, COP_ERR_INPUT, "%s: %s", from->name, what);
    return cop_fail(error, COP_ERR_INPUT, "%s:%zu:%zu: %s", from->name, mark->line + 1,
                    mark->column + 1, what);
}

static cop_err not_yaml(const yaml_parser_t *parser, const cop_yaml_source *from,
                        cop_error *error) {
    if (parser->error == YAML_MEMORY_ERROR)
        return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory while reading %s", from->name);
    const char *problem = parser->problem ? parser->problem : "out of memory";
    char what[200];
    if (parser->error == YAML_READER_ERROR)
        return cop_fail(error, COP_ERR_INPUT, "%s: not YAML: %s at byte %zu", from->name, problem,
                        parser->problem_offset);
    snprintf(what, sizeof what, "not YAML: %s", problem);
    return fail_at(from, &parser->problem_mark, what, error);
}

/* The reason why an event is refused, or NULL if it is allowed. Counts the levels of nesting and
 * the documents. */
static const char *unsupported(const yaml_event_t *event, int *depth, int *documents) {
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return "aliases (*name) are not supported";
    case YAML_DOCUMENT_START_EVENT:
        if (++*documents > 1) return "a second document begins: expected one job";
        break;
    case YAML_SCALAR_EVENT:
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
        ++*depth;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
        ++*depth;
        break;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        COP_ASSERT(*depth > 0); /* libyaml reports an end only after its start */
        --*depth;
        break;
    default:
        break;
    }
    if (anchor) return "anchors (&name) are not supported";
    if (tag) return "tags (!name) are not supported";
    return *depth > COP_JOB_YAML_DEPTH_MAX ? "nested too deeply" : NULL;
}

static cop_err check_events(yaml_parser_t *parser, const cop_yaml_source *from, cop_error *error) {
    int depth = 0, documents = 0;
    for (bool ended = false; !ended;) {
        yaml_event_t event;
        if (!yaml_parser_parse(parser, &event)) return not_yaml(parser, from, error);
        const char *what = unsupported(&event, &depth, &documents);
        cop_err e = what ? fail_at(from, &event.start_mark, what, error) : COP_OK;
        ended = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
        if (e) return e;
    }
    return COP_OK;
}

cop_err cop_yaml_load(const cop_yaml_source *from, yaml_document_t *out, cop_error *error) {
    COP_ASSERT(from->text != NULL || !from->size);
    for (int pass = 0; pass < 2; pass++) {
        yaml_parser_t parser;
        if (!yaml_parser_initialize(&parser)) return cop_no_memory(error);
        yaml_parser_set_input_string(&parser, (const unsigned char *)from->text, from->size);
        cop_err e = COP_OK;
        if (pass == 0)
            e = check_events(&parser, from, error);
        else if (!yaml_parser_load(&parser, out))
            e = not_yaml(&parser, from, error);
        yaml_parser_delete(&parser);
        if (e) return e;
    }
    return COP_OK;
}
