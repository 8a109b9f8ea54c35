// 3×3 convolutions in float32: neighbourhoods are packed like rows of a linear layer.

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

static void pack_weights(float *packed, const float *w, size_t columns, size_t k) {
    product_task task = {
        .w = w, .w_type = weight_float32, .w_stride = k, .columns = columns, .k = k};
    size_t padded = (columns + column_panel - 1) / column_panel * column_panel;
    for (size_t block = 0; block < k; block += lane_block) {
        size_t count = smaller(lane_block, k - block);
        for (size_t column = 0; column < columns; column += column_panel) {
            uint32_t *panel = (uint32_t *)(packed + block * padded + column * count);
            float32_pack_panel(panel, &task, column, block, count);
        }
    }
}

/// y [rows, columns] = a bᵀ, or += if `add`, from packed panels of k elements.
static void multiply_block(float *y, size_t y_stride, const float *a, size_t rows, const float *b,
                           size_t columns, size_t k, bool add) {
    for (size_t j = 0; j < columns; j += column_panel)
        for (size_t i = 0; i < rows; i += ROWS) {
            size_t height = smaller(ROWS, rows - i), width = smaller(column_panel, columns - j);
            const uint32_t *panel = (const uint32_t *)(a + i * k);
            const uint32_t *weights = (const uint32_t *)(b + j * k);
            float *target = y + i * y_stride + j;
            if (height == ROWS && width == column_panel) {
                float32_tile(target, y_stride, panel, weights, k, add, NULL);
                continue;
            }
            float edge[ROWS * column_panel] = {};
            for (size_t r = 0; add && r < height; r++)
                memcpy(edge + r * column_panel, target + r * y_stride, width * sizeof *edge);
            float32_tile(edge, column_panel, panel, weights, k, add, NULL);
            for (size_t r = 0; r < height; r++)
                memcpy(target + r * y_stride, edge + r * column_panel, width * sizeof *edge);
        }
}

/// Gathers elements first ..< first + count of the 3 · 3 · channels neighbourhood of up to ROWS
/// pixels into a panel [count][ROWS].
static void gather_panel(float *panel, const convolution_task *t, size_t pixel, size_t pixels,
                         size_t first, size_t count) {
    size_t width = output_width(&t->image), channels = t->image.channels;
    for (size_t i = 0; i < count;) {
        size_t tap = (first + i) / channels, channel = (first + i) % channels;
        size_t length = smaller(channels - channel, count - i);
        const float *sources[ROWS];
        for (size_t r = 0; r < ROWS; r++) {
            size_t row = (pixel + r) / width, column = (pixel + r) % width;
            size_t offset = r < pixels ? tap_offset(&t->image, row, column, tap) : no_pixel;
            sources[r] = offset == no_pixel ? NULL : t->source + offset + channel;
        }
        pack_panel(panel + i * ROWS, sources, length);
        i += length;
    }
}

static void convolve(const convolution_task *t, float *workspace) {
    size_t k = 9 * t->image.channels;
    size_t padded = (t->columns + column_panel - 1) / column_panel * column_panel;
    for (size_t block = 0; block < k; block += lane_block) {
        size_t count = smaller(lane_block, k - block);
        for (size_t i = 0; i < t->count; i += ROWS)
            gather_panel(workspace + i * count, t, t->first_pixel + i, smaller(ROWS, t->count - i),
                         block, count);
        multiply_block(t->y, t->columns, workspace, t->count, t->w + block * padded, t->columns,
                       count, t->accumulate || block > 0);
    }
    for (size_t row = 0; row < t->count; row++)
        for (size_t i = 0; i < t->columns; i++) t->y[row * t->columns + i] += t->bias[i];
}
