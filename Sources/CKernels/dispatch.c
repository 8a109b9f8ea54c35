// Chooses a kernel table for the CPU that runs the program.

#include "tables.h"

typedef struct {
    const kernel_table *table;
    /// Every `cpu_feature` that the kernels use.
    uint32_t needs;
} candidate;

/// Fastest first. AMX, and NEON with BF16 on ARM, would stand here with tables of their own; ARM has
/// the generic one so far.
static const candidate candidates[] = {
#if defined(__x86_64__)
    {&kernels_avx512bf16, cpu_avx512 | cpu_avx512vnni | cpu_avx512bf16},
    {&kernels_avx512vnni, cpu_avx512 | cpu_avx512vnni},
    {&kernels_avx512, cpu_avx512},
    {&kernels_avxvnni, cpu_avx2 | cpu_avxvnni},
    {&kernels_avx2, cpu_avx2},
#endif
    {&kernels_generic, 0},
    {&kernels_scalar, 0},
};
enum { candidate_count = sizeof candidates / sizeof *candidates };

/// The features of the CPU that runs the program.
static uint32_t features_here(void) {
    uint32_t features = 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c"))
        features |= cpu_avx2;
    if (__builtin_cpu_supports("avxvnni")) features |= cpu_avxvnni;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        features |= cpu_avx512;
    if (__builtin_cpu_supports("avx512vnni")) features |= cpu_avx512vnni;
    if (__builtin_cpu_supports("avx512bf16")) features |= cpu_avx512bf16;
#endif
    return features;
}

static bool runs_with(const candidate *candidate, uint32_t features) {
    return (candidate->needs & ~features) == 0;
}

const kernel_table *kernels_best_with(uint32_t features) {
    for (size_t i = 0; i < candidate_count; i++)
        if (runs_with(candidates + i, features)) return candidates[i].table;
    return &kernels_scalar;
}

const kernel_table *kernels_best(void) { return kernels_best_with(features_here()); }

const kernel_table *kernels_named(const char *name) {
    for (size_t i = 0; i < candidate_count; i++)
        if (!strcmp(candidates[i].table->name, name) && runs_with(candidates + i, features_here()))
            return candidates[i].table;
    return NULL;
}

const char *kernels_name_at(size_t index) {
    return index < candidate_count ? candidates[index].table->name : NULL;
}
