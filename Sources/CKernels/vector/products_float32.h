// Linear layers in float32: rows and weights as lanes of one float.

/// Columns of a tile, and how many lanes of packed rows are fetched ahead of their use.
enum { column_panel = VECTORS * LANES, lanes_ahead = 64 };

_Static_assert(ROWS <= LANES, "a panel's rows fit in a vector");

/// Element `element` of row `column` of the weights.
INLINE const char *weight_at(const product_task *t, weight_type type, size_t column, size_t element) {
    return (const char *)t->w + (column * t->w_stride + element) * weight_size(type);
}

/// The next panel of weights, which is fetched into the cache while the last one is multiplied:
/// some lines after each few lanes, since many at once would keep the rows waiting.
typedef struct {
    const char *row;
    /// Bytes from one row to the next, and bytes of a row that are wanted.
    size_t stride, bytes;
    /// The next byte of the row, and rows after this one.
    size_t byte, rows;
    /// A line is due for each `pauses` in `credit`, which grows by `lines` at each pause.
    size_t credit, lines, pauses;
} weight_ahead;

/// Lanes between two pauses.
enum { lanes_between = 16 };

/// What follows the panel at `column` and lane `block`, of which `tiles` tiles are multiplied.
INLINE weight_ahead weights_after(const product_task *t, size_t column, size_t block, size_t group,
                                  size_t tiles) {
    size_t first = block * group, length = lane_block * group;
    column += column_panel;
    if (column >= t->columns) column = 0, first += length;
    if (first >= t->k) return (weight_ahead){};
    size_t bytes = smaller(length, t->k - first) * weight_size(t->w_type);
    size_t rows = smaller(column_panel, t->columns - column);
    return (weight_ahead){
        .row = weight_at(t, t->w_type, column, first),
        .stride = t->w_stride * weight_size(t->w_type),
        .bytes = bytes,
        .rows = rows,
        .lines = rows * ((bytes + 63) / 64),
        .pauses = tiles * (lane_block / lanes_between),
    };
}

INLINE void fetch_weights(weight_ahead *a) {
    for (a->credit += a->lines; a->rows > 0 && a->credit >= a->pauses; a->credit -= a->pauses) {
        __builtin_prefetch(a->row + a->byte, 0, 2);
        a->byte += 64;
        if (a->byte >= a->bytes) a->byte = 0, a->rows--, a->row += a->stride;
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
