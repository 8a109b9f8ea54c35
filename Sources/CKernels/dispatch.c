// Chooses a kernel table for the CPU that runs the program.

#include "tables.h"

typedef struct {
    const kernel_table *table;
    bool (*runs_here)(void);
} candidate;

static bool always(void) { return true; }

#if defined(__x86_64__)
static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
}
#endif

/// Fastest first.
static const candidate candidates[] = {
#if defined(__x86_64__)
    {&kernels_avx512, has_avx512},
    {&kernels_avx2, has_avx2},
#endif
    {&kernels_generic, always},
    {&kernels_scalar, always},
};
enum { candidate_count = sizeof candidates / sizeof *candidates };

const kernel_table *kernels_best(void) {
    for (size_t i = 0; i < candidate_count; i++)
        if (candidates[i].runs_here()) return candidates[i].table;
    return &kernels_scalar;
}

const kernel_table *kernels_named(const char *name) {
    for (size_t i = 0; i < candidate_count; i++)
        if (!strcmp(candidates[i].table->name, name) && candidates[i].runs_here())
            return candidates[i].table;
    return NULL;
}

const char *kernels_name_at(size_t index) {
    return index < candidate_count ? candidates[index].table->name : NULL;
}
