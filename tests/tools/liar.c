/* A lying worker: a normal worker whose results are changed before they are sent.
 *
 *     liar URL NAME (gradient | loss | nan | lease | form | cannot) PROBABILITY AFTER SEED
 *
 * The first AFTER results are correct. Each later result is wrong with PROBABILITY, by random draws
 * from SEED:
 *
 *     gradient  one bit of one gradient value is flipped
 *     loss      0.001 is added to the loss
 *     nan       one gradient value becomes NaN
 *     lease     the result names one shard more than was leased
 *     form      it counts more correctly classified samples than there are
 *     cannot    it reports a lack of memory
 *
 * Results without a gradient stay correct with `gradient` and `nan`. COPPICE_TOKEN contains the
 * coordinator's token. The program ends on SIGTERM or when it is refused, and prints the number of
 * wrong results. */
#include "tampering.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct liar {
    const char *how;
    double probability;
    uint64_t after, random; /* `after` is AFTER; `random` is the state of next_random */
    uint64_t results;       /* results so far that report no failure */
    uint64_t wrong;         /* results that were made wrong */
} liar;

static uint64_t next_random(liar *l) {
    l->random += 0x9e3779b97f4a7c15u;
    uint64_t x = (l->random ^ (l->random >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Makes the result wrong in one of the ways `lease`, `form` and `cannot`. False: another way was
 * requested. */
static bool tamper_with_form(liar *l, cop_result *result) {
    if (strcmp(l->how, "lease") == 0)
        result->count++;
    else if (strcmp(l->how, "form") == 0)
        result->correct = result->samples + 1;
    else if (strcmp(l->how, "cannot") == 0)
        snprintf(result->failure, sizeof result->failure, "out of memory for the gradient");
    else
        return false;
    l->wrong++;
    return true;
}

static void tamper(void *context, cop_result *result, cop_buffer *gradient) {
    liar *l = context;
    if (result->failure[0] || l->results++ < l->after) return;
    if ((double)(next_random(l) >> 11) * 0x1p-53 >= l->probability) return;
    float *values = gradient ? gradient->data : NULL;
    if (tamper_with_form(l, result)) return;
    bool in_loss = strcmp(l->how, "loss") == 0;
    if (!values && !in_loss) return; /* the result of an evaluation has no gradient */
    l->wrong++;
    if (in_loss) {
        result->loss += 0.001;
        return;
    }
    uint32_t bits;
    float *victim = &values[next_random(l) % (gradient->size / sizeof *values)];
    memcpy(&bits, victim, sizeof bits);
    bits ^= 1u << next_random(l) % 23; /* a bit of the fraction, so never a NaN */
    memcpy(victim, &bits, sizeof bits);
    if (strcmp(l->how, "nan") == 0) *victim = NAN;
}

int main(int argc, char **argv) {
    cop_error error = {0};
    if (argc != 7) return fputs("liar URL NAME HOW PROBABILITY AFTER SEED\n", stderr) < 0 ? 1 : 2;
    liar l = {.how = argv[3],
              .probability = strtod(argv[4], NULL),
              .after = strtoull(argv[5], NULL, 10),
              .random = strtoull(argv[6], NULL, 10)};
    cop_err e = tampering_run(argv[1], argv[2], tamper, &l, &error);
    printf("%llu of %llu results were wrong\n", (unsigned long long)l.wrong,
           (unsigned long long)l.results);
    if (e) fprintf(stderr, "liar: %s\n", error.text);
    return e != COP_OK;
}
