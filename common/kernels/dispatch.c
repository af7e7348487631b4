/* Chooses the kernels for this CPU, and sets up compute threads. No other file asks what the CPU
 * can do. The choice changes the speed, never the results (rule D4). */
#include "common/kernels/kernel.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "common/kernels/export.h"

static bool always(void) {
    return true;
}

#if defined(__x86_64__)
static bool has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

/* The kernels of this build, the best first. */
static const struct kernel_row {
    const char *name;
    const cop_kernels *kernels;
    bool (*available)(void);
} rows[] = {
#if defined(__x86_64__)
    {"avx512", &cop_kernels_avx512, has_avx512},
    {"avx2", &cop_kernels_avx2, has_avx2},
#elif defined(__aarch64__)
    {"neon", &cop_kernels_neon, always},
#endif
    {"baseline", &cop_kernels_baseline, always},
};
enum { row_count = sizeof rows / sizeof rows[0] };
_Static_assert(row_count >= 1, "baseline, the last row, runs on any CPU");

/* The names that COPPICE_ISA may have on some CPU. */
static const char *const instruction_sets[] = {"baseline", "avx2", "avx512", "neon"};

const char *const *cop_kernels_names(void) {
#if defined(__x86_64__)
    static const char *const names[] = {"avx512", "avx2", "baseline", NULL};
#elif defined(__aarch64__)
    static const char *const names[] = {"neon", "baseline", NULL};
#else
    static const char *const names[] = {"baseline", NULL};
#endif
    return names;
}

const cop_kernels *cop_kernels_find(const char *name) {
    for (int i = 0; i < row_count; i++)
        if (strcmp(rows[i].name, name) == 0 && rows[i].available()) return rows[i].kernels;
    return NULL;
}

/* Writes a list of the instruction sets that this machine can run, such as "avx512, avx2,
 * baseline", to `out` and returns it. */
static const char *available_names(char *out, size_t size) {
    size_t length = 0;
    out[0] = '\0';
    for (int i = 0; i < row_count; i++) {
        if (!rows[i].available()) continue;
        const size_t need = strlen(rows[i].name) + 2;
        COP_ASSERT(length + need < size);
        if (length > 0) {
            memcpy(out + length, ", ", 3);
            length += 2;
        }
        memcpy(out + length, rows[i].name, need - 1);
        length += need - 2;
    }
    return out;
}

cop_err cop_kernels_choose(const cop_kernels **out, cop_error *error) {
    char names[128];
    const char *wanted = getenv("COPPICE_ISA");
    if (!wanted || !*wanted) {
        int i = 0;
        while (!rows[i].available()) i++; /* the last one, baseline, is always available */
        COP_ASSERT(i < row_count);
        *out = rows[i].kernels;
        return COP_OK;
    }
    *out = cop_kernels_find(wanted);
    if (*out) return COP_OK;
    if (strcmp(wanted, "amx") == 0)
        return cop_fail(error, COP_ERR_UNSUPPORTED,
                        "COPPICE_ISA=amx: no kernels for AMX exist yet (this machine has %s)",
                        available_names(names, sizeof names));
    const size_t count = sizeof instruction_sets / sizeof instruction_sets[0];
    for (size_t i = 0; i < count; i++)
        if (strcmp(instruction_sets[i], wanted) == 0)
            return cop_fail(error, COP_ERR_UNSUPPORTED,
                            "COPPICE_ISA=%s: this machine does not support it (it supports %s)",
                            wanted, available_names(names, sizeof names));
    const char *nearest = cop_nearest_name(wanted, instruction_sets, count);
    return cop_fail(error, COP_ERR_UNSUPPORTED,
                    "COPPICE_ISA=%.64s: unknown instruction set%s%s%s (this machine supports %s)",
                    wanted, nearest ? ", did you mean \"" : "", nearest ? nearest : "",
                    nearest ? "\"?" : "", available_names(names, sizeof names));
}

void cop_compute_thread_init(void) {
#if defined(__x86_64__)
    /* Sets MXCSR: masks all exceptions, rounds to nearest, and clears FTZ (bit 15) and DAZ (bit 6).
     */
    __builtin_ia32_ldmxcsr(0x1f80);
    COP_ASSERT((__builtin_ia32_stmxcsr() & 0xe040) == 0);
#elif defined(__aarch64__)
    /* Sets FPCR: rounds to nearest, does not flush to zero, has no traps. */
    uint64_t control = 0;
    __asm__ volatile("msr fpcr, %0" : : "r"(control));
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    COP_ASSERT((control & 0x01c80000u) == 0);
#endif
}
