// The tables, and what every implementation of a kernel shares.

#pragma once

#include "kernels.h"

#include <math.h>
#include <string.h>

extern const kernel_table kernels_scalar;
extern const kernel_table kernels_generic;
extern const kernel_table kernels_avx2;
extern const kernel_table kernels_avxvnni;
extern const kernel_table kernels_avx512;
extern const kernel_table kernels_avx512vnni;
extern const kernel_table kernels_avx512bf16;

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

/// Rounds to nearest even; NaN stays NaN.
static inline uint16_t narrowed_bfloat(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value != value) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// Widens an E4M3 number without infinities; exact, subnormals included.
static inline float widened_e4m3(uint8_t bits) {
    uint32_t magnitude = bits & 0x7f;
    // 2^120 moves the exponent bias from 7 to 127, for subnormals too.
    float value = magnitude == 0x7f ? NAN : float_from_bits(magnitude << 20) * 0x1p120f;
    return bits & 0x80 ? -value : value;
}

/// What a row with this largest magnitude is multiplied by before it is rounded to int8; 0 where
/// all is lost anyway, since its scale is not finite then.
static inline float quantization_factor(float magnitude) {
    return magnitude > 0 && magnitude < INFINITY ? 127 / magnitude : 0;
}

/// What `add_displacements` multiplies the displacements of a query by.
static inline float displacement_factor(float share, float odds, bool by_mass) {
    if (by_mass) return 1 / (1 + odds);
    // odds / (1 + odds), also for infinite odds.
    float limit = 1 / (1 + 1 / odds);
    return limit < share ? limit / share : 1;
}

/// Bytes of an element.
static inline size_t weight_size(weight_type type) {
    switch (type) {
    case weight_float32: return 4;
    case weight_float16:
    case weight_bfloat16: return 2;
    case weight_float8_e4m3:
    case weight_float8_e5m2:
    case weight_int8: break;
    }
    return 1;
}

/// Element `index` of a weight matrix.
static inline float widened(const void *w, weight_type type, size_t index) {
    switch (type) {
    case weight_float16: return widened_half(((const uint16_t *)w)[index]);
    case weight_bfloat16: return widened_bfloat(((const uint16_t *)w)[index]);
    case weight_float8_e4m3: return widened_e4m3(((const uint8_t *)w)[index]);
    case weight_float8_e5m2: return widened_half((uint16_t)(((const uint8_t *)w)[index] << 8));
    case weight_int8: return ((const int8_t *)w)[index];
    case weight_float32: break;
    }
    return ((const float *)w)[index];
}

/// What `tap_offset` gives for a pixel outside the image.
static const size_t no_pixel = SIZE_MAX;

/// Pixels in a row of the output.
static inline size_t output_width(const convolved_image *t) {
    return t->width * t->upsampling / t->stride;
}

/// Where the source pixel [channels] that tap `tap` (0 ... 8) of an output pixel reads begins.
static inline size_t tap_offset(const convolved_image *t, size_t row, size_t column, size_t tap) {
    // Counted from one row and column outside the image, so that nothing is negative; a stride of 2
    // has no padding there and begins inside.
    size_t start = t->stride - 1, y = row * t->stride + start + tap / 3;
    size_t x = column * t->stride + start + tap % 3;
    if (y < 1 || x < 1 || y > t->height * t->upsampling || x > t->width * t->upsampling)
        return no_pixel;
    size_t source_row = (y - 1) / t->upsampling - t->first_row;
    return (source_row * t->width + (x - 1) / t->upsampling) * t->channels;
}
