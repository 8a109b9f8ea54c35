// Kernels for CPUs with AVX2, FMA and F16C (2013 and later): float32, and int8 with AVX-VNNI.

#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define LANES 8
#define ROWS 6
#define VECTORS 2
#define KEYS 4
#define FUSED 1
#define PIN(x) __asm__("" : "+x"(x))

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#include "vector/vector.h"

#include "vector/products_float32.h"

#include "vector/convolution.h"

#include "vector/attention.h"

#include "vector/displacement.h"

#include "vector/elementwise.h"

#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#define DOT(sums, unsigned, signed) \
    ((vector)_mm256_dpbusd_avx_epi32((__m256i)(sums), (__m256i)(unsigned), (__m256i)(signed)))
#include "vector/products_int8.h"

#pragma clang attribute pop
#include "vector/table.h"

const kernel_table kernels_avx2 = TABLE("avx2", NULL, NULL, NULL);
const kernel_table kernels_avxvnni = TABLE("avxvnni", NULL, &int8_products, NULL);

#endif
