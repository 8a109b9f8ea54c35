// Matrix products: packing, the register tile, and the linear and convolution tasks on top.

enum {
    column_panel = VECTORS * LANES,
    // A block of a weight panel (k_block · column_panel floats) stays in the first-level cache,
    k_block = 256,
    // and a block of activations (row_block · k_block) in the second-level one.
    row_block = 32 * ROWS,
};

_Static_assert(ROWS <= LANES, "a panel's rows fit in a vector");

/// Packs `count` elements of each of ROWS rows into a panel [count][ROWS]; a row that is NULL is
/// zero.
INLINE void pack_panel(float *packed, const float *const rows[ROWS], size_t count) {
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        vector v[LANES] = {};
        UNROLL for (size_t row = 0; row < ROWS; row++)
            if (rows[row]) v[row] = load(rows[row] + i);
        transpose(v);
        UNROLL for (size_t c = 0; c < LANES; c++)
            memcpy(packed + (i + c) * ROWS, &v[c], ROWS * sizeof *packed);
    }
    for (; i < count; i++)
        for (size_t row = 0; row < ROWS; row++)
            packed[i * ROWS + row] = rows[row] ? rows[row][i] : 0;
}

static void pack_rows(float *packed, const float *x, size_t stride, size_t rows, size_t k,
                      size_t panels, size_t first_panel, size_t end_panel) {
    for (size_t block = 0; block < k; block += k_block) {
        size_t count = smaller(k_block, k - block);
        for (size_t panel = first_panel; panel < end_panel; panel++) {
            const float *sources[ROWS];
            for (size_t r = 0; r < ROWS; r++) {
                size_t row = panel * ROWS + r;
                sources[r] = row < rows ? x + row * stride + block : NULL;
            }
            pack_panel(packed + (block * panels + panel * count) * ROWS, sources, count);
        }
    }
}

/// Widens elements first ..< first + count of up to LANES rows of w, from row `column` on, and
/// writes them as columns of a panel [count][column_panel]; missing ones are zero.
INLINE void pack_columns(float *packed, const void *w, weight_type type, size_t stride,
                         size_t column, size_t columns, size_t first, size_t count) {
    size_t i = 0;
    for (; columns >= LANES && i + LANES <= count; i += LANES) {
        vector v[LANES];
        UNROLL for (size_t c = 0; c < LANES; c++)
            v[c] = load_widened(weight_row(w, type, column + c, stride), type, first + i);
        transpose(v);
        UNROLL for (size_t c = 0; c < LANES; c++) store(packed + (i + c) * column_panel, v[c]);
    }
    for (; i < count; i++)
        for (size_t c = 0; c < LANES; c++)
            packed[i * column_panel + c] =
                c < columns ? widened(w, type, (column + c) * stride + first + i) : 0;
}

/// Widens and packs elements first ..< first + count of `columns` rows of w into panels
/// [count][column_panel]; missing columns are zero.
static void pack_weight_block(float *packed, const void *w, weight_type type, size_t stride,
                              size_t columns, size_t first, size_t count) {
    for (size_t column = 0; column < columns; column += column_panel, packed += column_panel * count)
        for (size_t c = 0; c < column_panel; c += LANES) {
            size_t rest = column + c < columns ? columns - column - c : 0;
            // One copy of the loop for each type.
            switch (type) {
            case weight_float32:
                pack_columns(packed + c, w, weight_float32, stride, column + c, rest, first, count);
                break;
            case weight_float16:
                pack_columns(packed + c, w, weight_float16, stride, column + c, rest, first, count);
                break;
            case weight_bfloat16:
                pack_columns(packed + c, w, weight_bfloat16, stride, column + c, rest, first, count);
                break;
            }
        }
}

static void pack_weights(float *packed, const void *w, weight_type type, size_t stride,
                         size_t columns, size_t k) {
    size_t padded = (columns + column_panel - 1) / column_panel * column_panel;
    for (size_t block = 0; block < k; block += k_block)
        pack_weight_block(packed + block * padded, w, type, stride, columns, block,
                          smaller(k_block, k - block));
}

/// y [ROWS, column_panel] = a bᵀ, or += if `add`, from panels a [k][ROWS], b [k][column_panel].
INLINE void multiply_tile(float *y, size_t y_stride, const float *a, const float *b, size_t k,
                          bool add) {
    vector sums[ROWS][VECTORS];
    UNROLL for (size_t i = 0; i < ROWS; i++)
        UNROLL for (size_t j = 0; j < VECTORS; j++)
            sums[i][j] = add ? load(y + i * y_stride + j * LANES) : (vector){};
    for (; k > 0; k--, a += ROWS, b += column_panel) {
        vector w[VECTORS];
        UNROLL for (size_t j = 0; j < VECTORS; j++) w[j] = load(b + j * LANES);
        UNROLL for (size_t i = 0; i < ROWS; i++) {
            vector x = broadcast(a[i]);
            // Keeps the broadcast in a register: folded into each multiplication it would be
            // loaded VECTORS times, which the load ports cannot keep up with.
            PIN(x);
            UNROLL for (size_t j = 0; j < VECTORS; j++)
                sums[i][j] = multiply_add(x, w[j], sums[i][j]);
        }
    }
    UNROLL for (size_t i = 0; i < ROWS; i++)
        UNROLL for (size_t j = 0; j < VECTORS; j++)
            store(y + i * y_stride + j * LANES, sums[i][j]);
}

/// y [rows, columns] = a bᵀ, or += if `add`, from packed panels of k elements.
static void multiply_block(float *y, size_t y_stride, const float *a, size_t rows, const float *b,
                           size_t columns, size_t k, bool add) {
    for (size_t j = 0; j < columns; j += column_panel)
        for (size_t i = 0; i < rows; i += ROWS) {
            size_t height = smaller(ROWS, rows - i), width = smaller(column_panel, columns - j);
            float *target = y + i * y_stride + j;
            if (height == ROWS && width == column_panel) {
                multiply_tile(target, y_stride, a + i * k, b + j * k, k, add);
                continue;
            }
            float edge[ROWS * column_panel] = {};
            for (size_t r = 0; add && r < height; r++)
                memcpy(edge + r * column_panel, target + r * y_stride, width * sizeof *edge);
            multiply_tile(edge, column_panel, a + i * k, b + j * k, k, add);
            for (size_t r = 0; r < height; r++)
                memcpy(target + r * y_stride, edge + r * column_panel, width * sizeof *edge);
        }
}

INLINE void add_bias(float *y, size_t y_stride, const float *bias, size_t rows, size_t columns) {
    for (size_t row = 0; row < rows; row++)
        for (size_t i = 0; i < columns; i++) y[row * y_stride + i] += bias[i];
}

static void linear(const linear_task *t, float *workspace) {
    size_t first = t->first_panel * ROWS, end = smaller(t->end_panel * ROWS, t->rows);
    for (size_t block = 0; block < t->k; block += k_block) {
        size_t count = smaller(k_block, t->k - block);
        pack_weight_block(workspace, t->w, t->w_type, t->w_stride, t->columns, block, count);
        const float *packed = t->packed + block * t->panels * ROWS;
        for (size_t row = first; row < end; row += row_block)
            multiply_block(t->y + row * t->y_stride, t->y_stride, packed + row * count,
                           smaller(row_block, end - row), workspace, t->columns, count,
                           t->accumulate || block > 0);
    }
    if (t->bias)
        add_bias(t->y + first * t->y_stride, t->y_stride, t->bias, end - first, t->columns);
}

/// Gathers elements first ..< first + count of the 3 · 3 · channels neighbourhood of up to ROWS
/// pixels into a panel [count][ROWS].
static void gather_panel(float *panel, const convolution_task *t, size_t pixel, size_t pixels,
                         size_t first, size_t count) {
    size_t width = t->width * t->upsampling;
    for (size_t i = 0; i < count;) {
        size_t tap = (first + i) / t->channels, channel = (first + i) % t->channels;
        size_t length = smaller(t->channels - channel, count - i);
        const float *sources[ROWS];
        for (size_t r = 0; r < ROWS; r++) {
            size_t row = (pixel + r) / width, column = (pixel + r) % width;
            const float *source = r < pixels ? tap_source(t, row, column, tap) : NULL;
            sources[r] = source ? source + channel : NULL;
        }
        pack_panel(panel + i * ROWS, sources, length);
        i += length;
    }
}

static void convolve(const convolution_task *t, float *workspace) {
    size_t k = 9 * t->channels;
    size_t padded = (t->columns + column_panel - 1) / column_panel * column_panel;
    for (size_t block = 0; block < k; block += k_block) {
        size_t count = smaller(k_block, k - block);
        for (size_t i = 0; i < t->count; i += ROWS)
            gather_panel(workspace + i * count, t, t->first_pixel + i, smaller(ROWS, t->count - i),
                         block, count);
        multiply_block(t->y, t->columns, workspace, t->count, t->w + block * padded, t->columns,
                       count, t->accumulate || block > 0);
    }
    add_bias(t->y, t->columns, t->bias, t->count, t->columns);
}
