// Kernels for CPUs with AVX2, FMA and F16C (2013 and later).

#include "tables.h"

#if defined(__x86_64__)
#define NAME "avx2"
#define TABLE kernels_avx2
#define LANES 8
#define ROWS 6
#define VECTORS 2
#define KEYS 4
#define FUSED 1
#define PIN(x) __asm__("" : "+x"(x))

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#include "vector/vector.h"

#include "vector/matmul.h"

#include "vector/attention.h"

#include "vector/elementwise.h"

#pragma clang attribute pop
#include "vector/table.h"

#endif
