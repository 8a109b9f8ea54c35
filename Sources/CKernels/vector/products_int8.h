// Linear layers in int8: four elements to a lane, sums in int32, which are exact.
//
// The instruction multiplies unsigned bytes with signed ones. Weights are the unsigned ones, as
// w + 128; what that adds to a sum depends on its row alone and is taken off afterwards.
// DOT(sums, unsigned, signed) is the instruction of the level.

INLINE vector int8_step(vector sums, vector x, vector w) { return DOT(sums, w, x); }

/// The scale that makes the largest element of each row 127, and the factor it is divided by.
INLINE void int8_measure(float *factors, const float *x, size_t stride, size_t rows, size_t k,
                         quantized_row *rows_quantized) {
    for (size_t row = 0; row < rows; row++) {
        float magnitude = largest_magnitude(x + row * stride, k);
        rows_quantized[row].scale = magnitude / 127;
        factors[row] = quantization_factor(magnitude);
    }
}

INLINE vector int8_row_lanes(const float *x, size_t count, float factor) {
    int8_t bytes[4 * LANES];
    UNROLL for (size_t i = 0; i < 4; i++) {
        size_t left = count > i * LANES ? count - i * LANES : 0;
        signed_bytes q = quantized(load_partial(x + smaller(i * LANES, count), left), factor);
        memcpy(bytes + i * LANES, &q, sizeof q);
    }
    return load((const float *)bytes);
}

INLINE vector int8_weight_lanes(const void *w, weight_type type) {
    (void)type;
    return (vector)((integers)load(w) ^ (int32_t)0x80808080);
}

#define NAMED(x) int8_##x
#define GROUP 4
#include "product.h"
#undef NAMED
#undef GROUP
