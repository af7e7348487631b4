/* Model files and checkpoints. See job.h. Parameters are named and shaped as in PyTorch's
 * nn.Sequential; the job, as YAML, travels in the metadata. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/limits.h"
#include "common/data/safetensors.h"
#include "common/job/job.h"
#include "common/wire/codec.h"

/* ---- writing ---- */

/* One entry per parameter; `prefix` goes before the names ("momentum."). Caller frees. */
static cop_tensor_entry *make_entries(const cop_job *job, const float *flat, const char *prefix) {
    int count = cop_model_parameter_count(job->model);
    cop_tensor_entry *entries = cop_alloc_array((size_t)count, sizeof *entries);
    for (int i = 0; entries && i < count; i++) {
        const cop_parameter *p = cop_model_parameter(job->model, i);
        cop_tensor_entry *t = &entries[i];
        snprintf(t->name, sizeof t->name, "%s%s", prefix, p->name);
        snprintf(t->dtype, sizeof t->dtype, "F32");
        t->rank = p->rank;
        for (int d = 0; d < p->rank; d++) t->dims[d] = p->dims[d];
        t->data = flat + p->offset;
        t->size = (size_t)p->count * sizeof(float);
    }
    return entries;
}

typedef struct model_text {
    cop_str yaml;
    char step[24], digest[65];
    cop_metadata metadata[3];
} model_text;

static cop_err describe(const cop_job *job, const float *flat, uint64_t step, model_text *out,
                        cop_error *error) {
    unsigned char digest[32];
    memset(out, 0, sizeof *out);
    COP_TRY(cop_model_digest(job->model, flat, digest, error));
    cop_hex32(digest, out->digest);
    snprintf(out->step, sizeof out->step, "%llu", (unsigned long long)step);
    cop_document_print_yaml(&job->message->base, &out->yaml);
    if (out->yaml.failed) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    out->metadata[0] = (cop_metadata){"coppice.job", cop_str_text(&out->yaml)};
    out->metadata[1] = (cop_metadata){"coppice.step", out->step};
    out->metadata[2] = (cop_metadata){"coppice.digest", out->digest};
    return COP_OK;
}

cop_err cop_job_encode_model(const cop_job *job, const float *flat, uint64_t step, char **out,
                             size_t *size, cop_error *error) {
    model_text text;
    cop_err e = describe(job, flat, step, &text, error);
    if (!e) {
        cop_tensor_entry *entries = make_entries(job, flat, "");
        e = entries ? cop_safetensors_encode(entries, (size_t)cop_model_parameter_count(job->model),
                                             text.metadata, 3, out, size, error)
                    : cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
        cop_free(entries);
    }
    cop_str_fini(&text.yaml);
    return e;
}

cop_err cop_job_save_model(const cop_job *job, const float *flat, uint64_t step, const char *path,
                           cop_error *error) {
    model_text text;
    cop_err e = describe(job, flat, step, &text, error);
    if (!e) {
        cop_tensor_entry *entries = make_entries(job, flat, "");
        e = entries ? cop_safetensors_write(path, entries,
                                            (size_t)cop_model_parameter_count(job->model),
                                            text.metadata, 3, error)
                    : cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
        cop_free(entries);
    }
    cop_str_fini(&text.yaml);
    return e;
}

/* ---- reading ---- */

static cop_err read_parameter(const cop_safetensors *file, const char *path, const cop_parameter *p,
                              const char *prefix, float *flat, cop_error *error) {
    char name[128];
    snprintf(name, sizeof name, "%s%s", prefix, p->name);
    const cop_tensor_entry *t = cop_safetensors_find(file, name);
    if (!t) return cop_fail(error, COP_ERR_CORRUPT, "%s has no tensor %s", path, name);
    bool same = strcmp(t->dtype, "F32") == 0 && t->rank == p->rank;
    for (int d = 0; same && d < p->rank; d++) same = t->dims[d] == p->dims[d];
    if (!same)
        return cop_fail(error, COP_ERR_CORRUPT,
                        "%s: tensor %s has another type or shape than the job says", path, name);
    memcpy(flat + p->offset, t->data, t->size);
    return COP_OK;
}

static cop_err read_all(const cop_job *job, const cop_safetensors *file, const char *path,
                        const char *prefix, float *flat, cop_error *error) {
    int count = cop_model_parameter_count(job->model);
    memset(flat, 0, (size_t)cop_model_floats(job->model) * sizeof(float));
    for (int i = 0; i < count; i++)
        COP_TRY(
            read_parameter(file, path, cop_model_parameter(job->model, i), prefix, flat, error));
    return COP_OK;
}

static cop_err check_digest(const cop_job *job, const cop_safetensors *file, const char *path,
                            const float *flat, cop_error *error) {
    const char *expected = cop_safetensors_metadata(file, "coppice.digest");
    unsigned char digest[32];
    char found[65];
    COP_TRY(cop_model_digest(job->model, flat, digest, error));
    cop_hex32(digest, found);
    if (expected && strcmp(expected, found) != 0)
        return cop_fail(
            error, COP_ERR_CORRUPT,
            "%s was altered: its weights have the digest %.16s..., its header says %.16s...", path,
            found, expected);
    return COP_OK;
}

static void read_step(const cop_safetensors *file, uint64_t *step) {
    const char *text = cop_safetensors_metadata(file, "coppice.step");
    if (!text || !cop_parse_u64(text, step)) *step = 0;
}

cop_err cop_job_load_model(const cop_job *job, const char *path, float *flat, uint64_t *step,
                           cop_error *error) {
    cop_safetensors *file;
    COP_TRY(cop_safetensors_open(path, &file, error));
    cop_err e = read_all(job, file, path, "", flat, error);
    if (!e && cop_safetensors_count(file) != (size_t)cop_model_parameter_count(job->model))
        e = cop_fail(error, COP_ERR_CORRUPT, "%s has %zu tensors: the job has %d", path,
                     cop_safetensors_count(file), cop_model_parameter_count(job->model));
    if (!e) e = check_digest(job, file, path, flat, error);
    if (!e) read_step(file, step);
    cop_safetensors_close(file);
    return e;
}

/* The job of a model file, from its metadata. */
static cop_err job_of_file(const cop_safetensors *file, const char *path, cop_job **out,
                           cop_error *error) {
    const char *yaml = cop_safetensors_metadata(file, "coppice.job");
    Coppice__Job *message = NULL;
    if (!yaml)
        return cop_fail(error, COP_ERR_INPUT, "%s holds no job: it was not written by coppice",
                        path);
    COP_TRY(cop_document_parse_job(yaml, strlen(yaml), path, &message, error));
    cop_buffer *packed = cop_proto_pack(&message->base);
    cop_err e = packed ? cop_job_from_bytes(packed->data, packed->size, out, error)
                       : cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    cop_buffer_release(packed);
    cop_proto_free(&message->base);
    return e;
}

/* The model file that `path` means: itself, or that of a checkpoint folder or a run folder. */
static char *model_path(const char *path, cop_error *error) {
    if (!cop_folder_exists(path)) return cop_strdup(path);
    char *model = cop_path_join(path, "model.safetensors");
    if (!model || cop_file_exists(model)) return model;
    cop_free(model);
    char *latest = cop_path_join(path, "checkpoints/latest"), *name = NULL, *folder = NULL;
    size_t size;
    model = NULL;
    if (latest && cop_file_read(latest, 200, &name, &size, NULL) == COP_OK) {
        name[strcspn(name, "\n")] = '\0';
        char relative[256];
        snprintf(relative, sizeof relative, "checkpoints/%.100s/model.safetensors",
                 strchr(name, '/') ? "" : name);
        model = cop_path_join(path, relative);
    } else {
        cop_fail(error, COP_ERR_NOT_FOUND, "%s holds neither model.safetensors nor checkpoints",
                 path);
    }
    cop_free(latest);
    cop_free(name);
    cop_free(folder);
    return model;
}

cop_err cop_job_open_model(const char *path, cop_job **job, float **flat, uint64_t *step,
                           cop_error *error) {
    cop_error local = {0};
    char *file_path = model_path(path, &local);
    if (!file_path) {
        if (error) *error = local;
        return local.code ? local.code : cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    }
    cop_safetensors *file = NULL;
    cop_err e = cop_safetensors_open(file_path, &file, error);
    *job = NULL;
    *flat = NULL;
    if (!e) e = job_of_file(file, file_path, job, error);
    if (!e && !(*flat = cop_alloc((size_t)cop_model_floats((*job)->model) * sizeof(float))))
        e = cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    if (!e) e = read_all(*job, file, file_path, "", *flat, error);
    if (!e) e = check_digest(*job, file, file_path, *flat, error);
    if (!e) read_step(file, step);
    cop_safetensors_close(file);
    cop_free(file_path);
    if (e) {
        cop_job_destroy(*job);
        cop_free(*flat);
        *job = NULL;
        *flat = NULL;
    }
    return e;
}

/* ---- checkpoints ---- */

#define STATE_MAX 65536

static void step_name(uint64_t step, char out[32]) {
    snprintf(out, 32, "step-%08llu", (unsigned long long)step);
}

static cop_err save_states(const cop_job *job, const cop_checkpoint *c, const char *path,
                           cop_error *error) {
    int states = cop_optimizer_states(&job->optimizer),
        count = cop_model_parameter_count(job->model);
    cop_tensor_entry *all =
        cop_alloc_array((size_t)(count * (states > 0 ? states : 1)), sizeof *all);
    if (!all) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    for (int s = 0; s < states; s++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "%s.", cop_optimizer_state_name(&job->optimizer, s));
        cop_tensor_entry *entries = make_entries(job, c->states[s], prefix);
        if (entries) memcpy(all + s * count, entries, (size_t)count * sizeof *entries);
        cop_free(entries);
        if (!entries) {
            cop_free(all);
            return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
        }
    }
    cop_metadata metadata[1] = {{"coppice.optimizer", "sgd"}};
    cop_err e = cop_safetensors_write(path, all, (size_t)(count * states), metadata, 1, error);
    cop_free(all);
    return e;
}

static cop_err hash_file(const char *path, uint64_t *out, cop_error *error) {
    char *bytes;
    size_t size;
    COP_TRY(cop_file_read(path, (size_t)8 << 30, &bytes, &size, error));
    *out = cop_hash_xxh3(bytes, size);
    cop_free(bytes);
    return COP_OK;
}

/* Doubles go as their bits: resuming must be exact. The last line is the hash of the lines before
 * it. */
static void format_state(const cop_checkpoint *c, uint64_t model_hash, uint64_t states_hash,
                         cop_str *out) {
    uint64_t loss, seconds, best;
    memcpy(&loss, &c->train_loss_sum, 8);
    memcpy(&seconds, &c->seconds, 8);
    memcpy(&best, &c->best_error, 8);
    cop_str_printf(out,
                   "{\n  \"step\": %llu,\n  \"model_xxh3\": \"%016llx\",\n  \"optimizer_xxh3\": "
                   "\"%016llx\",\n",
                   (unsigned long long)c->step, (unsigned long long)model_hash,
                   (unsigned long long)states_hash);
    cop_str_printf(out,
                   "  \"train_loss_sum_bits\": \"%016llx\",\n  \"train_samples\": %llu,\n  "
                   "\"train_correct\": %llu,\n",
                   (unsigned long long)loss, (unsigned long long)c->train_samples,
                   (unsigned long long)c->train_correct);
    cop_str_printf(
        out,
        "  \"seconds_bits\": \"%016llx\",\n  \"best_error_bits\": \"%016llx\",\n  \"best\": %s,\n",
        (unsigned long long)seconds, (unsigned long long)best, c->is_best ? "true" : "false");
    cop_str_printf(out, "  \"state_xxh3\": \"%016llx\"\n}\n",
                   (unsigned long long)cop_hash_xxh3(out->text, out->length));
}

static cop_err write_checkpoint_files(const cop_job *job, const char *folder,
                                      const cop_checkpoint *c, cop_error *error) {
    char *model = cop_path_join(folder, "model.safetensors"),
         *states = cop_path_join(folder, "optimizer.safetensors"),
         *state = cop_path_join(folder, "state.json");
    uint64_t model_hash = 0, states_hash = 0;
    cop_str text = {0};
    cop_err e =
        model && states && state ? COP_OK : cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    if (!e) e = cop_job_save_model(job, c->weights, c->step, model, error);
    if (!e) e = save_states(job, c, states, error);
    if (!e) e = hash_file(model, &model_hash, error);
    if (!e) e = hash_file(states, &states_hash, error);
    if (!e) format_state(c, model_hash, states_hash, &text);
    if (!e) e = cop_file_write_text(state, cop_str_text(&text), error);
    cop_str_fini(&text);
    cop_free(model);
    cop_free(states);
    cop_free(state);
    return e;
}

/* ---- keeping and dropping ---- */

static bool parse_step_name(const char *name, uint64_t *step) {
    return strncmp(name, "step-", 5) == 0 && strlen(name) == 13 && cop_parse_u64(name + 5, step);
}

static void remove_in(const char *folder, const char *name) {
    char *path = cop_path_join(folder, name);
    if (path) cop_folder_remove(path, NULL);
    cop_free(path);
}

/* Keeps the newest `keep` and the best one (named in the file `best`); removes leftovers of
 * interrupted writes. */
static void prune(const char *checkpoints, uint32_t keep) {
    char **names, best[64] = "", *text = NULL;
    size_t count, size;
    char *best_path = cop_path_join(checkpoints, "best");
    if (best_path && cop_file_read(best_path, 60, &text, &size, NULL) == COP_OK)
        snprintf(best, sizeof best, "%.*s", (int)strcspn(text, "\n"), text);
    cop_free(text);
    cop_free(best_path);
    if (cop_folder_list(checkpoints, &names, &count, NULL)) return;
    uint32_t newer = 0;
    for (size_t i = count; i-- > 0;) {
        uint64_t step;
        if (strncmp(names[i], "writing-", 8) == 0)
            remove_in(checkpoints, names[i]);
        else if (parse_step_name(names[i], &step) && newer++ >= keep && strcmp(names[i], best) != 0)
            remove_in(checkpoints, names[i]);
    }
    cop_free(names);
}

static cop_err write_name(const char *folder, const char *file, const char *name,
                          cop_error *error) {
    char line[64];
    char *path = cop_path_join(folder, file);
    snprintf(line, sizeof line, "%s\n", name);
    cop_err e = path ? cop_file_write_text(path, line, error)
                     : cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    cop_free(path);
    return e;
}

cop_err cop_checkpoint_save(const cop_job *job, const char *folder, const cop_checkpoint *c,
                            cop_error *error) {
    char name[32], writing[48];
    char *checkpoints = cop_path_join(folder, "checkpoints");
    step_name(c->step, name);
    snprintf(writing, sizeof writing, "writing-%s", name);
    char *temporary = checkpoints ? cop_path_join(checkpoints, writing) : NULL,
         *target = checkpoints ? cop_path_join(checkpoints, name) : NULL;
    cop_err e = temporary && target ? COP_OK : cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    if (!e) e = cop_folder_remove(temporary, error);
    if (!e) e = cop_folder_create(temporary, error);
    if (!e) e = write_checkpoint_files(job, temporary, c, error);
    if (!e) e = cop_folder_remove(target, error); /* of an earlier life, before a resume */
    if (!e) e = cop_file_rename(temporary, target, error);
    if (e && temporary) cop_folder_remove(temporary, NULL);
    if (!e) e = write_name(checkpoints, "latest", name, error);
    if (!e && c->is_best) e = write_name(checkpoints, "best", name, error);
    if (!e) prune(checkpoints, job->checkpoint_keep);
    cop_free(checkpoints);
    cop_free(temporary);
    cop_free(target);
    return e;
}

/* ---- loading ---- */

/* The value after "key": in our own state.json; digits or hex in quotes. */
static bool find_number(const char *text, const char *key, bool hex, uint64_t *out) {
    char quoted[64], number[32] = "0x";
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    const char *at = strstr(text, quoted);
    if (!at) return false;
    at += strlen(quoted);
    if (hex && *at++ != '"') return false;
    size_t digits = strspn(at, hex ? "0123456789abcdef" : "0123456789");
    if (!digits || digits > 20) return false;
    memcpy(number + (hex ? 2 : 0), at, digits);
    number[digits + (hex ? 2 : 0)] = '\0';
    return cop_parse_u64(number, out);
}

static cop_err read_state(const char *path, cop_checkpoint *c, uint64_t *model_hash,
                          uint64_t *states_hash, cop_error *error) {
    char *text;
    size_t size;
    uint64_t own = 0, loss = 0, seconds = 0, best = 0;
    COP_TRY(cop_file_read(path, STATE_MAX, &text, &size, error));
    const char *last = strstr(text, "  \"state_xxh3\"");
    bool good = last && find_number(text, "state_xxh3", true, &own) &&
                own == cop_hash_xxh3(text, (size_t)(last - text)) &&
                strlen(last) == strlen("  \"state_xxh3\": \"0123456789abcdef\"\n}\n") &&
                find_number(text, "step", false, &c->step) &&
                find_number(text, "model_xxh3", true, model_hash) &&
                find_number(text, "optimizer_xxh3", true, states_hash) &&
                find_number(text, "train_loss_sum_bits", true, &loss) &&
                find_number(text, "train_samples", false, &c->train_samples) &&
                find_number(text, "train_correct", false, &c->train_correct) &&
                find_number(text, "seconds_bits", true, &seconds) &&
                find_number(text, "best_error_bits", true, &best);
    cop_free(text);
    if (!good) return cop_fail(error, COP_ERR_CORRUPT, "%s is damaged", path);
    memcpy(&c->train_loss_sum, &loss, 8);
    memcpy(&c->seconds, &seconds, 8);
    memcpy(&c->best_error, &best, 8);
    return COP_OK;
}

static cop_err check_hash(const char *path, uint64_t expected, cop_error *error) {
    uint64_t found;
    COP_TRY(hash_file(path, &found, error));
    return found == expected
               ? COP_OK
               : cop_fail(error, COP_ERR_CORRUPT, "%s was altered or is truncated", path);
}

static cop_err load_states(const cop_job *job, const char *path, float *states[2],
                           cop_error *error) {
    cop_safetensors *file;
    COP_TRY(cop_safetensors_open(path, &file, error));
    cop_err e = COP_OK;
    for (int s = 0; s < cop_optimizer_states(&job->optimizer) && !e; s++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "%s.", cop_optimizer_state_name(&job->optimizer, s));
        e = read_all(job, file, path, prefix, states[s], error);
    }
    cop_safetensors_close(file);
    return e;
}

/* A checkpoint of another job (other fields than those a resume may change) is refused: its
 * metadata says what it is of. */
static cop_err check_same_job(const cop_job *job, const char *path, cop_error *error) {
    cop_safetensors *file;
    cop_str yaml = {0};
    COP_TRY(cop_safetensors_open(path, &file, error));
    const char *theirs = cop_safetensors_metadata(file, "coppice.job");
    cop_document_print_yaml(&job->message->base, &yaml);
    cop_err e = COP_OK;
    if (!theirs || strcmp(theirs, cop_str_text(&yaml)) != 0)
        e = cop_fail(
            error, COP_ERR_INPUT,
            "%s is a checkpoint of another job: its job file, seed or data differ from this one",
            path);
    cop_str_fini(&yaml);
    cop_safetensors_close(file);
    return e;
}

static cop_err load_one(const cop_job *job, const char *folder, float *weights, float *states[2],
                        cop_checkpoint *c, cop_error *error) {
    char *model = cop_path_join(folder, "model.safetensors"),
         *optimizer = cop_path_join(folder, "optimizer.safetensors"),
         *state = cop_path_join(folder, "state.json");
    uint64_t model_hash, states_hash, step;
    cop_err e =
        model && optimizer && state ? COP_OK : cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    if (!e) e = read_state(state, c, &model_hash, &states_hash, error);
    if (!e) e = check_hash(model, model_hash, error);
    if (!e) e = check_hash(optimizer, states_hash, error);
    if (!e) e = check_same_job(job, model, error);
    if (!e) e = cop_job_load_model(job, model, weights, &step, error);
    if (!e && step != c->step)
        e = cop_fail(error, COP_ERR_CORRUPT, "%s is of step %llu, its state of step %llu", model,
                     (unsigned long long)step, (unsigned long long)c->step);
    if (!e) e = load_states(job, optimizer, states, error);
    cop_free(model);
    cop_free(optimizer);
    cop_free(state);
    return e;
}

cop_err cop_checkpoint_load(const cop_job *job, const char *folder, float *weights,
                            float *states[2], cop_checkpoint *checkpoint, cop_str *notes,
                            cop_error *error) {
    char *checkpoints = cop_path_join(folder, "checkpoints"), **names = NULL;
    size_t count = 0;
    if (!checkpoints) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    cop_err e = cop_folder_list(checkpoints, &names, &count, error);
    if (!e) e = COP_ERR_NOT_FOUND;
    /* Names are in byte order, so the newest step is the last; it is what `latest` names, unless
     * that file is damaged. */
    for (size_t i = count; i-- > 0 && e == COP_ERR_NOT_FOUND;) {
        uint64_t step;
        cop_error why = {0};
        if (!parse_step_name(names[i], &step)) continue;
        char *path = cop_path_join(checkpoints, names[i]);
        *checkpoint = (cop_checkpoint){0};
        e = path ? load_one(job, path, weights, states, checkpoint, &why) : COP_ERR_NO_MEMORY;
        cop_free(path);
        if (e == COP_ERR_INPUT || e == COP_ERR_NO_MEMORY) {
            if (error) *error = why;
        } else if (e) { /* damaged: the one before it */
            if (notes)
                cop_str_printf(notes, "%s; going back to the checkpoint before it\n", why.text);
            e = COP_ERR_NOT_FOUND;
        }
    }
    if (e == COP_ERR_NOT_FOUND)
        cop_fail(error, e, "there is no whole checkpoint in %s", checkpoints);
    cop_free(names);
    cop_free(checkpoints);
    return e;
}
