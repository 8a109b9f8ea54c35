// Products in one arithmetic: packing of rows and of weights, the register tile, the task.
//
// Included once for each arithmetic after these definitions: NAMED(x) gives the names, GROUP is the
// number of elements in a lane of 32 bits, and
//
//     measure       finds the factors by which rows are quantised
//     row_lanes     reads LANES lanes of a row
//     weight_lanes  reads LANES lanes of a row of weights
//     step          adds the products of one lane of x, in all lanes, and a vector of weights
//
// All arithmetics share the tile, ROWS × (VECTORS · LANES) sums in registers, and the layout.

static void NAMED(pack_rows)(uint32_t *packed, size_t panel, size_t panels, const float *x,
                             size_t stride, size_t rows, size_t k, quantized_row *quantized) {
    float factors[ROWS] = {};
    NAMED(measure)(factors, x, stride, rows, k, quantized);
    size_t lanes = (k + GROUP - 1) / GROUP;
    vector totals = {};
    for (size_t block = 0; block < lanes; block += lane_block) {
        size_t count = smaller(lane_block, lanes - block);
        uint32_t *target = packed + (block * panels + panel * count) * ROWS;
        for (size_t i = 0; i < count; i += LANES) {
            size_t first = (block + i) * GROUP;
            vector v[LANES] = {};
            UNROLL for (size_t row = 0; row < ROWS; row++)
                if (row < rows)
                    v[row] = NAMED(row_lanes)(x + row * stride + first, k - first, factors[row]);
            transpose(v);
            if (GROUP == 4)
                UNROLL for (size_t lane = 0; lane < LANES; lane++)
                    totals = NAMED(step)(totals, v[lane], (vector)((integers){} + 0x01010101));
            if (count - i >= LANES)
                UNROLL for (size_t lane = 0; lane < LANES; lane++)
                    memcpy(target + (i + lane) * ROWS, &v[lane], ROWS * sizeof *target);
            else
                for (size_t lane = 0; lane < count - i; lane++)
                    memcpy(target + (i + lane) * ROWS, &v[lane], ROWS * sizeof *target);
        }
    }
    for (size_t row = 0; GROUP == 4 && row < rows; row++)
        quantized[row].surplus = 128 * ((integers)totals)[row];
}

/// Packs lanes first ..< first + count of up to LANES rows of w, from row `column` on, as columns of
/// a panel [count][column_panel].
INLINE void NAMED(pack_columns)(uint32_t *packed, const product_task *t, weight_type type,
                                size_t column, size_t first, size_t count) {
    size_t columns = column < t->columns ? smaller(LANES, t->columns - column) : 0;
    for (size_t i = 0; i < count; i += LANES) {
        size_t element = (first + i) * GROUP;
        vector v[LANES] = {};
        if (columns == LANES && t->k - element >= GROUP * LANES) {
            UNROLL for (size_t c = 0; c < LANES; c++)
                v[c] = NAMED(weight_lanes)(weight_at(t, type, column + c, element), type);
        } else {
            for (size_t c = 0; c < columns; c++) {
                // What lies past the end of a row is zero, and is not read.
                char rest[4 * GROUP * LANES] = {};
                size_t length = smaller(GROUP * LANES, t->k - element);
                memcpy(rest, weight_at(t, type, column + c, element), length * weight_size(type));
                v[c] = NAMED(weight_lanes)(rest, type);
            }
        }
        transpose(v);
        if (count - i >= LANES)
            UNROLL for (size_t lane = 0; lane < LANES; lane++)
                store((float *)packed + (i + lane) * column_panel, v[lane]);
        else
            for (size_t lane = 0; lane < count - i; lane++)
                store((float *)packed + (i + lane) * column_panel, v[lane]);
    }
}

/// Packs lanes first ..< first + count of the columns from `column` on into a panel
/// [count][column_panel].
static void NAMED(pack_panel)(uint32_t *packed, const product_task *t, size_t column, size_t first,
                              size_t count) {
    for (size_t c = 0; c < column_panel; c += LANES) {
        // One copy of the loop for each type.
        switch (t->w_type) {
#define CASE(type)                                                            \
    case type:                                                                \
        NAMED(pack_columns)(packed + c, t, type, column + c, first, count);   \
        break
#if GROUP < 4
            CASE(weight_float32);
            CASE(weight_float16);
            CASE(weight_bfloat16);
            CASE(weight_float8_e4m3);
            CASE(weight_float8_e5m2);
#else
        case weight_float32:
        case weight_float16:
        case weight_bfloat16:
        case weight_float8_e4m3:
        case weight_float8_e5m2: break;
#endif
            CASE(weight_int8);
#undef CASE
        }
    }
}

/// sums [ROWS, column_panel] = rows · weightsᵀ, or += if `add`, from panels of `lanes` lanes.
INLINE void NAMED(tile)(float *sums, size_t stride, const uint32_t *rows, const uint32_t *weights,
                        size_t lanes, bool add, weight_ahead *ahead) {
    vector s[ROWS][VECTORS];
    UNROLL for (size_t i = 0; i < ROWS; i++)
        UNROLL for (size_t j = 0; j < VECTORS; j++)
            s[i][j] = add ? load(sums + i * stride + j * LANES) : (vector){};
    while (lanes > 0) {
        size_t count = smaller(lanes, lanes_between);
        lanes -= count;
        if (ahead) fetch_weights(ahead);
        for (; count > 0; count--, rows += ROWS, weights += column_panel) {
            // Rows come from the second cache, too late unless they are asked for.
            __builtin_prefetch(rows + lanes_ahead * ROWS);
            vector w[VECTORS];
            UNROLL for (size_t j = 0; j < VECTORS; j++)
                w[j] = load((const float *)weights + j * LANES);
            UNROLL for (size_t i = 0; i < ROWS; i++) {
                vector x = broadcast_lane(rows + i);
                // Keeps the broadcast in a register: folded into each multiplication it would be
                // loaded VECTORS times, which the load ports cannot keep up with.
                PIN(x);
                UNROLL for (size_t j = 0; j < VECTORS; j++) s[i][j] = NAMED(step)(s[i][j], x, w[j]);
            }
        }
    }
    UNROLL for (size_t i = 0; i < ROWS; i++)
        UNROLL for (size_t j = 0; j < VECTORS; j++) store(sums + i * stride + j * LANES, s[i][j]);
}

static void NAMED(multiply)(const product_task *t, uint32_t *workspace) {
    size_t lanes = (t->k + GROUP - 1) / GROUP, panels = t->end_panel - t->first_panel;
    for (size_t block = 0; block < lanes; block += lane_block) {
        size_t count = smaller(lane_block, lanes - block);
        bool add = t->accumulate || block > 0;
        for (size_t column = 0; column < t->columns; column += column_panel) {
            // A panel of weights stays in the first cache while all rows pass by.
            NAMED(pack_panel)(workspace, t, column, block, count);
            weight_ahead ahead = weights_after(t, column, block, GROUP, panels);
            const uint32_t *rows = t->packed + (block * t->panels + t->first_panel * count) * ROWS;
            float *sums = (float *)t->sums + column;
            for (size_t panel = 0; panel < panels; panel++) {
                // The sums of the next tile, which the processor would not guess.
                if (panel + 1 < panels)
                    for (size_t i = ROWS; i < 2 * ROWS; i++)
                        for (size_t j = 0; j < column_panel; j += 16)
                            __builtin_prefetch(sums + i * t->stride + j, 1, 3);
                NAMED(tile)(sums, t->stride, rows, workspace, count, add, &ahead);
                rows += count * ROWS;
                sums += ROWS * t->stride;
            }
        }
    }
}

static void NAMED(saturate)(void *sums, uint32_t x_lane, uint32_t w_lane, size_t rounds) {
    vector s[ROWS][VECTORS];
    vector x = broadcast_lane(&x_lane), w = broadcast_lane(&w_lane);
    UNROLL for (size_t i = 0; i < ROWS; i++)
        UNROLL for (size_t j = 0; j < VECTORS; j++)
            s[i][j] = load((float *)sums + i * column_panel + j * LANES);
    for (; rounds > 0; rounds--)
        UNROLL for (size_t i = 0; i < ROWS; i++)
            UNROLL for (size_t j = 0; j < VECTORS; j++) {
                // Else a product that is separate from its sum would be computed once for all.
                PIN(x);
                s[i][j] = NAMED(step)(s[i][j], x, w);
            }
    UNROLL for (size_t i = 0; i < ROWS; i++)
        UNROLL for (size_t j = 0; j < VECTORS; j++)
            store((float *)sums + i * column_panel + j * LANES, s[i][j]);
}

static const product_kernels NAMED(products) = {
    .row_panel = ROWS,
    .column_panel = column_panel,
    .group = GROUP,
    .pack_rows = NAMED(pack_rows),
    .multiply = NAMED(multiply),
    .saturate = NAMED(saturate),
};
