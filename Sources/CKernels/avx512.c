// Kernels for CPUs with AVX-512 F, BW, VL and DQ.

#include "tables.h"

#if defined(__x86_64__)
#define NAME "avx512"
#define TABLE kernels_avx512
#define LANES 16
#define ROWS 12
#define VECTORS 2
#define KEYS 8
#define FUSED 1
#define PIN(x) __asm__("" : "+v"(x))

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))), apply_to = function)
#include "vector/vector.h"

#include "vector/matmul.h"

#include "vector/attention.h"

#include "vector/elementwise.h"

#pragma clang attribute pop
#include "vector/table.h"

#endif
