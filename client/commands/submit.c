/* coppice submit: check the job here, upload what the coordinator lacks of its data, hand it over,
 * follow it. */
#include <stdio.h>
#include <string.h>

#include "client/cli.h"
#include "common/base/alloc.h"
#include "common/base/hash.h"
#include "common/wire/codec.h"

/* ---- data ---- */

static uint32_t chunk_count(size_t size) {
    return (uint32_t)((size + COP_CHUNK_SIZE - 1) / COP_CHUNK_SIZE);
}

/* SHA-256 of every chunk of the pack; table and hashes are one block (cop_free). */
static ProtobufCBinaryData *hash_chunks(const cop_buffer *pack, uint32_t count) {
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
                        "the coordinator asks for chunk %u, which there is not", index);
    if (size > COP_CHUNK_SIZE) size = COP_CHUNK_SIZE;
    cop_buffer *bytes = cop_buffer_create(size);
    if (!bytes) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    memcpy(bytes->data, (const char *)pack->data + begin, size);
    Coppice__Api__PutChunkRequest request = COPPICE__API__PUT_CHUNK_REQUEST__INIT;
    request.digest = (char *)(uintptr_t)digest;
    request.has_index = 1;
    request.index = index;
    ProtobufCMessage *answer = NULL;
    COP_TRY(cli_remote_call(remote, COPPICE__API__METHOD__PUT_CHUNK, &request.base, bytes,
                            &coppice__api__put_chunk_answer__descriptor, &answer, NULL, error));
    cop_proto_free(answer);
    return COP_OK;
}

static cop_err send_missing(cli_remote *remote, const cop_data *data, const char *digest,
                            const Coppice__Api__OfferDataAnswer *offer, bool quiet,
                            cop_error *error) {
    cli_progress bar;
    cop_err e = COP_OK;
    cli_progress_start(&bar, quiet);
    for (size_t i = 0; i < offer->n_missing && !e; i++) {
        e = put_chunk(remote, data->pack, digest, offer->missing[i], error);
        cli_data_progress(&bar, "uploading", (uint64_t)(i + 1) * COP_CHUNK_SIZE,
                          (uint64_t)offer->n_missing * COP_CHUNK_SIZE);
    }
    cli_progress_end(&bar);
    if (e) return e;
    Coppice__Api__CommitDataRequest request = COPPICE__API__COMMIT_DATA_REQUEST__INIT;
    request.digest = (char *)(uintptr_t)digest;
    ProtobufCMessage *answer = NULL;
    COP_TRY(cli_remote_call(remote, COPPICE__API__METHOD__COMMIT_DATA, &request.base, NULL,
                            &coppice__api__commit_data_answer__descriptor, &answer, NULL, error));
    cop_proto_free(answer);
    return COP_OK;
}

cop_err cli_upload(cli_remote *remote, const cop_data *data, bool quiet, cop_error *error) {
    char digest[65];
    uint32_t count = chunk_count(data->pack->size);
    cop_hex32(data->digest, digest);
    ProtobufCBinaryData *chunks = hash_chunks(data->pack, count);
    if (!chunks) return cop_fail(error, COP_ERR_NO_MEMORY, "out of memory");
    Coppice__Api__OfferDataRequest request = COPPICE__API__OFFER_DATA_REQUEST__INIT;
    request.name = (char *)(uintptr_t)data->name;
    request.digest = digest;
    request.has_bytes = 1;
    request.bytes = data->pack->size;
    request.chunks = chunks;
    request.n_chunks = count;
    ProtobufCMessage *answer = NULL;
    cop_err e = cli_remote_call(remote, COPPICE__API__METHOD__OFFER_DATA, &request.base, NULL,
                                &coppice__api__offer_data_answer__descriptor, &answer, NULL, error);
    if (!e) {
        const Coppice__Api__OfferDataAnswer *offer = (const Coppice__Api__OfferDataAnswer *)answer;
        if (!offer->complete) e = send_missing(remote, data, digest, offer, quiet, error);
        cop_proto_free(answer);
    }
    cop_free(chunks);
    return e;
}

/* ---- submit ---- */

/* With --data: open, check the job against it, upload. Without: the job names a set that the
 * coordinator has. */
static cop_err prepare_data(cli_remote *remote, const cli_options *options, const Coppice__Job *job,
                            char digest[65], cop_error *error) {
    digest[0] = '\0';
    if (!options->data) return COP_OK;
    cop_data *data = NULL;
    COP_TRY(cop_job_open_data(job, options->positional[0], options->data, &data, error));
    cop_hex32(data->digest, digest);
    cop_err e = options->dry_run ? COP_OK : cli_upload(remote, data, options->quiet, error);
    cop_data_destroy(data);
    return e;
}

/* Check the whole job here when the data is at hand: errors come before anything travels. */
static cop_err check_here(const cli_options *options, cop_error *error) {
    if (!options->data) return COP_OK;
    cop_job *job = NULL;
    cop_data *data = NULL;
    COP_TRY(cli_load_job(options->positional[0], options, &job, &data, error));
    cop_job_destroy(job);
    cop_data_destroy(data);
    return COP_OK;
}

/* A submission that comes again with its key is the same job. */
static void make_key(const cli_options *options, unsigned char key[16]) {
    unsigned char hash[32];
    if (!options->once) {
        cop_random_bytes(key, 16);
        return;
    }
    cop_sha256_of(options->once, strlen(options->once), hash);
    memcpy(key, hash, 16);
}

static cop_err hand_over(cli_remote *remote, const cli_options *options, Coppice__Job *job,
                         const char *digest, uint64_t *number, cop_error *error) {
    unsigned char once[16];
    Coppice__Api__SubmitRequest request = COPPICE__API__SUBMIT_REQUEST__INIT;
    if (options->has_priority) {
        job->has_priority = 1;
        job->priority = (int32_t)options->priority;
    }
    make_key(options, once);
    request.job = job;
    request.has_dry_run = 1;
    request.dry_run = options->dry_run;
    request.data_digest = *digest ? (char *)(uintptr_t)digest : NULL;
    request.has_idempotency = 1;
    request.idempotency = (ProtobufCBinaryData){.len = sizeof once, .data = once};
    ProtobufCMessage *answer = NULL;
    COP_TRY(cli_remote_call(remote, COPPICE__API__METHOD__SUBMIT, &request.base, NULL,
                            &coppice__api__submit_answer__descriptor, &answer, NULL, error));
    *number = ((Coppice__Api__SubmitAnswer *)answer)->job;
    cop_proto_free(answer);
    return COP_OK;
}

static cop_err follow(const cli_options *options, uint64_t number, cop_error *error) {
    Coppice__Api__JobStatus *status = NULL;
    COP_TRY(cli_follow(options, number, &status, error));
    cop_err e = cli_print_status(options, status);
    if (!e) e = cli_status_error(status, error);
    cop_proto_free(&status->base);
    return e;
}

cop_err cli_submit(const cli_options *options, cop_error *error) {
    Coppice__Job *job = NULL;
    cli_remote remote = {0};
    uint64_t number = 0;
    char digest[65];
    COP_TRY(check_here(options, error));
    COP_TRY(cli_read_job(options->positional[0], options, &job, error));
    cop_err e = cli_remote_open(options, &remote, error);
    if (!e) e = prepare_data(&remote, options, job, digest, error);
    if (!e) e = hand_over(&remote, options, job, digest, &number, error);
    cli_remote_close(&remote);
    cop_proto_free(&job->base);
    COP_TRY(e);
    if (options->dry_run) {
        if (options->json)
            cli_print("{\"dry_run\":true}\n");
        else
            cli_print("the job is fine; nothing was submitted\n");
        return COP_OK;
    }
    if (options->json && options->no_wait)
        cli_print("{\"job\":%llu}\n", (unsigned long long)number);
    else if (!options->json)
        cli_print("job %llu\n", (unsigned long long)number);
    fflush(stdout);
    return options->no_wait ? COP_OK : follow(options, number, error);
}
