/* Are two jobs the same computation? Asked before a job goes on from a checkpoint. */
#include <string.h>

#include "common/job/internal.h"
#include "common/wire/codec.h"
#include "common/wire/reflect.h"

#define JOB_BUDGET (16u << 20)

static void forget(cop_proto *message, const char *const *names) {
    for (size_t i = 0; message && names[i]; i++) {
        const cop_proto_field *field = cop_reflect_find(message->descriptor, names[i]);
        COP_ASSERT(field != NULL);
        cop_reflect_clear(message, field);
    }
}

/* Leaves only what decides the weights. The data are what `pinned` says, whatever they are called.
 */
static void keep_what_matters(Coppice__Job *m) {
    static const char *const job[] = {"name",     "priority",   "audit", "limits",
                                      "evaluate", "checkpoint", NULL};
    static const char *const data[] = {"source", "train",  "test",   "label",
                                       "drop",   "layout", "resize", NULL};
    static const char *const train[] = {"epochs", "steps", NULL}, *const pinned[] = {"steps", NULL};
    static const char *const names[] = {"class_names", NULL};
    forget(&m->base, job);
    forget(&m->data->base, data);
    forget(&m->pinned->base, names);
    if (job_schedule(m)->cosine) return; /* ends at the last step */
    forget(&m->train->base, train);
    forget(&m->pinned->base, pinned);
}

static cop_buffer *essence(Coppice__Job *m) {
    keep_what_matters(m);
    return cop_proto_pack(&m->base);
}

cop_err job_check_same(const cop_job *job, Coppice__Job *theirs, const char *path,
                       cop_error *error) {
    ProtobufCMessage *copy = NULL;
    cop_buffer *packed = cop_job_pack(job), *mine = NULL, *other = NULL;
    cop_err e = packed ? cop_document_resolve(theirs, error)
                       : cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    if (!e)
        e = cop_proto_unpack(job->message->base.descriptor, packed->data, packed->size, JOB_BUDGET,
                             &copy, error);
    if (!e && theirs->pinned) {
        mine = essence((Coppice__Job *)copy);
        other = essence(theirs);
        if (!mine || !other) e = cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    }
    bool same = mine && other && mine->size == other->size &&
                memcmp(mine->data, other->data, mine->size) == 0;
    if (!e && !same)
        e = cop_fail(error, COP_ERR_INPUT,
                     "%s is a checkpoint of another job: its model, training, seed or data differ "
                     "from this one's",
                     path);
    cop_proto_free(copy);
    cop_buffer_release(packed);
    cop_buffer_release(mine);
    cop_buffer_release(other);
    return e;
}
