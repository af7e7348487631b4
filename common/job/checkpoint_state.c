/* state.json of a checkpoint: the step, the sums so far, and the hashes of the other files. Doubles
 * are stored twice: as text for people, and as their bits, which are read back, because a job must
 * continue exactly. The last field is a hash of all text before it. The reader verifies the hash
 * first, so it only needs to understand what job_format_state writes. */
#include <stdio.h>
#include <string.h>

#include "common/base/alloc.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/job/internal.h"

#define STATE_MAX 65536
#define SEAL      "  \"state_xxh3\": \""

static uint64_t bits_of(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void put_number(cop_str *out, const char *key, uint64_t value) {
    cop_str_printf(out, "  \"%s\": %llu,\n", key, (unsigned long long)value);
}

static void put_bits(cop_str *out, const char *key, uint64_t value) {
    cop_str_printf(out, "  \"%s\": \"%016llx\",\n", key, (unsigned long long)value);
}

/* Appends a number for people and tools. NaN and infinity become null, because JSON cannot express
 * them. */
static void put_real(cop_str *out, const char *key, double value) {
    cop_str_printf(out, "  \"%s\": ", key);
    cop_str_append_json_real(out, value);
    cop_str_append(out, ",\n");
}

/* A best_error of -1 means that there is no best checkpoint. But a loss may be negative, too: then
 * this line marks best_error as valid. Earlier versions ignore the line, and read such a file as
 * one without a best checkpoint. They write the same file as this version if no loss is below 0. */
static const char negative_best[] = "  \"best_is_negative\": true,\n";

static void put_best(cop_str *out, const cop_checkpoint *c) {
    put_real(out, "best_error", c->has_best ? c->best_error : -1);
    if (c->has_best && c->best_error < 0) cop_str_append(out, negative_best);
}

void job_format_state(const cop_checkpoint *c, const job_state *s, cop_str *out) {
    COP_ASSERT(strlen(s->digest) == 64);
    cop_str_append(out, "{\n");
    put_number(out, "step", c->step);
    cop_str_printf(out, "  \"digest\": \"%s\",\n", s->digest);
    put_bits(out, "model_xxh3", s->model_hash);
    put_bits(out, "optimizer_xxh3", s->optimizer_hash);
    put_bits(out, "train_loss_sum_bits", bits_of(c->train_loss_sum));
    put_number(out, "train_samples", c->train_samples);
    put_number(out, "train_correct", c->train_correct);
    put_bits(out, "seconds_bits", bits_of(c->seconds));
    put_bits(out, "best_error_bits", bits_of(c->has_best ? c->best_error : -1));
    put_real(out, "train_loss_sum", c->train_loss_sum);
    put_real(out, "seconds", c->seconds);
    put_best(out, c);
    cop_str_printf(out, "  \"best\": %s,\n", c->is_best ? "true" : "false");
    uint64_t seal = cop_hash_xxh3(cop_str_text(out), out->length);
    cop_str_printf(out, SEAL "%016llx\"\n}\n", (unsigned long long)seal);
}

/* Finds "key": and reads the number after it. Hexadecimal numbers are in quotes. */
static bool take_number(const char *text, const char *key, bool hex, uint64_t *out) {
    char quoted[64], number[32] = "0x";
    const int length = snprintf(quoted, sizeof quoted, "\"%s\": %s", key, hex ? "\"" : "");
    COP_ASSERT(length > 0 && length < (int)sizeof quoted);
    const char *at = strstr(text, quoted);
    if (!at) return false;
    at += strlen(quoted);
    size_t digits = strspn(at, hex ? "0123456789abcdef" : "0123456789"), prefix = hex ? 2 : 0;
    if (!digits || digits > 20) return false;
    memcpy(number + prefix, at, digits);
    number[prefix + digits] = '\0';
    return cop_parse_u64(number, out);
}

static bool take_double(const char *text, const char *key, double *out) {
    uint64_t bits;
    if (!take_number(text, key, true, &bits)) return false;
    memcpy(out, &bits, sizeof bits);
    return true;
}

/* True: the hash at the end of the text is that of the text before it. */
static bool is_sealed(const char *text, size_t size) {
    char expected[64];
    const char *seal = strstr(text, SEAL);
    if (!seal) return false;
    uint64_t hash = cop_hash_xxh3(text, (size_t)(seal - text));
    snprintf(expected, sizeof expected, SEAL "%016llx\"\n}\n", (unsigned long long)hash);
    return strcmp(seal, expected) == 0 && strlen(text) == size;
}

static bool parse_state(const char *text, size_t size, cop_checkpoint *c, job_state *s) {
    return is_sealed(text, size) && take_number(text, "step", false, &c->step) &&
           take_number(text, "model_xxh3", true, &s->model_hash) &&
           take_number(text, "optimizer_xxh3", true, &s->optimizer_hash) &&
           take_double(text, "train_loss_sum_bits", &c->train_loss_sum) &&
           take_number(text, "train_samples", false, &c->train_samples) &&
           take_number(text, "train_correct", false, &c->train_correct) &&
           c->train_correct <= c->train_samples && take_double(text, "seconds_bits", &c->seconds) &&
           take_double(text, "best_error_bits", &c->best_error);
}

cop_err job_read_state(const char *path, cop_checkpoint *c, job_state *s, cop_error *error) {
    char *text;
    size_t size;
    COP_TRY(cop_file_read(path, STATE_MAX, &text, &size, error));
    bool good = parse_state(text, size, c, s);
    c->is_best = good && strstr(text, "\"best\": true") != NULL;
    c->has_best = good && (c->best_error >= 0 || strstr(text, negative_best));
    cop_free(text);
    return good ? COP_OK : cop_fail(error, COP_ERR_CORRUPT, "%s is damaged", path);
}
