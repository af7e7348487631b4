/* Weights of a stored job, from its folder. The store's row and the folder are both untrusted
 * input, and may come from two backups: they are compared. See models.h. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "coordinator/engine/models.h"

const char *coord_job_folder(const coord_engine *engine, uint64_t job, char *out, size_t size) {
    snprintf(out, size, "%s/jobs/%llu", engine->state_folder, (unsigned long long)job);
    return out;
}

/* Compares the digest of the weights with the store's row. Only for a completed job: before the
 * end, a checkpoint may be newer than the row. */
static cop_err check_final(const coord_store_job *row, const coord_model *m, cop_error *error) {
    if (row->state != COORD_COMPLETED || row->digest_step != m->step ||
        strcmp(row->digest, m->digest) == 0)
        return COP_OK;
    return cop_fail(error, COP_ERR_CORRUPT,
                    "the folder of job %llu holds weights with the digest %.16s..., but the job "
                    "ended with %.16s...",
                    (unsigned long long)row->job, m->digest, row->digest);
}

static cop_err open_folder(coord_engine *engine, const coord_store_job *row, coord_model *m,
                           cop_error *error) {
    char folder[4096];
    unsigned char digest[32];
    coord_job_folder(engine, row->job, folder, sizeof folder);
    COP_TRY(cop_job_from_bytes(row->spec->data, row->spec->size, &m->job, error));
    COP_TRY(cop_job_open_weights(m->job, folder, &m->flat, &m->step, error));
    COP_TRY(cop_model_digest(m->job->model, m->flat, digest, error));
    cop_hex32(digest, m->digest);
    m->fingerprint = row->fingerprint;
    return check_final(row, m, error);
}

cop_err coord_model_open(coord_engine *engine, uint64_t job, coord_model *out, cop_error *error) {
    coord_store_job row;
    *out = (coord_model){0};
    COP_TRY(coord_store_get_job(engine->store, job, &row, error));
    cop_err e = open_folder(engine, &row, out, error);
    cop_buffer_release(row.spec);
    if (e) coord_model_close(out);
    return e;
}

void coord_model_close(coord_model *m) {
    cop_job_release(m->job);
    cop_free(m->flat);
    *m = (coord_model){0};
}
