// Linear layers in bfloat16: two elements to a lane, sums in float32.

/// sums + the products of two pairs of bfloat16, the sums in float32.
INLINE vector bfloat16_step(vector sums, vector x, vector w) {
    return (vector)_mm512_dpbf16_ps((__m512)sums, (__m512bh)x, (__m512bh)w);
}

/// 2 · LANES floats as bfloat16, in order, rounded to nearest even.
INLINE vector narrow_pairs(vector low, vector high) {
    return (vector)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
}

INLINE void bfloat16_measure(float *factors, const float *x, size_t stride, size_t rows, size_t k,
                             quantized_row *quantized) {
    (void)factors, (void)x, (void)stride, (void)rows, (void)k, (void)quantized;
}

INLINE vector bfloat16_row_lanes(const float *x, size_t count, float factor) {
    (void)factor;
    if (count >= 2 * LANES) return narrow_pairs(load(x), load(x + LANES));
    vector high = count > LANES ? load_partial(x + LANES, count - LANES) : (vector){};
    return narrow_pairs(load_partial(x, count), high);
}

INLINE vector bfloat16_weight_lanes(const void *w, weight_type type) {
    if (type == weight_bfloat16) return load(w);
    return narrow_pairs(load_widened(w, type, 0), load_widened(w, type, LANES));
}

#define NAMED(x) bfloat16_##x
#define GROUP 2
#include "product.h"
#undef NAMED
#undef GROUP
