/* Checks that two jobs compute the same weights, before one of them continues from a checkpoint of
 * the other. See internal.h. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "common/job/internal.h"
#include "common/wire/codec.h"
#include "common/wire/fields.h"
#include "common/wire/reflect.h"

static void clear_fields(cop_proto *message, const char *const *names) {
    for (size_t i = 0; message && names[i]; i++) {
        const cop_proto_field *field = cop_reflect_find(message->descriptor, names[i]);
        COP_ASSERT(field != NULL);
        cop_reflect_clear(message, field);
    }
}

/* Clears all fields that do not affect the weights. The source and the file names of the data are
 * among them, because `pinned` has the digest of the data. The number of steps is cleared, too,
 * unless `length` is true: then the schedule depends on it. */
static void keep_what_matters(Coppice__Job *m, bool length) {
    static const char *const job[] = {"name",     "priority",   "audit", "limits",
                                      "evaluate", "checkpoint", NULL};
    static const char *const data[] = {"source", "train",  "test",   "label",
                                       "drop",   "layout", "resize", NULL};
    static const char *const train[] = {"epochs", "steps", NULL}, *const pinned[] = {"steps", NULL};
    static const char *const names[] = {"class_names", NULL};
    clear_fields(&m->base, job);
    static const char *const split[] = {"split", NULL};
    clear_fields(&m->data->base, data);
    if (!m->data->validation && !m->data->samples)
        clear_fields(&m->data->base, split); /* without a split it has no effect */
    clear_fields(&m->pinned->base, names);
    if (length) return;
    clear_fields(&m->train->base, train);
    clear_fields(&m->pinned->base, pinned);
}

/* ---- the first field that differs ---- */

typedef struct difference {
    char path[160], ours[80], theirs[80];
} difference;

static void print_scalar(const cop_proto_field *field, const void *at, char *out, size_t size) {
    switch (field->type) {
    case PROTOBUF_C_TYPE_DOUBLE:
        snprintf(out, size, "%.9g", *(const double *)at);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        snprintf(out, size, "%s", *(const protobuf_c_boolean *)at ? "true" : "false");
        break;
    case PROTOBUF_C_TYPE_STRING:
        snprintf(out, size, "%.70s", *(char *const *)at);
        break;
    case PROTOBUF_C_TYPE_UINT64:
        snprintf(out, size, "%llu", (unsigned long long)*(const uint64_t *)at);
        break;
    case PROTOBUF_C_TYPE_ENUM: {
        const ProtobufCEnumValue *value =
            protobuf_c_enum_descriptor_get_value(field->descriptor, *(const int *)at);
        snprintf(out, size, "%s", value ? value->name : "?");
        for (char *c = out; *c; c++) *c = (char)tolower((unsigned char)*c);
        break;
    }
    default:
        snprintf(out, size, "%u", *(const uint32_t *)at);
    }
}

/* Prints the name of the field that is set in a one-of, a message with exactly one field set. */
static void print_choice(const cop_proto *m, char *out, size_t size) {
    snprintf(out, size, "not given");
    for (unsigned i = 0; i < m->descriptor->n_fields; i++)
        if (cop_reflect_is_set(m, &m->descriptor->fields[i]))
            snprintf(out, size, "%s", m->descriptor->fields[i].name);
}

/* Two messages of the same type: that of this job and that of the checkpoint. */
typedef struct message_pair {
    const cop_proto *ours, *theirs;
} message_pair;

static bool differ(message_pair m, const char *path, difference *out);

/* True: value number `i` of a field differs between the two messages, which both have it. */
static bool values_differ(message_pair m, const cop_proto_field *field, size_t i, const char *path,
                          difference *out) {
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return differ((message_pair){cop_reflect_message(m.ours, field, i),
                                     cop_reflect_message(m.theirs, field, i)},
                      path, out);
    print_scalar(field, cop_reflect_at(m.ours, field, i), out->ours, sizeof out->ours);
    print_scalar(field, cop_reflect_at(m.theirs, field, i), out->theirs, sizeof out->theirs);
    snprintf(out->path, sizeof out->path, "%s", path);
    return strcmp(out->ours, out->theirs) != 0;
}

static bool field_differs(message_pair m, const cop_proto_field *field, const char *path,
                          difference *out) {
    const size_t ours = cop_reflect_count(m.ours, field),
                 theirs = cop_reflect_count(m.theirs, field);
    const bool list = field->label == PROTOBUF_C_LABEL_REPEATED;
    char inner[160];
    if (ours != theirs && cop_fields_one_of(m.ours->descriptor)) {
        snprintf(out->path, sizeof out->path, "%s", path);
        print_choice(m.ours, out->ours, sizeof out->ours);
        print_choice(m.theirs, out->theirs, sizeof out->theirs);
        return true;
    }
    for (size_t i = 0; i < ours && i < theirs; i++) {
        int length = snprintf(inner, sizeof inner, "%s%s%s", path, *path ? "." : "", field->name);
        if (list && length < (int)sizeof inner)
            snprintf(inner + length, sizeof inner - (size_t)length, "[%zu]", i);
        if (values_differ(m, field, i, inner, out)) return true;
    }
    if (ours == theirs) return false;
    snprintf(out->path, sizeof out->path, "%s%s%s", path, *path ? "." : "", field->name);
    snprintf(out->ours, sizeof out->ours, list ? "%zu items" : ours ? "given" : "not given", ours);
    snprintf(out->theirs, sizeof out->theirs,
             list     ? "%zu items"
             : theirs ? "given"
                      : "not given",
             theirs);
    return true;
}

/* Finds the first field that differs. The recursion ends because no message of a job contains a
 * message of its own type. */
static bool differ(message_pair m, const char *path, difference *out) {
    COP_ASSERT(m.ours->descriptor == m.theirs->descriptor);
    for (unsigned i = 0; i < m.ours->descriptor->n_fields; i++)
        if (field_differs(m, &m.ours->descriptor->fields[i], path, out)) return true;
    return false;
}

static cop_err fail_different(const Coppice__Job *ours, const Coppice__Job *theirs,
                              const char *path, cop_error *error) {
    difference d;
    const bool found = differ((message_pair){&ours->base, &theirs->base}, "", &d);
    const bool length =
        found && (strcmp(d.path, "train.epochs") == 0 || strcmp(d.path, "train.steps") == 0);
    return cop_fail(error, COP_ERR_INPUT,
                    "%s is a checkpoint of another job: its model, training, seed or data differ "
                    "from this one's%s%s%s%s%s%s%s",
                    path, found ? ": " : "", found ? d.path : "", found ? " is " : "",
                    found ? d.ours : "", found ? ", was " : "", found ? d.theirs : "",
                    length ? " (with a cosine schedule, the number of steps must stay the same)"
                           : "");
}

cop_err job_check_compatible(const cop_job *job, Coppice__Job *theirs, const char *path,
                             cop_error *error) {
    Coppice__Job *ours = NULL;
    cop_buffer *mine = NULL, *other = NULL;
    cop_err e = cop_document_resolve(theirs, error);
    if (!e) e = cop_document_copy_job(job->message, &ours, error);
    if (!e && !theirs->pinned)
        e = cop_fail(error, COP_ERR_INPUT, "%s is a checkpoint of another job: it was never pinned",
                     path);
    if (!e) {
        const bool length = job_schedule(ours)->cosine && job_schedule(theirs)->cosine;
        keep_what_matters(ours, length);
        keep_what_matters(theirs, length);
        mine = cop_proto_pack(&ours->base);
        other = cop_proto_pack(&theirs->base);
        if (!mine || !other)
            e = cop_no_memory(error);
        else if (mine->size != other->size || memcmp(mine->data, other->data, mine->size) != 0)
            e = fail_different(ours, theirs, path, error);
    }
    if (ours) cop_proto_free(&ours->base);
    cop_buffer_release(mine);
    cop_buffer_release(other);
    return e;
}
