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

static bool has_avx512vnni(void) {
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

// Every CPU with BF16 has VNNI; asked all the same.
static bool has_avx512bf16(void) {
    return has_avx512vnni() && __builtin_cpu_supports("avx512bf16");
}

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
}

static bool has_avxvnni(void) { return has_avx2() && __builtin_cpu_supports("avxvnni"); }
#endif

/// Fastest first. AMX, and NEON with BF16 on ARM, would stand here with tables of their own; ARM has
/// the generic one so far.
static const candidate candidates[] = {
#if defined(__x86_64__)
    {&kernels_avx512bf16, has_avx512bf16},
    {&kernels_avx512vnni, has_avx512vnni},
    {&kernels_avx512, has_avx512},
    {&kernels_avxvnni, has_avxvnni},
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
