/* Repeats an operation, and makes a different one of its allocations fail in each run. In a first
 * series of runs only that allocation fails; in a second series all later ones fail, too. */
#ifndef COP_TESTS_UNIT_FAULTS_H
#define COP_TESTS_UNIT_FAULTS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/alloc.h"
#include "common/base/err.h"

typedef struct fault_subject {
    const char *name;
    /* Does the operation once, and frees everything it made. On failure it must fill `error`. */
    cop_err (*run)(void *context, cop_error *error);
    /* Called after each run with its result; allocations succeed again by then. May be NULL. */
    void (*check)(void *context, cop_err result);
    void *context;
    uint64_t stride; /* n: only allocations 1, 1 + n, 1 + 2n, ... fail; 1: each of them */
} fault_subject;

/* Runs the operation once. Its allocation number k fails (from 1) and, if `onwards`, all later
 * ones. Returns false if the operation made fewer than k allocations, so that none failed. */
static inline bool fault_try(const fault_subject *s, uint64_t k, bool onwards) {
    cop_error error = {0};
    const uint64_t before = cop_alloc_count();
    if (onwards)
        cop_alloc_fail_from(k);
    else
        cop_alloc_fail_at(k);
    cop_err e = s->run(s->context, &error);
    const bool failed = cop_alloc_count() - before >= k;
    cop_alloc_fail_at(0);
    if (e && (e != COP_ERR_NO_MEMORY || error.code != e || !error.text[0]))
        fail_msg("%s, allocation %llu%s: code %s, \"%s\"", s->name, (unsigned long long)k,
                 onwards ? " and all after it" : "", cop_err_name(e), error.text);
    if (!failed && e) fail_msg("%s fails without a fault: %s", s->name, error.text);
    if (s->check) s->check(s->context, e);
    return failed;
}

/* Makes each allocation fail in turn, and returns their number. */
static inline uint64_t fault_each_allocation(const fault_subject *s) {
    uint64_t most = 0;
    for (int onwards = 0; onwards < 2; onwards++) {
        uint64_t k = 1;
        while (fault_try(s, k, onwards != 0)) k += s->stride;
        if (k > most) most = k;
    }
    print_message("%s: %llu allocations, each failed alone and with all after it (every %llu.)\n",
                  s->name, (unsigned long long)most - 1, (unsigned long long)s->stride);
    return most - 1;
}

#endif
