// The tables, and what every implementation of a kernel shares.

#pragma once

#include "kernels.h"

#include <math.h>
#include <string.h>

extern const kernel_table kernels_scalar;
extern const kernel_table kernels_generic;
extern const kernel_table kernels_avx2;
extern const kernel_table kernels_avx512;

static inline size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static inline float float_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/// Widens a half-precision number; exact, subnormals included.
static inline float widened_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t magnitude = half & 0x7fff;
    if (magnitude >= 0x7c00) return float_from_bits(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    // 2^112 moves the exponent bias from 15 to 127, for subnormals too.
    float value = float_from_bits(magnitude << 13) * 0x1p112f;
    return sign ? -value : value;
}

static inline float widened_bfloat(uint16_t bits) { return float_from_bits((uint32_t)bits << 16); }

/// Element `index` of a weight matrix.
static inline float widened(const void *w, weight_type type, size_t index) {
    switch (type) {
    case weight_float16: return widened_half(((const uint16_t *)w)[index]);
    case weight_bfloat16: return widened_bfloat(((const uint16_t *)w)[index]);
    case weight_float32: break;
    }
    return ((const float *)w)[index];
}

/// Where the weights of row `row` begin.
static inline const void *weight_row(const void *w, weight_type type, size_t row, size_t stride) {
    return (const char *)w + row * stride * (type == weight_float32 ? 4 : 2);
}

/// The source pixel [channels] that tap `tap` (0 ... 8) of an output pixel reads, or NULL where
/// it lies outside the image.
static inline const float *tap_source(const convolution_task *t, size_t row, size_t column,
                                      size_t tap) {
    // Counted from one row and column outside the image, so that nothing is negative.
    size_t y = row + tap / 3, x = column + tap % 3;
    if (y < 1 || x < 1 || y > t->height * t->upsampling || x > t->width * t->upsampling)
        return NULL;
    size_t source_row = (y - 1) / t->upsampling - t->first_row;
    return t->source + (source_row * t->width + (x - 1) / t->upsampling) * t->channels;
}
