// Kernels for CPUs with AVX-512: float32 on all of them, int8 with VNNI, bfloat16 with BF16.

#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define LANES 16
#define ROWS 12
#define VECTORS 2
#define KEYS 8
#define FUSED 1
#define PIN(x) __asm__("" : "+v"(x))

#define FOUNDATION "avx512f,avx512bw,avx512vl,avx512dq"
#pragma clang attribute push(__attribute__((target(FOUNDATION))), apply_to = function)
#include "vector/vector.h"

#include "vector/products_float32.h"

#include "vector/convolution.h"

#include "vector/attention.h"

#include "vector/displacement.h"

#include "vector/elementwise.h"

#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target(FOUNDATION ",avx512vnni"))), apply_to = function)
#define DOT(sums, unsigned, signed) \
    ((vector)_mm512_dpbusd_epi32((__m512i)(sums), (__m512i)(unsigned), (__m512i)(signed)))
#include "vector/products_int8.h"

#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target(FOUNDATION ",avx512bf16"))), apply_to = function)
#include "vector/products_bfloat16.h"

#include "vector/attention_bfloat16.h"

#include "vector/convolution_bfloat16.h"

#pragma clang attribute pop
#include "vector/table.h"

static const pair_kernels bfloat16_pairs = {
    .queries = pair_panels * pair_panel,
    .channel_panel = channel_panel,
    .pack_keys = pack_keys,
    .attend = attend_pairs,
    .pack_weights = pack_pair_weights,
    .convolve = convolve_pairs,
};

const kernel_table kernels_avx512 = TABLE("avx512", NULL, NULL, NULL);
const kernel_table kernels_avx512vnni = TABLE("avx512vnni", NULL, &int8_products, NULL);
const kernel_table kernels_avx512bf16 =
    TABLE("avx512bf16", &bfloat16_products, &int8_products, &bfloat16_pairs);

#endif
