/* coppice submit: checks the job on this machine, uploads data that the coordinator does not have,
 * submits the job and follows it. */
#include <stdio.h>
#include <string.h>

#include "client/cli.h"
#include "client/load/history.h"
#include "client/load/run_folder.h"
#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/wire/codec.h"

/* ---- data ---- */

static uint32_t chunk_count(size_t size) {
    return (uint32_t)((size + COP_CHUNK_SIZE - 1) / COP_CHUNK_SIZE);
}

/* Returns the SHA-256 hashes of all chunks of the pack. The table and the hashes that it points to
 * are one allocation, which the caller frees with cop_free. NULL: out of memory. */
static ProtobufCBinaryData *hash_chunks(const cop_buffer *pack, uint32_t count) {
    COP_ASSERT(count >= 1 && count == chunk_count(pack->size));
    ProtobufCBinaryData *chunks = cop_alloc(count * (sizeof *chunks + 32));
    if (!chunks) return NULL;
    unsigned char *hashes = (unsigned char *)(chunks + count);
    for (uint32_t i = 0; i < count; i++) {
        size_t begin = (size_t)i * COP_CHUNK_SIZE, size = pack->size - begin;
        if (size > COP_CHUNK_SIZE) size = COP_CHUNK_SIZE;
        cop_sha256_of((const char *)pack->data + begin, size, hashes + 32 * i);
        chunks[i] = (ProtobufCBinaryData){.len = 32, .data = hashes + 32 * i};
    }
    return chunks;
}

static cop_err put_chunk(cli_remote *remote, const cop_buffer *pack, const char *digest,
                         uint32_t index, cop_error *error) {
    size_t begin = (size_t)index * COP_CHUNK_SIZE, size = pack->size - begin;
    if (begin >= pack->size)
        return cop_fail(error, COP_ERR_PROTOCOL,
                        "the coordinator asks for chunk %u, which does not exist", index);
    if (size > COP_CHUNK_SIZE) size = COP_CHUNK_SIZE;
    COP_ASSERT(size >= 1 && size <= COP_CHUNK_SIZE);
    cop_buffer *bytes = cop_buffer_create(size);
    if (!bytes) return cop_no_memory(error);
    memcpy(bytes->data, (const char *)pack->data + begin, size);
    Coppice__Api__PutChunkRequest request = COPPICE__API__PUT_CHUNK_REQUEST__INIT;
    request.digest = (char *)(uintptr_t)digest;
    request.has_index = 1;
    request.index = index;
    cli_call call = CLI_CALL(PUT_CHUNK, put_chunk, request);
    call.bulk = bytes;
    ProtobufCMessage *answer = NULL;
    COP_TRY(cli_remote_call(remote, &call, &answer, NULL, error));
    cop_proto_free(answer);
    return COP_OK;
}

static cop_err put_chunks(cli_remote *remote, const cop_buffer *pack, const char *digest,
                          const Coppice__Api__OfferDataAnswer *offer, cop_error *error) {
    cli_progress bar;
    cop_err e = COP_OK;
    cli_progress_start(&bar, remote->options->quiet);
    for (size_t i = 0; i < offer->n_missing && !e; i++) {
        e = put_chunk(remote, pack, digest, offer->missing[i], error);
        cli_data_progress(&bar, "uploading", (uint64_t)(i + 1) * COP_CHUNK_SIZE,
                          (uint64_t)offer->n_missing * COP_CHUNK_SIZE);
    }
    cli_progress_end(&bar);
    return e;
}

static cop_err commit(cli_remote *remote, const cop_data *data, const char *digest,
                      cop_error *error) {
    Coppice__Api__CommitDataRequest request = COPPICE__API__COMMIT_DATA_REQUEST__INIT;
    request.digest = (char *)(uintptr_t)digest;
    request.class_names = data->class_names;
    request.n_class_names = data->class_names ? (size_t)data->classes : 0;
    ProtobufCMessage *answer = NULL;
    COP_TRY(cli_remote_call(remote, &CLI_CALL(COMMIT_DATA, commit_data, request), &answer, NULL,
                            error));
    cop_proto_free(answer);
    return COP_OK;
}

/* Uploads the data set, but only the chunks that the coordinator does not have. */
static cop_err upload(cli_remote *remote, const cop_data *data, cop_error *error) {
    char digest[65];
    uint32_t count = chunk_count(data->pack->size);
    cop_hex32(data->digest, digest);
    ProtobufCBinaryData *chunks = hash_chunks(data->pack, count);
    if (!chunks) return cop_no_memory(error);
    Coppice__Api__OfferDataRequest request = COPPICE__API__OFFER_DATA_REQUEST__INIT;
    request.name = (char *)(uintptr_t)data->name;
    request.digest = digest;
    request.has_bytes = 1;
    request.bytes = data->pack->size;
    request.chunks = chunks;
    request.n_chunks = count;
    ProtobufCMessage *answer = NULL;
    cop_err e =
        cli_remote_call(remote, &CLI_CALL(OFFER_DATA, offer_data, request), &answer, NULL, error);
    if (!e) {
        const Coppice__Api__OfferDataAnswer *offer = (const Coppice__Api__OfferDataAnswer *)answer;
        if (!offer->complete) {
            e = put_chunks(remote, data->pack, digest, offer, error);
            if (!e) e = commit(remote, data, digest, error);
        }
        cop_proto_free(answer);
    }
    cop_free(chunks);
    return e;
}

/* ---- submit ---- */

/* Reads the job file from a file, from standard input, or with --from from an earlier job or run,
 * and applies --set. If --from names a job of the coordinator, `digest` becomes the digest of that
 * job's data, which the coordinator has. Otherwise it becomes "". */
static cop_err read_job(const cli_options *options, Coppice__Job **out, char digest[65],
                        cop_error *error) {
    cli_record record;
    digest[0] = '\0';
    if (!options->from) return cli_read_job(options->positional[0], options, out, error);
    COP_TRY(cli_record_load(options, options->from, &record, error));
    const Coppice__Pinned *pinned = record.job->pinned;
    if (cli_is_job(options->from) && pinned && pinned->data_digest)
        snprintf(digest, 65, "%s", pinned->data_digest);
    cop_document_strip_defaults(record.job);
    cop_err e = COP_OK;
    for (int i = 0; i < options->set_count && !e; i++)
        e = cop_document_set(record.job, options->sets[i], error);
    if (!e) {
        *out = record.job;
        record.job = NULL;
    }
    cli_record_fini(&record);
    return e;
}

/* True: --from names a run folder. It records where the data were. */
static bool is_from_run(const cli_options *options) {
    return options->from && !cli_is_job(options->from);
}

/* True: the data are on this machine, in --data or in files that the job names. False: the
 * coordinator has them, as the data of an earlier job or as the data set that the job names. */
static bool data_are_here(const cli_options *options, const Coppice__Job *job) {
    if (options->from && !options->data && !is_from_run(options)) return false;
    return options->data ||
           (job->data && job->data->source && cop_data_format_find(job->data->source) != NULL);
}

/* Opens the data on this machine and checks the whole job against them, so that errors appear
 * before anything is sent. */
static cop_err prepare_data(const cli_options *options, Coppice__Job **job, cop_data **data,
                            char digest[65], cop_error *error) {
    cop_job *checked = NULL;
    Coppice__Job *as_written = NULL;
    const char *path = options->from ? "./job.yaml" : options->positional[0];
    COP_TRY(is_from_run(options)
                ? cli_run_folder_open_data(*job, options->from, options, data, error)
                : cli_run_folder_open_job_data(*job, path, options, data, error));
    cop_hex32((*data)->digest, digest);
    COP_TRY(cop_document_copy_job(*job, &as_written, error));
    cop_err e =
        cop_job_create(*job, *data, &checked, error); /* an error in *job has its line number */
    if (e) {
        cop_proto_free(&as_written->base);
        return e;
    }
    cop_job_release(checked);
    *job = as_written;
    return COP_OK;
}

/* Makes the idempotency key: random, or the same for each submission with the same --once. If the
 * coordinator receives the same key again, it does not accept a second job. */
static void make_key(const cli_options *options, unsigned char key[16]) {
    unsigned char hash[32];
    if (!options->once) {
        cop_random_bytes(key, 16);
        return;
    }
    cop_sha256_of(options->once, strlen(options->once), hash);
    memcpy(key, hash, 16);
}

/* Sets the sentence for a signal that ends the command while it waits for the answer to its
 * submission. It is then unknown whether the coordinator has accepted the job. */
static void arm_submission(const cli_options *options) {
    cop_str text = {0};
    cop_str_append(&text, "coppice submit: interrupted: the coordinator may have accepted the job; "
                          "`coppice jobs");
    cli_options_print(options, CLI_CONNECTION, &text);
    cop_str_append(&text, "` shows whether it did");
    cli_interrupt_sentence(cop_str_text(&text));
    cop_str_fini(&text);
}

static cop_err submit_job(cli_remote *remote, Coppice__Job *job, const char *digest,
                          uint64_t *number, cop_error *error) {
    const cli_options *options = remote->options;
    unsigned char key[16];
    COP_ASSERT(job && remote->link);
    Coppice__Api__SubmitRequest request = COPPICE__API__SUBMIT_REQUEST__INIT;
    if (options->has_priority) {
        job->has_priority = 1;
        job->priority = (int32_t)options->priority;
    }
    make_key(options, key);
    if (!options->dry_run) arm_submission(options);
    job->pinned = NULL; /* the coordinator pins the job to its own data */
    request.job = job;
    request.has_dry_run = 1;
    request.dry_run = options->dry_run;
    request.data_digest = *digest ? (char *)(uintptr_t)digest : NULL;
    request.has_idempotency = 1;
    request.idempotency = (ProtobufCBinaryData){.len = sizeof key, .data = key};
    ProtobufCMessage *answer = NULL;
    COP_TRY(cli_remote_call(remote, &CLI_CALL(SUBMIT, submit, request), &answer, NULL, error));
    *number = ((Coppice__Api__SubmitAnswer *)answer)->job;
    cop_proto_free(answer);
    return COP_OK;
}

static cop_err follow(const cli_options *options, uint64_t number, cop_error *error) {
    Coppice__Api__JobStatus *status = NULL;
    cli_interrupt_arm_job(options, "submit", number);
    COP_TRY(cli_follow(options, number, &status, error));
    cli_interrupt_disarm();
    cop_err e = cli_print_status(options, status);
    if (!e) e = cli_status_error(status, error);
    cop_proto_free(&status->base);
    return e;
}

static void print_accepted(const cli_options *options, uint64_t number) {
    if (options->dry_run)
        cli_print(options->json ? "{\"dry_run\":true}\n"
                                : "the job is valid; nothing was submitted\n");
    else if (options->json && options->no_wait)
        cli_print("{\"job\":%llu}\n", (unsigned long long)number);
    else if (!options->json) /* with --no-wait, prints only the number, for scripts */
        cli_print(options->no_wait ? "%llu\n" : "job %llu\n", (unsigned long long)number);
    fflush(stdout);
}

cop_err cli_submit(const cli_options *options, cop_error *error) {
    Coppice__Job *job = NULL;
    cop_data *data = NULL;
    cli_remote remote = {0};
    uint64_t number = 0;
    char digest[65];
    if ((options->positional_count > 0) == (options->from != NULL))
        return cop_fail(error, COP_ERR_USAGE,
                        "expected JOB.yaml or --from JOB: coppice submit JOB.yaml (coppice submit "
                        "--help)");
    COP_TRY(read_job(options, &job, digest, error));
    cli_interrupt_arm("coppice submit: interrupted: nothing was submitted; run the same command "
                      "again to upload only what is missing");
    cop_err e = COP_OK;
    if (data_are_here(options, job)) e = prepare_data(options, &job, &data, digest, error);
    if (!e) e = cli_remote_open(options, &remote, error);
    if (!e && data && !options->dry_run) e = upload(&remote, data, error);
    if (!e) e = submit_job(&remote, job, digest, &number, error);
    cli_interrupt_disarm();
    cli_remote_close(&remote);
    cop_proto_free(&job->base);
    if (data) cop_data_destroy(data);
    COP_TRY(e);
    print_accepted(options, number);
    return options->dry_run || options->no_wait ? COP_OK : follow(options, number, error);
}
