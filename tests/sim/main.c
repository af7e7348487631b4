/* The program: runs seeds, reports, and replays and shrinks failures. */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "common/base/injected_bugs.h"
#include "common/base/str.h"
#include "sim/sim.h"

static const char usage[] =
    "usage: sim [--seed N [--faults LIST] [--trace]] [--seeds N [--from N]] [--hours H] ...\n"
    "\n"
    "Runs the decisions of coordinator and workers in virtual time, with faults that follow from "
    "a\n"
    "seed, and checks invariants after every event (docs/explanation/reliability.md lists them).\n"
    "\n"
    "  --seeds N        run N seeds [1000], starting at --from N [1]\n"
    "  --hours H        run seeds for H hours\n"
    "  --progress       print a line on stderr every 10,000 seeds (default at a terminal)\n"
    "  --seed N         run one seed\n"
    "  --faults LIST    only these of its faults: numbers separated by commas, or none\n"
    "  --trace          print everything that happens\n"
    "  --workers N      N workers, whatever the seed decides; also --jobs N, --shards N\n"
    "  --no-faults      run without faults\n"
    "  --ensembles      evaluate ensembles alongside the jobs\n"
    "  --inject N       inject a bug (by number or name), and find a seed that reveals it\n"
    "  --inject all     each bug in turn\n"
    "  --list           list the bugs that can be injected, and the kinds of faults\n"
    "  --json           print figures as one line of JSON\n"
    "\n"
    "exit status: 0 no invariant broke (with --inject: every bug was found), 1 otherwise, 2 bad "
    "usage\n"
    "\n"
    "examples:\n"
    "  sim --seeds 10000\n"
    "  sim --seed 4711 --trace\n"
    "  sim --inject all --seeds 10000\n";

#define FAILURES_MAX 10 /* run_many stops after this many failures */

typedef struct totals {
    uint64_t seeds, twice, events, decisions, leases, repeated, steps, completed, virtual_ns;
    uint64_t failures, faults;
    uint64_t core_bytes, workers;
    uint64_t trace; /* hash over the traces of all seeds, in order of seeds */
} totals;

static double seconds_now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void add(totals *t, const sim_result *r) {
    t->seeds++;
    t->events += r->events;
    t->decisions += r->decisions + r->agent_decisions;
    t->leases += r->leases;
    t->repeated += r->repeated;
    t->steps += r->steps;
    t->completed += r->completed;
    t->virtual_ns += r->virtual_ns;
    t->trace = sim_mix(t->trace, r->hash);
    t->faults += r->faults;
    if (r->core_bytes > t->core_bytes) {
        t->core_bytes = r->core_bytes;
        t->workers = r->workers;
    }
}

/* ---- failures ---- */

static void print_faults(const uint32_t *only, uint32_t count) {
    if (!count) printf("none");
    for (uint32_t i = 0; i < count; i++) printf("%s%u", i ? "," : "", only[i]);
}

static void report(const sim_options *options, const sim_result *first) {
    uint32_t only[256], count = 0;
    sim_options o = *options;
    sim_result r;
    printf("seed %llu breaks \"%s\": %s\n", (unsigned long long)options->seed, first->invariant,
           first->text);
    fflush(stdout);
    if (options->only) {
        count = options->only_count;
        memcpy(only, options->only, count * sizeof *only);
    } else {
        for (uint32_t i = 0; i < first->faults && i < 256; i++) only[count++] = i;
        uint32_t before = count;
        count = sim_shrink(options, first->invariant, only, count);
        printf("%u of its %u faults suffice\n", count, before);
    }
    o.only = only;
    o.only_count = count;
    sim_run(&o, &r);
    printf("  %s\n  replay: ./dev sim --seed %llu", r.text, (unsigned long long)o.seed);
    if (o.bug) printf(" --inject %u", o.bug);
    if (o.workers) printf(" --workers %u", o.workers);
    if (o.jobs) printf(" --jobs %u", o.jobs);
    if (o.shards) printf(" --shards %u", o.shards);
    if (o.ensembles) printf(" --ensembles");
    printf(" --faults ");
    print_faults(only, count);
    printf(" --trace\n");
    fflush(stdout);
}

/* Runs one seed, and returns true if nothing failed. A failing seed, and each seed that is a
 * multiple of 100, is run twice, and both runs must be the same. With --trace, it is run only once.
 */
static bool run_seed(const sim_options *options, totals *t, bool quiet) {
    sim_result r, again;
    sim_run(options, &r);
    add(t, &r);
    if (options->trace) {
        t->failures += r.failed;
        return !r.failed;
    }
    if (r.failed || options->seed % 100 == 0) {
        sim_run(options, &again);
        t->twice++;
        if (again.hash != r.hash || again.failed != r.failed) {
            printf("seed %llu: two runs differ\n", (unsigned long long)options->seed);
            t->failures++;
            return false;
        }
    }
    if (!r.failed) return true;
    t->failures++;
    if (!quiet) report(options, &r);
    return false;
}

/* Runs seeds until `seeds` have run, about `seconds` seconds have passed, or FAILURES_MAX seeds
 * have failed. */
static void run_many(const sim_options *options, uint64_t seeds, double seconds, bool progress,
                     totals *t) {
    sim_options o = *options;
    double began = seconds_now(CLOCK_MONOTONIC), spent = 0;
    for (; t->seeds < seeds && spent < seconds && t->failures < FAILURES_MAX; o.seed++) {
        run_seed(&o, t, false);
        spent = seconds_now(CLOCK_MONOTONIC) - began;
        if (progress && t->seeds % 10000 == 0)
            fprintf(stderr, "sim: %llu seeds, %llu failures, %.0f s\n",
                    (unsigned long long)t->seeds, (unsigned long long)t->failures, spent);
    }
}

/* ---- injected bugs ---- */

static const char *const bug_names[] = {"none",
#define X(name, text) #name,
                                        COP_BUG_TABLE(X)
#undef X
};
static const char *const bug_texts[] = {"nothing",
#define X(name, text) text,
                                        COP_BUG_TABLE(X)
#undef X
};

#ifdef COP_INJECT_BUGS
cop_bug cop_injected_bug;
#endif

static void choose_bug(uint32_t bug) {
#ifdef COP_INJECT_BUGS
    cop_injected_bug = (cop_bug)bug;
#else
    if (!bug) return;
    fprintf(stderr, "sim: this program has no bugs to inject: sim-with-bugs has\n");
    exit(2);
#endif
}

/* Runs seeds until one reveals the bug, but at most `seeds` seeds. Returns true if one did. */
static bool find_bug(const sim_options *options, uint32_t bug, uint64_t seeds, bool details) {
    sim_options o = *options;
    sim_result r = {0};
    choose_bug(bug);
    o.bug = bug;
    uint64_t i = 0;
    for (; i < seeds && !r.failed; i++, o.seed++) sim_run(&o, &r);
    o.seed--;
    if (r.failed)
        printf("bug %2u %-18s caught by seed %llu (the %lluth): %s: %s\n", bug, bug_names[bug],
               (unsigned long long)o.seed, (unsigned long long)i, r.invariant, r.text);
    else
        printf("bug %2u %-18s NOT caught in %llu seeds (%s)\n", bug, bug_names[bug],
               (unsigned long long)seeds, bug_texts[bug]);
    fflush(stdout);
    if (r.failed && details) report(&o, &r);
    choose_bug(0);
    return r.failed;
}

static int run_bugs(const sim_options *options, const char *which, uint64_t seeds) {
    uint64_t number = 0;
    uint32_t caught = 0, all = 0;
    bool every = strcmp(which, "all") == 0;
    for (uint32_t p = 1; p < COP_BUG_COUNT; p++)
        if (strcmp(bug_names[p], which) == 0) number = p;
    if (!every && !number &&
        (!cop_parse_u64(which, &number) || !number || number >= COP_BUG_COUNT)) {
        fprintf(stderr, "sim: --inject \"%s\": expected all, 1 to %d, or a name (sim --list)\n",
                which, COP_BUG_COUNT - 1);
        return 2;
    }
    for (uint32_t p = 1; p < COP_BUG_COUNT; p++) {
        if (!every && p != number) continue;
        all++;
        caught += find_bug(options, p, seeds, !every);
    }
    printf("%u of %u injected bugs caught within %llu seeds each\n", caught, all,
           (unsigned long long)seeds);
    return caught == all ? 0 : 1;
}

static void list(void) {
    printf("bugs to inject:\n");
    for (int p = 1; p < COP_BUG_COUNT; p++)
        printf("  %2d %-18s %s\n", p, bug_names[p], bug_texts[p]);
    printf("faults:\n");
#define X(name, text) printf("  %s\n", text);
    SIM_FAULT_TABLE(X)
#undef X
}

/* ---- figures ---- */

static void print_totals(const totals *t, double wall, double cpu, bool json) {
    double ratio = (double)t->virtual_ns * 1e-9 / wall, rate = (double)t->decisions / cpu;
    uint64_t each = t->workers ? t->core_bytes / t->workers : 0;
    if (json)
        printf("{\"seeds\":%llu,\"failures\":%llu,\"twice\":%llu,\"faults\":%llu,\"steps\":%llu,"
               "\"jobs_completed\":%llu,\"leases\":%llu,\"leases_repeated\":%llu,\"events\":%llu,"
               "\"decisions\":%llu,\"seconds\":%.2f,\"virtual_per_real\":%.0f,"
               "\"decisions_per_s\":%.0f,\"core_bytes_per_worker\":%llu,\"trace\":\"%016llx\"}\n",
               (unsigned long long)t->seeds, (unsigned long long)t->failures,
               (unsigned long long)t->twice, (unsigned long long)t->faults,
               (unsigned long long)t->steps, (unsigned long long)t->completed,
               (unsigned long long)t->leases, (unsigned long long)t->repeated,
               (unsigned long long)t->events, (unsigned long long)t->decisions, wall, ratio, rate,
               (unsigned long long)each, (unsigned long long)t->trace);
    else
        printf("%llu seeds, %llu failures, %llu run twice; %llu faults, %llu steps, %llu jobs "
               "completed, %llu leases (%llu again)\n%.1f s, %.0f x real time, %.0f decisions/s, "
               "%llu bytes of the core a worker\ndigest of all traces: %016llx\n",
               (unsigned long long)t->seeds, (unsigned long long)t->failures,
               (unsigned long long)t->twice, (unsigned long long)t->faults,
               (unsigned long long)t->steps, (unsigned long long)t->completed,
               (unsigned long long)t->leases, (unsigned long long)t->repeated, wall, ratio, rate,
               (unsigned long long)each, (unsigned long long)t->trace);
}

/* ---- options ---- */

typedef struct arguments {
    sim_options options;
    uint32_t faults[256];
    uint64_t seeds, from, seed;
    double hours;
    bool one, json, list, progress;
    const char *inject;
} arguments;

static int bad(const char *option, const char *value) {
    fprintf(stderr, "sim: %s \"%s\" is not a number of that kind\n\n%s", option, value, usage);
    return 2;
}

static bool parse_faults(arguments *a, const char *text) {
    a->options.only = a->faults;
    a->options.only_count = 0;
    if (strcmp(text, "none") == 0) return true;
    for (const char *at = text; *at && a->options.only_count < 256;) {
        char *end;
        unsigned long value = strtoul(at, &end, 10);
        if (end == at || (*end && *end != ',')) return false;
        a->faults[a->options.only_count++] = (uint32_t)value;
        at = *end ? end + 1 : end;
    }
    return true;
}

enum {
    SEED = 1,
    SEEDS,
    FROM,
    HOURS,
    FAULTS,
    TRACE,
    WORKERS,
    JOBS,
    SHARDS,
    CALM,
    ENSEMBLES,
    INJECT,
    LIST,
    PROGRESS,
    JSON,
    HELP
};

static int take(arguments *a, int option, const char *text) {
    uint64_t value = 0;
    bool number = option == SEED || option == SEEDS || option == FROM || option == WORKERS ||
                  option == JOBS || option == SHARDS;
    if (number && !cop_parse_u64(text, &value)) return -1;
    switch (option) {
    case SEED:
        a->one = true;
        a->seed = value;
        return 0;
    case SEEDS:
        a->seeds = value;
        return 0;
    case FROM:
        a->from = value;
        return 0;
    case HOURS:
        a->hours = strtod(text, NULL);
        return a->hours > 0 ? 0 : -1;
    case FAULTS:
        return parse_faults(a, text) ? 0 : -1;
    case WORKERS:
        a->options.workers = (uint32_t)value;
        return value >= 1 && value <= 100000 ? 0 : -1;
    case JOBS:
        a->options.jobs = (uint32_t)value;
        return value >= 1 && value <= SIM_JOBS_MAX ? 0 : -1;
    case SHARDS:
        a->options.shards = (uint32_t)value;
        return value >= 1 && value <= COP_SHARDS_MAX ? 0 : -1;
    case TRACE:
        a->options.trace = true;
        return 0;
    case CALM:
        a->options.no_faults = true;
        return 0;
    case ENSEMBLES:
        a->options.ensembles = true;
        return 0;
    case INJECT:
        a->inject = text;
        return 0;
    case LIST:
        a->list = true;
        return 0;
    case PROGRESS:
        a->progress = true;
        return 0;
    default:
        a->json = true;
        return 0;
    }
}

static int parse(int argc, char **argv, arguments *a) {
    static const struct option options[] = {{"seed", 1, NULL, SEED},
                                            {"seeds", 1, NULL, SEEDS},
                                            {"from", 1, NULL, FROM},
                                            {"hours", 1, NULL, HOURS},
                                            {"faults", 1, NULL, FAULTS},
                                            {"trace", 0, NULL, TRACE},
                                            {"workers", 1, NULL, WORKERS},
                                            {"jobs", 1, NULL, JOBS},
                                            {"shards", 1, NULL, SHARDS},
                                            {"no-faults", 0, NULL, CALM},
                                            {"inject", 1, NULL, INJECT},
                                            {"list", 0, NULL, LIST},
                                            {"json", 0, NULL, JSON},
                                            {"help", 0, NULL, HELP},
                                            {"progress", 0, NULL, PROGRESS},
                                            {"ensembles", 0, NULL, ENSEMBLES},
                                            {NULL, 0, NULL, 0}};
    int option, index = 0;
    while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (option == HELP) {
            printf("%s", usage);
            exit(0);
        }
        if (option == '?') return 2;
        if (take(a, option, optarg)) return bad(options[index].name, optarg);
    }
    return optind < argc ? bad("argument", argv[optind]) : 0;
}

int main(int argc, char **argv) {
    arguments a = {.seeds = 1000, .from = 1};
    totals t = {0};
    int status = parse(argc, argv, &a);
    if (status) return status;
    a.options.seed = a.one ? a.seed : a.from;
    if (a.list) {
        list();
        return 0;
    }
    if (a.inject && !a.one) return run_bugs(&a.options, a.inject, a.seeds);
    if (a.inject) return run_bugs(&a.options, a.inject, 1);
    a.progress = a.progress || isatty(STDERR_FILENO);
    double wall = seconds_now(CLOCK_MONOTONIC), cpu = seconds_now(CLOCK_PROCESS_CPUTIME_ID);
    if (a.one)
        run_seed(&a.options, &t, false);
    else if (a.hours > 0)
        run_many(&a.options, UINT64_MAX, a.hours * 3600, a.progress, &t);
    else
        run_many(&a.options, a.seeds, INFINITY, a.progress, &t);
    print_totals(&t, seconds_now(CLOCK_MONOTONIC) - wall,
                 seconds_now(CLOCK_PROCESS_CPUTIME_ID) - cpu, a.json);
    return t.failures ? 1 : 0;
}
