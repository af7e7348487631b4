/* coppice eval with --ensemble, --average or --members-from: evaluates the average of thinned
 * networks, or of separately trained networks, on the test set. Jobs of a coordinator are evaluated
 * on its pool, files in this process. Both ways give the same figures. */
#include "client/evaluate/ensemble.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- options ---- */

static int ascending(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Parses "10,20,50" into ascending counts without duplicates. */
static cop_err read_counts(const char *text, uint32_t *counts, uint32_t *count, cop_error *error) {
    *count = 0;
    for (const char *p = text; *p;) {
        char word[24];
        const size_t length = strcspn(p, ",");
        int64_t value = 0;
        snprintf(word, sizeof word, "%.*s", (int)(length < 20 ? length : 20), p);
        if (!cop_parse_i64(word, &value) || value < 1 || value > COP_ENSEMBLE_MEMBERS_MAX)
            return cop_fail(error, COP_ERR_USAGE,
                            "--ensemble is \"%s\": expected numbers of members from 1 to %d, "
                            "separated by commas",
                            text, COP_ENSEMBLE_MEMBERS_MAX);
        if (*count == COP_ENSEMBLE_COUNTS_MAX)
            return cop_fail(error, COP_ERR_USAGE, "--ensemble has too many numbers: at most %d",
                            COP_ENSEMBLE_COUNTS_MAX);
        counts[(*count)++] = (uint32_t)value;
        p += length + (p[length] == ',');
    }
    qsort(counts, *count, sizeof *counts, ascending);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < *count; i++)
        if (!kept || counts[kept - 1] != counts[i]) counts[kept++] = counts[i];
    COP_ASSERT(kept <= *count && *count <= COP_ENSEMBLE_COUNTS_MAX);
    *count = kept;
    return kept ? COP_OK : cop_fail(error, COP_ERR_USAGE, "--ensemble is empty");
}

/* Parses --average, the kind of average, and --ensemble, the numbers of members to report. */
static cop_err read_members(cli_ensemble *v, cop_error *error) {
    const cli_options *o = v->options;
    v->average = COP_AVERAGE_ARITHMETIC;
    if (o->average && !cop_average_parse(o->average, &v->average))
        return cop_fail(error, COP_ERR_USAGE,
                        "--average is \"%s\": expected arithmetic, geometric or weight-scaling",
                        o->average);
    if (!v->average && o->ensemble)
        return cop_fail(error, COP_ERR_USAGE,
                        "--average weight-scaling evaluates one network: omit --ensemble");
    if (!v->average && v->each_model)
        return cop_fail(error, COP_ERR_USAGE,
                        "--average weight-scaling evaluates one network: omit --members-from");
    if (o->ensemble) return read_counts(o->ensemble, v->counts, &v->count, error);
    if (v->average && !v->each_model)
        return cop_fail(error, COP_ERR_USAGE,
                        "--average %s needs --ensemble K: the number of members", o->average);
    v->counts[v->count++] = v->each_model ? v->name_count : 1;
    return COP_OK;
}

static cop_err read_names(cli_ensemble *v, cop_error *error) {
    const cli_options *o = v->options;
    v->each_model = o->members_from_count > 0;
    if (o->positional_count) v->names[v->name_count++] = o->positional[0];
    for (int i = 0; i < o->members_from_count; i++) {
        if (v->name_count == CLI_POSITIONAL_MAX)
            return cop_fail(error, COP_ERR_USAGE, "--members-from has too many models: at most %d",
                            CLI_POSITIONAL_MAX);
        v->names[v->name_count++] = o->members_from[i];
    }
    return COP_OK;
}

static cop_err read_request(cli_ensemble *v, cop_error *error) {
    COP_TRY(read_names(v, error));
    COP_TRY(read_members(v, error));
    COP_ASSERT(v->name_count >= 1 && v->count >= 1 && v->count <= COP_ENSEMBLE_COUNTS_MAX);
    const uint32_t largest = v->counts[v->count - 1];
    if (v->each_model && largest > v->name_count)
        return cop_fail(error, COP_ERR_USAGE,
                        "--ensemble asks for %u members, but --members-from names %u models",
                        largest, v->name_count);
    return COP_OK;
}

cop_err cli_ensemble_eval(const cli_options *options, cop_error *error) {
    cli_ensemble v = {.options = options};
    COP_TRY(read_request(&v, error));
    bool pool = !options->data && !options->workers;
    for (uint32_t i = 0; i < v.name_count; i++) pool = pool && cli_is_job(v.names[i]);
    cli_progress_start(&v.progress, options->quiet);
    const cop_err e = pool ? cli_ensemble_pool(&v, error) : cli_ensemble_here(&v, error);
    cli_progress_end(&v.progress);
    return e;
}

/* ---- output ---- */

void cli_ensemble_row(cli_ensemble *v, const Coppice__Api__EnsembleFigures *f) {
    static const char *const head[] = {"ERROR %", "NLL", "BRIER", "ECE", "DISAGREEMENT"};
    const struct {
        double value, error, scale;
        int digits;
    } cell[] = {{f->error, f->error_se, 100, 2},
                {f->nll, f->nll_se, 1, 4},
                {f->brier, f->brier_se, 1, 4},
                {f->ece, f->ece_se, 1, 4},
                {f->disagreement, f->disagreement_se, 1, 4}};
    char members[24];
    COP_ASSERT(v->printed < v->count);
    v->printed++;
    if (v->options->json) return;
    cli_progress_end(&v->progress); /* make room for a row of the table */
    if (v->printed == 1) {
        cli_print("%s%14s", cli_color(1, "bold"), "MEMBERS");
        for (int i = 0; i < 5; i++) cli_print("  %16s", head[i]);
        cli_print("%s\n", cli_color(1, "reset"));
    }
    snprintf(members, sizeof members, v->average ? "%u" : "weight scaling", f->members);
    cli_print("%14s", members);
    for (int i = 0; i < 5; i++) {
        char text[40];
        snprintf(text, sizeof text, "%.*f +- %.*f", cell[i].digits, cell[i].scale * cell[i].value,
                 cell[i].digits, cell[i].scale * cell[i].error);
        cli_print("  %16s", text);
    }
    cli_print("\n");
    fflush(stdout);
}

void cli_ensemble_result(cli_ensemble *v, Coppice__Api__EnsembleResult *r) {
    cli_progress_end(&v->progress);
    if (v->options->json) {
        cli_print_json(&r->base);
        return;
    }
    cli_print("\n%s average over %llu samples of the test part, +- one standard error\n",
              r->average, (unsigned long long)r->samples);
    for (size_t i = 0; i < r->n_models; i++)
        cli_print("member %zu  %s  digest %s\n", i, r->models[i]->model, r->models[i]->digest);
}
