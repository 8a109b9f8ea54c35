// Linear layers in float32: rows and weights as lanes of one float.

/// Columns of a tile, and how many lanes of packed rows are fetched ahead of their use.
enum { column_panel = VECTORS * LANES, lanes_ahead = 64 };

_Static_assert(ROWS <= LANES, "a panel's rows fit in a vector");

/// Element `element` of row `column` of the weights.
INLINE const char *weight_at(const product_task *t, weight_type type, size_t column, size_t element) {
    return (const char *)t->w + (column * t->w_stride + element) * weight_size(type);
}

/// The next block of weights, which is fetched into the cache while the last one is multiplied.
typedef struct {
    const product_task *task;
    /// Elements of each row: the first one, and how many there are at most.
    size_t first, count;
    /// Tiles that the last block takes, and those that are done.
    size_t tiles, tile;
    /// Rows of weights that are fetched.
    size_t row;
} weight_ahead;

/// Fetches the share of a tile.
INLINE void fetch_weights(weight_ahead *a) {
    const product_task *t = a->task;
    if (a->first >= t->k) return;
    a->tile++;
    size_t bytes = smaller(a->count, t->k - a->first) * weight_size(t->w_type);
    for (; a->row * a->tiles < a->tile * t->columns; a->row++) {
        const char *p = weight_at(t, t->w_type, a->row, a->first);
        for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
    }
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
