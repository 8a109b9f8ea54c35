// Linear layers in float32: rows and weights as lanes of one float.

enum { column_panel = VECTORS * LANES };

_Static_assert(ROWS <= LANES, "a panel's rows fit in a vector");

/// Element `element` of row `column` of the weights.
INLINE const char *weight_at(const product_task *t, weight_type type, size_t column, size_t element) {
    return (const char *)t->w + (column * t->w_stride + element) * weight_size(type);
}

INLINE void float32_measure(float *factors, const float *x, size_t stride, size_t rows, size_t k,
                            quantized_row *quantized) {
    (void)factors, (void)x, (void)stride, (void)rows, (void)k, (void)quantized;
}

INLINE vector float32_row_lanes(const float *x, size_t count, float factor) {
    (void)factor;
    return load_partial(x, count);
}

INLINE vector float32_weight_lanes(const void *w, weight_type type) {
    return load_widened(w, type, 0);
}

INLINE vector float32_step(vector sums, vector x, vector w) { return multiply_add(x, w, sums); }

#define NAMED(x) float32_##x
#define GROUP 1
#include "product.h"
#undef NAMED
#undef GROUP
