/* Fuzz target: random bytes as a job file, and as a packed job. The YAML that is printed for an
 * accepted job file must be accepted, too, and give the same job. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/job/job.h"
#include "common/wire/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void as_file(const uint8_t *data, size_t size) {
    Coppice__Job *job = NULL, *again = NULL;
    cop_str yaml = {0};
    cop_error error = {0};
    if (cop_document_parse_job((const char *)data, size, "fuzz", &job, &error)) {
        if (!error.code || !error.text[0]) __builtin_trap();
        return;
    }
    /* the reader accepts only what the check accepts */
    if (cop_document_check_read(job, NULL)) __builtin_trap();
    if (cop_document_resolve(job, NULL)) __builtin_trap();
    cop_document_print_yaml(&job->base, &yaml);
    if (cop_document_parse_job(cop_str_text(&yaml), yaml.length, "again", &again, NULL))
        __builtin_trap();
    cop_buffer *a = cop_proto_pack(&job->base), *b = cop_proto_pack(&again->base);
    if (a->size != b->size || memcmp(a->data, b->data, a->size) != 0) __builtin_trap();
    cop_buffer_release(a);
    cop_buffer_release(b);
    cop_str_fini(&yaml);
    cop_proto_free(&job->base);
    cop_proto_free(&again->base);
}

static void as_bytes(const uint8_t *data, size_t size) {
    cop_job *job = NULL;
    if (!cop_job_from_bytes(data, size, &job, NULL)) cop_job_release(job);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    as_file(data, size);
    as_bytes(data, size);
    return 0;
}
