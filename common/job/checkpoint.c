/* Checkpoints. Each is written completely to the folder `writing`, which is then renamed. So a
 * folder with a name like `step-00000500` is complete. If somebody alters it later, the hashes in
 * its state.json reveal it. See job.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/injected_bugs.h"
#include "common/job/internal.h"
#include "common/wire/codec.h"

#define FILE_MAX ((size_t)8 << 30)

/* ---- names ---- */

static void step_name(uint64_t step, char out[32]) {
    const int length = snprintf(out, 32, "step-%08llu", (unsigned long long)step);
    COP_ASSERT(length > 0 && length < 32);
}

static bool parse_step_name(const char *name, uint64_t *step) {
    char again[32];
    if (strncmp(name, "step-", 5) != 0 || strspn(name + 5, "0123456789") != strlen(name + 5))
        return false;
    *step = strtoull(name + 5, NULL, 10);
    step_name(*step, again);
    return strcmp(again, name) == 0;
}

typedef struct paths {
    char *model, *optimizer, *state;
} paths;

static void paths_fini(paths *p) {
    cop_free(p->model);
    cop_free(p->optimizer);
    cop_free(p->state);
}

static cop_err paths_init(const char *folder, paths *p, cop_error *error) {
    p->model = cop_path_join(folder, "model.safetensors");
    p->optimizer = cop_path_join(folder, "optimizer.safetensors");
    p->state = cop_path_join(folder, "state.json");
    if (p->model && p->optimizer && p->state) return COP_OK;
    paths_fini(p);
    return cop_no_memory(error);
}

/* ---- writing ---- */

static cop_err write_bytes(const char *path, const void *bytes, size_t size, uint64_t *hash,
                           cop_error *error) {
    cop_file_part part = {bytes, size};
    *hash = cop_hash_xxh3(bytes, size);
    return cop_file_write(path, &part, 1, 0644, error);
}

static cop_err write_model(const cop_job *job, const cop_checkpoint *c, const char *path,
                           uint64_t *hash, cop_error *error) {
    cop_buffer *model = NULL;
    COP_TRY(cop_job_encode_model(job, c->weights, c->step, &model, error));
    cop_err e = write_bytes(path, model->data, model->size, hash, error);
    cop_buffer_release(model);
    return e;
}

static cop_err encode_states(const cop_job *job, const cop_checkpoint *c, char **bytes,
                             size_t *size, cop_error *error) {
    int states = cop_optimizer_states(&job->optimizer);
    size_t count = (size_t)cop_model_parameter_count(job->model), all = count * (size_t)states;
    const cop_metadata metadata[1] = {
        {"coppice.optimizer", cop_optimizer_name(job->optimizer.kind)}};
    cop_tensor_entry *entries = cop_alloc_array(all, sizeof *entries);
    if (!entries) return cop_no_memory(error);
    for (int s = 0; s < states; s++) {
        char prefix[32];
        COP_ASSERT(c->states[s]);
        snprintf(prefix, sizeof prefix, "%s.", cop_optimizer_state_name(&job->optimizer, s));
        job_fill_entries(job, c->states[s], prefix, entries + (size_t)s * count);
    }
    const cop_safetensors_content content = {entries, all, metadata, 1};
    cop_err e = cop_safetensors_encode(&content, bytes, size, error);
    cop_free(entries);
    return e;
}

static cop_err write_states(const cop_job *job, const cop_checkpoint *c, const char *path,
                            uint64_t *hash, cop_error *error) {
    char *bytes = NULL;
    size_t size = 0;
    COP_TRY(encode_states(job, c, &bytes, &size, error));
    cop_err e = write_bytes(path, bytes, size, hash, error);
    cop_free(bytes);
    return e;
}

static cop_err write_state(const cop_job *job, const cop_checkpoint *c, const char *path,
                           job_state *s, cop_error *error) {
    unsigned char digest[32];
    cop_str text = {0};
    COP_TRY(cop_model_digest(job->model, c->weights, digest, error));
    cop_hex32(digest, s->digest);
    job_format_state(c, s, &text);
    cop_err e =
        text.failed ? cop_no_memory(error) : cop_file_write_text(path, cop_str_text(&text), error);
    cop_str_fini(&text);
    return e;
}

static cop_err write_files(const cop_job *job, const char *folder, const cop_checkpoint *c,
                           cop_error *error) {
    paths p;
    job_state s = {0};
    COP_TRY(cop_folder_create(folder, error));
    COP_TRY(paths_init(folder, &p, error));
    cop_err e = write_model(job, c, p.model, &s.model_hash, error);
    if (!e) e = write_states(job, c, p.optimizer, &s.optimizer_hash, error);
    if (!e) e = write_state(job, c, p.state, &s, error);
    paths_fini(&p);
    return e;
}

static cop_err write_name(const char *folder, const char *file, const char *name,
                          cop_error *error) {
    char line[64];
    char *path = cop_path_join(folder, file);
    if (!path) return cop_no_memory(error);
    snprintf(line, sizeof line, "%s\n", name);
    cop_err e = cop_file_write_text(path, line, error);
    cop_free(path);
    return e;
}

/* ---- keeping and removing ---- */

/* Reads the step that the file `latest` or `best` names. Returns false if there is no such file or
 * it names no step. */
static bool read_name(const char *folder, const char *file, uint64_t *step) {
    char *path = cop_path_join(folder, file), *text = NULL;
    size_t size;
    bool good = path && !cop_file_read(path, 60, &text, &size, NULL);
    if (good) text[strcspn(text, "\n")] = '\0';
    good = good && parse_step_name(text, step);
    cop_free(path);
    cop_free(text);
    return good;
}

static int newest_first(const void *a, const void *b) {
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Lists the steps of all checkpoints, the newest first. The caller frees *steps with cop_free. */
static cop_err list_steps(const char *checkpoints, uint64_t **steps, size_t *count,
                          cop_error *error) {
    char **names;
    size_t all;
    *count = 0;
    COP_TRY(cop_folder_list(checkpoints, &names, &all, error));
    *steps = cop_alloc_array(all + 1, sizeof **steps);
    for (size_t i = 0; *steps && i < all; i++)
        if (parse_step_name(names[i], &(*steps)[*count])) ++*count;
    cop_free(names);
    if (!*steps) return cop_no_memory(error);
    qsort(*steps, *count, sizeof **steps, newest_first);
    return COP_OK;
}

static cop_err remove_in(const char *folder, const char *name, cop_error *error) {
    char *path = cop_path_join(folder, name);
    cop_err e = path ? cop_folder_remove(path, error) : cop_no_memory(error);
    cop_free(path);
    return e;
}

/* Removes all checkpoints except the best and the newest `keep` of those up to `step`, which was
 * just written. Checkpoints of later steps belong to an earlier run in this folder that continued
 * differently. Errors are ignored. */
static void prune(const char *checkpoints, uint64_t step, uint32_t keep) {
    uint64_t *steps, best = 0;
    size_t count;
    if (list_steps(checkpoints, &steps, &count, NULL)) return;
    bool has_best = read_name(checkpoints, "best", &best);
    uint32_t seen = 0; /* checkpoints up to `step` so far */
    for (size_t i = 0; i < count; i++) {
        char name[32];
        uint32_t place = seen;
        seen += steps[i] <= step;
        if (steps[i] <= step && COP_INJECT_BUG(PRUNE_NEWEST, place < keep, place && place <= keep))
            continue;
        if (steps[i] <= step && has_best && steps[i] == best) continue;
        step_name(steps[i], name);
        remove_in(checkpoints, name, NULL);
    }
    cop_free(steps);
}

/* ---- saving ---- */

static cop_err unlink_in(const char *folder, const char *name, cop_error *error) {
    char *path = cop_path_join(folder, name);
    cop_err e = path ? cop_file_remove(path, error) : cop_no_memory(error);
    cop_free(path);
    return e;
}

/* Removes the file `best`, because the job has no best checkpoint. An earlier version may have
 * chosen one by its test error and written the file. */
static cop_err forget_best(const char *checkpoints, cop_error *error) {
    uint64_t best;
    return read_name(checkpoints, "best", &best) ? unlink_in(checkpoints, "best", error) : COP_OK;
}

static cop_err save_in(const cop_job *job, const char *checkpoints, const cop_checkpoint *c,
                       cop_error *error) {
    char name[32];
    step_name(c->step, name);
    char *writing = cop_path_join(checkpoints, "writing"),
         *target = cop_path_join(checkpoints, name);
    cop_err e = writing && target ? COP_OK : cop_no_memory(error);
    if (!e) e = cop_folder_remove(writing, error); /* a killed process may have left one behind */
    if (!e) e = write_files(job, writing, c, error);
    if (!e) e = cop_folder_replace(writing, target, error); /* an earlier run may have left it */
    if (e && writing) cop_folder_remove(writing, NULL);
    cop_free(writing);
    cop_free(target);
    if (!e) e = write_name(checkpoints, "latest", name, error);
    if (!e && c->is_best) e = write_name(checkpoints, "best", name, error);
    if (!e && !c->is_best && !c->has_best) e = forget_best(checkpoints, error);
    return e;
}

cop_err cop_checkpoint_save(const cop_job *job, const char *folder, const cop_checkpoint *c,
                            cop_error *error) {
    COP_ASSERT(c->weights && job->checkpoint_keep >= 1);
    char *checkpoints = cop_path_join(folder, "checkpoints");
    if (!checkpoints) return cop_no_memory(error);
    if (COP_INJECT_BUG(OLD_FIRST, false, true))
        prune(checkpoints, c->step, job->checkpoint_keep - 1);
    cop_err e = save_in(job, checkpoints, c, error);
    if (!e) prune(checkpoints, c->step, job->checkpoint_keep);
    cop_free(checkpoints);
    return e;
}

/* ---- loading ---- */

static cop_err open_hashed(const char *path, uint64_t expected, cop_safetensors **out,
                           cop_error *error) {
    char *bytes;
    size_t size;
    COP_TRY(cop_file_read(path, FILE_MAX, &bytes, &size, error));
    cop_err e = cop_hash_xxh3(bytes, size) == expected
                    ? cop_safetensors_decode(bytes, size, path, out, error)
                    : cop_fail(error, COP_ERR_CORRUPT, "%s was altered or is truncated", path);
    cop_free(bytes);
    return e;
}

/* A search for a checkpoint. */
typedef struct loader {
    const cop_job *job;
    const cop_checkpoint_source *from;
    const cop_checkpoint_buffers *into;
    const char *checkpoints; /* the folder of all checkpoints */
    cop_checkpoint *out;
    cop_error beyond;     /* about the first intact checkpoint beyond the job's end; code 0: none */
    uint64_t beyond_step; /* the step of this checkpoint */
} loader;

static cop_err load_states(const loader *l, const char *path, uint64_t hash, cop_error *error) {
    const cop_optimizer_spec *optimizer = &l->job->optimizer;
    job_tensor_file file = {.path = path};
    COP_TRY(open_hashed(path, hash, &file.tensors, error));
    cop_err e = COP_OK;
    for (int s = 0; s < cop_optimizer_states(optimizer) && !e; s++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "%s.", cop_optimizer_state_name(optimizer, s));
        e = job_read_tensors(l->job, &file, prefix, l->into->states[s], error);
    }
    cop_safetensors_close(file.tensors);
    return e;
}

static cop_err load_model(const loader *l, const char *path, uint64_t hash, uint64_t *step,
                          cop_error *error) {
    job_tensor_file file = {.path = path};
    Coppice__Job *theirs = NULL;
    COP_TRY(open_hashed(path, hash, &file.tensors, error));
    cop_err e = job_message_of(&file, &theirs, error);
    if (!e) e = job_check_compatible(l->job, theirs, path, error);
    if (!e) e = job_read_model(l->job, &file, l->into->weights, step, error);
    if (theirs) cop_proto_free(&theirs->base);
    cop_safetensors_close(file.tensors);
    return e;
}

/* Loads one checkpoint. LIMIT: it is intact, but of a step beyond the end of the job. */
static cop_err load_from(const loader *l, const paths *p, cop_error *error) {
    job_state s;
    uint64_t step = 0;
    COP_TRY(job_read_state(p->state, l->out, &s, error));
    COP_TRY(load_model(l, p->model, s.model_hash, &step, error));
    COP_TRY(load_states(l, p->optimizer, s.optimizer_hash, error));
    if (step != l->out->step)
        return cop_fail(error, COP_ERR_CORRUPT,
                        "%s is from step %llu, but its state is from step %llu", p->model,
                        (unsigned long long)step, (unsigned long long)l->out->step);
    if (step > l->job->steps)
        return cop_fail(error, COP_ERR_LIMIT, "%s is from step %llu: the job ends at step %llu",
                        p->model, (unsigned long long)step, (unsigned long long)l->job->steps);
    return COP_OK;
}

static void add_note(loader *l, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add_note(loader *l, const char *format, ...) {
    cop_str *notes = l->from->notes;
    va_list arguments;
    if (!notes) return;
    if (notes->length) cop_str_append(notes, "\n");
    va_start(arguments, format);
    cop_str_vprintf(notes, format, arguments);
    va_end(arguments);
}

/* Tries to load the checkpoint of a step. NOT_FOUND: it is damaged or lies beyond the end of the
 * job; the caller may try another one. Any other error ends the search. */
static cop_err try_step(loader *l, uint64_t step, cop_error *error) {
    char name[32];
    paths p;
    cop_error why = {0};
    step_name(step, name);
    char *folder = cop_path_join(l->checkpoints, name);
    if (!folder) return cop_no_memory(error);
    cop_err e = paths_init(folder, &p, &why);
    cop_free(folder);
    *l->out = (cop_checkpoint){0};
    if (!e) {
        e = load_from(l, &p, &why);
        paths_fini(&p);
    }
    if (!e) return COP_OK;
    if (e == COP_ERR_NO_MEMORY) return cop_no_memory(error);
    if (e == COP_ERR_INPUT) { /* the folder belongs to another job */
        if (error) *error = why;
        return e;
    }
    COP_ASSERT(why.code == e);
    if (e != COP_ERR_LIMIT)
        add_note(l, "%s; using the previous checkpoint", why.text);
    else if (!l->beyond.code) {
        l->beyond = why;
        l->beyond_step = step;
    }
    return COP_ERR_NOT_FOUND;
}

/* Tries the checkpoint that `latest` names, then the others from the newest to the oldest. */
static cop_err try_steps(loader *l, const uint64_t *steps, size_t count, cop_error *error) {
    const uint64_t max_step = l->from->max_step;
    uint64_t latest;
    bool has_latest = read_name(l->checkpoints, "latest", &latest);
    cop_err e = COP_ERR_NOT_FOUND;
    for (size_t i = 0; i < count && has_latest && e == COP_ERR_NOT_FOUND; i++)
        if (steps[i] == latest && latest <= max_step) e = try_step(l, latest, error);
    for (size_t i = 0; i < count && e == COP_ERR_NOT_FOUND; i++)
        if (steps[i] <= max_step && (!has_latest || steps[i] != latest))
            e = try_step(l, steps[i], error);
    return e;
}

static cop_err try_all(loader *l, cop_error *error) {
    uint64_t *steps;
    size_t count;
    COP_TRY(list_steps(l->checkpoints, &steps, &count, error));
    cop_err e = try_steps(l, steps, count, error);
    cop_free(steps);
    COP_ASSERT(e || l->out->step <= l->job->steps);
    if (!e && l->beyond.code)
        add_note(l,
                 "the job ends at step %llu, but %s has checkpoints up to step %llu: continuing "
                 "from step %llu and removing the later checkpoints",
                 (unsigned long long)l->job->steps, l->checkpoints,
                 (unsigned long long)l->beyond_step, (unsigned long long)l->out->step);
    if (e != COP_ERR_NOT_FOUND) return e;
    if (l->beyond.code) return cop_fail(error, COP_ERR_INPUT, "%s", l->beyond.text);
    return cop_fail(error, e, "there is no intact checkpoint in %s", l->checkpoints);
}

cop_err cop_checkpoint_load(const cop_job *job, const cop_checkpoint_source *from,
                            const cop_checkpoint_buffers *into, cop_checkpoint *checkpoint,
                            cop_error *error) {
    COP_ASSERT(into->weights);
    for (int s = 0; s < cop_optimizer_states(&job->optimizer); s++) COP_ASSERT(into->states[s]);
    char *checkpoints = cop_path_join(from->folder, "checkpoints");
    if (!checkpoints) return cop_no_memory(error);
    loader l = {
        .job = job, .from = from, .into = into, .checkpoints = checkpoints, .out = checkpoint};
    cop_err e = try_all(&l, error);
    cop_free(checkpoints);
    return e;
}

static cop_err remove_after(const char *checkpoints, uint64_t step, cop_error *error) {
    uint64_t *steps;
    size_t count;
    COP_TRY(list_steps(checkpoints, &steps, &count, error));
    cop_err e = COP_OK;
    for (size_t i = 0; i < count && steps[i] > step && !e; i++) { /* newest first */
        char name[32];
        step_name(steps[i], name);
        e = remove_in(checkpoints, name, error);
    }
    cop_free(steps);
    return e;
}

/* If `latest` names a later step than `step`, makes it name `step`. Removes it if `step` is 0 or if
 * writing fails, for example on a full disk: loading does not need it. */
static cop_err name_latest(const char *checkpoints, uint64_t step, cop_error *error) {
    char name[32];
    uint64_t named;
    if (!read_name(checkpoints, "latest", &named) || named <= step) return COP_OK;
    step_name(step, name);
    if (step && !write_name(checkpoints, "latest", name, NULL)) return COP_OK;
    return unlink_in(checkpoints, "latest", error);
}

cop_err cop_checkpoint_discard_after(const char *folder, uint64_t step, cop_checkpoint *c,
                                     cop_error *error) {
    uint64_t best;
    char *checkpoints = cop_path_join(folder, "checkpoints");
    if (!checkpoints) return cop_no_memory(error);
    cop_err e = COP_OK;
    if (read_name(checkpoints, "best", &best) && best > step) {
        c->has_best = false;
        e = unlink_in(checkpoints, "best", error);
    }
    if (!e) e = remove_after(checkpoints, step, error);
    if (!e) e = name_latest(checkpoints, step, error);
    /* Syncs even if nothing was removed: an earlier attempt may have failed just before this. */
    if (!e) e = cop_folder_sync(checkpoints, error);
    cop_free(checkpoints);
    return e == COP_ERR_NOT_FOUND ? COP_OK : e; /* without the folder there is nothing to remove */
}

cop_err cop_checkpoint_check(const cop_job *job, const char *folder, cop_error *error) {
    const size_t floats = (size_t)cop_model_floats(job->model);
    const int count = cop_optimizer_states(&job->optimizer);
    const cop_checkpoint_source from = {.folder = folder, .max_step = COP_CHECKPOINT_ANY_STEP};
    cop_checkpoint_buffers into = {.weights = cop_alloc_array(floats, sizeof(float))};
    bool whole = into.weights != NULL;
    for (int i = 0; i < count; i++) {
        into.states[i] = cop_alloc_array(floats, sizeof(float));
        whole = whole && into.states[i];
    }
    cop_checkpoint found;
    cop_err e =
        whole ? cop_checkpoint_load(job, &from, &into, &found, error) : cop_no_memory(error);
    cop_free(into.weights);
    cop_free(into.states[0]);
    cop_free(into.states[1]);
    return e == COP_ERR_NOT_FOUND ? COP_OK : e;
}
