/* Model files. Parameters have the names and shapes of PyTorch's nn.Sequential. The metadata
 * contain the job as YAML and a checksum. So opening a file gives exactly the weights and the job
 * that were saved, or an error. See job.h. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/job/internal.h"
#include "common/wire/codec.h"

/* ---- writing ---- */

void job_fill_entries(const cop_job *job, const float *flat, const char *prefix,
                      cop_tensor_entry *entries) {
    for (int i = 0; i < cop_model_parameter_count(job->model); i++) {
        const cop_parameter *p = cop_model_parameter(job->model, i);
        cop_tensor_entry *t = &entries[i];
        const int length = snprintf(t->name, sizeof t->name, "%s%s", prefix, p->name);
        COP_ASSERT(length > 0 && length < (int)sizeof t->name);
        snprintf(t->dtype, sizeof t->dtype, "F32");
        t->rank = p->rank;
        for (int d = 0; d < p->rank; d++) t->dims[d] = p->dims[d];
        t->data = flat + p->offset;
        t->size = (size_t)p->count * sizeof(float);
    }
}

/* Computes coppice.check in hexadecimal: the XXH3 of job, step and digest, each with its final NUL.
 * Any changed byte changes it. */
static void metadata_check(const char *yaml, const char *step, const char *digest, char out[17]) {
    cop_xxh3 h;
    cop_xxh3_init(&h);
    cop_xxh3_update(&h, yaml, strlen(yaml) + 1);
    cop_xxh3_update(&h, step, strlen(step) + 1);
    cop_xxh3_update(&h, digest, strlen(digest) + 1);
    snprintf(out, 17, "%016llx", (unsigned long long)cop_xxh3_final(&h));
}

#define METADATA 4

/* The content of a model file. Free with content_fini, also after an error. */
typedef struct model_content {
    cop_str yaml;
    char step[24], digest[65], check[17];
    cop_metadata metadata[METADATA];
    cop_tensor_entry *entries; /* one per parameter; they borrow the weights */
    size_t count;              /* entries */
} model_content;

static void content_fini(model_content *content) {
    cop_str_fini(&content->yaml);
    cop_free(content->entries);
}

static cop_err content_init(const cop_job *job, const float *flat, uint64_t step,
                            model_content *out, cop_error *error) {
    unsigned char digest[32];
    memset(out, 0, sizeof *out);
    COP_TRY(cop_model_digest(job->model, flat, digest, error));
    cop_hex32(digest, out->digest);
    snprintf(out->step, sizeof out->step, "%llu", (unsigned long long)step);
    cop_document_print_yaml(&job->message->base, &out->yaml);
    if (out->yaml.failed) return cop_no_memory(error);
    const char *yaml = cop_str_text(&out->yaml);
    metadata_check(yaml, out->step, out->digest, out->check);
    out->metadata[0] = (cop_metadata){"coppice.job", yaml};
    out->metadata[1] = (cop_metadata){"coppice.step", out->step};
    out->metadata[2] = (cop_metadata){"coppice.digest", out->digest};
    out->metadata[3] = (cop_metadata){"coppice.check", out->check};
    COP_ASSERT(flat);
    out->count = (size_t)cop_model_parameter_count(job->model);
    out->entries = cop_alloc_array(out->count, sizeof *out->entries);
    if (!out->entries) return cop_no_memory(error);
    job_fill_entries(job, flat, "", out->entries);
    return COP_OK;
}

cop_err cop_job_encode_model(const cop_job *job, const float *flat, uint64_t step, cop_buffer **out,
                             cop_error *error) {
    model_content m;
    char *bytes = NULL;
    size_t size = 0;
    *out = NULL;
    cop_err e = content_init(job, flat, step, &m, error);
    const cop_safetensors_content content = {m.entries, m.count, m.metadata, METADATA};
    if (!e) e = cop_safetensors_encode(&content, &bytes, &size, error);
    content_fini(&m);
    if (e) return e;
    *out = cop_buffer_adopt(bytes, size);
    if (*out) return COP_OK;
    cop_free(bytes);
    return cop_no_memory(error);
}

cop_err cop_job_save_model(const cop_job *job, const float *flat, uint64_t step, const char *path,
                           cop_error *error) {
    model_content m;
    cop_err e = content_init(job, flat, step, &m, error);
    const cop_safetensors_content content = {m.entries, m.count, m.metadata, METADATA};
    if (!e) e = cop_safetensors_write(path, &content, error);
    content_fini(&m);
    return e;
}

/* ---- reading ---- */

static cop_err read_parameter(const job_tensor_file *file, const cop_parameter *p,
                              const char *prefix, float *flat, cop_error *error) {
    char name[128];
    snprintf(name, sizeof name, "%s%s", prefix, p->name);
    const cop_tensor_entry *t = cop_safetensors_find(file->tensors, name);
    if (!t) return cop_fail(error, COP_ERR_CORRUPT, "%s has no tensor %s", file->path, name);
    bool same = strcmp(t->dtype, "F32") == 0 && t->rank == p->rank;
    for (int d = 0; same && d < p->rank; d++) same = t->dims[d] == p->dims[d];
    if (!same)
        return cop_fail(error, COP_ERR_CORRUPT,
                        "%s: the type or shape of tensor %s does not match the job", file->path,
                        name);
    COP_ASSERT(t->size == (size_t)p->count * sizeof *flat);
    memcpy(flat + p->offset, t->data, t->size);
    return COP_OK;
}

cop_err job_read_tensors(const cop_job *job, const job_tensor_file *file, const char *prefix,
                         float *flat, cop_error *error) {
    memset(flat, 0, (size_t)cop_model_floats(job->model) * sizeof(float));
    for (int i = 0; i < cop_model_parameter_count(job->model); i++) {
        const cop_parameter *p = cop_model_parameter(job->model, i);
        COP_TRY(read_parameter(file, p, prefix, flat, error));
    }
    return COP_OK;
}

/* Verifies the checksum of the metadata. Accepts files that have none of the four keys, as those of
 * other programs. */
static cop_err check_metadata(const job_tensor_file *file, cop_error *error) {
    const char *yaml = cop_safetensors_metadata(file->tensors, "coppice.job");
    const char *step = cop_safetensors_metadata(file->tensors, "coppice.step");
    const char *digest = cop_safetensors_metadata(file->tensors, "coppice.digest");
    const char *check = cop_safetensors_metadata(file->tensors, "coppice.check");
    char expected[17];
    if (!yaml && !step && !digest && !check) return COP_OK;
    if (yaml && step && digest && check) {
        metadata_check(yaml, step, digest, expected);
        if (strcmp(check, expected) == 0) return COP_OK;
    }
    return cop_fail(error, COP_ERR_CORRUPT,
                    "%s was altered: its metadata do not match their checksum", file->path);
}

static cop_err check_digest(const cop_job *job, const job_tensor_file *file, const float *flat,
                            cop_error *error) {
    const char *expected = cop_safetensors_metadata(file->tensors, "coppice.digest");
    unsigned char digest[32];
    char found[65];
    if (cop_model_digest(job->model, flat, digest, error))
        return error ? cop_error_prefix(error, "%s", file->path) : COP_ERR_CORRUPT;
    cop_hex32(digest, found);
    if (!expected || strcmp(expected, found) == 0) return COP_OK;
    return cop_fail(
        error, COP_ERR_CORRUPT,
        "%s was altered: its weights have the digest %.16s..., but its header says %.16s...",
        file->path, found, expected);
}

cop_err job_read_model(const cop_job *job, const job_tensor_file *file, float *flat, uint64_t *step,
                       cop_error *error) {
    size_t count = (size_t)cop_model_parameter_count(job->model);
    COP_TRY(check_metadata(file, error));
    COP_TRY(job_read_tensors(job, file, "", flat, error));
    if (cop_safetensors_count(file->tensors) != count)
        return cop_fail(error, COP_ERR_CORRUPT, "%s has %zu tensors, but the job has %zu",
                        file->path, cop_safetensors_count(file->tensors), count);
    COP_TRY(check_digest(job, file, flat, error));
    const char *text = cop_safetensors_metadata(file->tensors, "coppice.step");
    if (!text || !cop_parse_u64(text, step)) *step = 0;
    return COP_OK;
}

cop_err cop_job_load_model(const cop_job *job, const char *path, float *flat, uint64_t *step,
                           cop_error *error) {
    job_tensor_file file = {.path = path};
    COP_TRY(cop_safetensors_open(path, &file.tensors, error));
    cop_err e = job_read_model(job, &file, flat, step, error);
    cop_safetensors_close(file.tensors);
    return e;
}

/* ---- a model file without its job ---- */

cop_err job_message_of(const job_tensor_file *file, Coppice__Job **out, cop_error *error) {
    const char *yaml = cop_safetensors_metadata(file->tensors, "coppice.job");
    if (!yaml)
        return cop_fail(error, COP_ERR_INPUT, "%s contains no job: it was not written by coppice",
                        file->path);
    COP_TRY(check_metadata(file, error));
    return cop_document_parse_job(yaml, strlen(yaml), file->path, out, error);
}

static cop_err job_of_file(const job_tensor_file *file, cop_job **out, cop_error *error) {
    Coppice__Job *message = NULL;
    COP_TRY(job_message_of(file, &message, error));
    cop_buffer *packed = cop_proto_pack(&message->base);
    cop_err e =
        packed ? cop_job_from_bytes(packed->data, packed->size, out, error) : cop_no_memory(error);
    cop_buffer_release(packed);
    cop_proto_free(&message->base);
    return e;
}

static cop_err join(const char *folder, const char *name, char **out, cop_error *error) {
    *out = cop_path_join(folder, name);
    return *out ? COP_OK : cop_no_memory(error);
}

/* Finds the model file of the checkpoint that the file `latest` or `best` at `path` names. The
 * caller frees *out. Returns false if the file is missing, if it names no checkpoint, or if memory
 * runs out. */
static bool named_model(const char *path, char **out) {
    char *name = NULL, *joined;
    size_t size;
    if (cop_file_read(path, 100, &name, &size, NULL)) return false;
    name[strcspn(name, "\n")] = '\0';
    const bool named = strncmp(name, "step-", 5) == 0 && !strchr(name, '/');
    const char *slash = strrchr(path, '/');
    cop_str text = {0};
    cop_str_printf(&text, "%.*s%s/model.safetensors", slash ? (int)(slash - path) + 1 : 0, path,
                   name);
    cop_free(name);
    joined = cop_str_take(&text);
    if (!named || !joined) {
        cop_free(joined);
        return false;
    }
    *out = joined;
    return true;
}

/* Finds the model file that a path stands for, as cop_job_open_model says. In a folder it is
 * model.safetensors (in a run folder, the run has then ended), or else that of the checkpoint that
 * checkpoints/latest names. The caller frees *out. */
static cop_err model_path(const char *path, char **out, cop_error *error) {
    if (!cop_folder_exists(path)) {
        if (named_model(path, out)) return COP_OK;
        *out = cop_strdup(path);
        return *out ? COP_OK : cop_no_memory(error);
    }
    char *latest;
    COP_TRY(join(path, "model.safetensors", out, error));
    if (cop_file_exists(*out)) return COP_OK;
    cop_free(*out);
    *out = NULL;
    COP_TRY(join(path, "checkpoints/latest", &latest, error));
    const bool named = named_model(latest, out);
    cop_free(latest);
    return named ? COP_OK
                 : cop_fail(error, COP_ERR_NOT_FOUND,
                            "%s contains neither model.safetensors nor checkpoints", path);
}

/* Reads the job and the weights from an open file, and closes the file. */
static cop_err read_file(const job_tensor_file *file, cop_saved_model *out, cop_error *error) {
    cop_err e = job_of_file(file, &out->job, error);
    if (!e) {
        out->flat = cop_alloc_array((size_t)cop_model_floats(out->job->model), sizeof(float));
        e = out->flat ? job_read_model(out->job, file, out->flat, &out->step, error)
                      : cop_no_memory(error);
    }
    cop_safetensors_close(file->tensors);
    if (e) {
        cop_job_release(out->job);
        cop_free(out->flat);
        *out = (cop_saved_model){0};
    }
    return e;
}

cop_err cop_job_decode_model(const void *bytes, size_t size, const char *what, cop_saved_model *out,
                             cop_error *error) {
    job_tensor_file file = {.path = what};
    *out = (cop_saved_model){0};
    COP_TRY(cop_safetensors_decode(bytes, size, what, &file.tensors, error));
    return read_file(&file, out, error);
}

cop_err cop_job_open_model(const char *path, cop_saved_model *out, cop_error *error) {
    char *file_path;
    *out = (cop_saved_model){0};
    COP_TRY(model_path(path, &file_path, error));
    job_tensor_file file = {.path = file_path};
    cop_err e = cop_safetensors_open(file_path, &file.tensors, error);
    if (!e) e = read_file(&file, out, error);
    cop_free(file_path);
    return e;
}
