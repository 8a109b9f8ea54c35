// 3×3 convolutions in bfloat16, straight from the pixels: a tile of 8 pixels × 48 channels reads
// each pixel's channels as they lie, so nothing is gathered.

enum { channel_panel = 3 * LANES, pixel_group = 8 };

/// Packs w [columns, 9 · channels]: [panels][9 · channels / 2][channel_panel].
static void pack_pair_weights(uint32_t *packed, const float *w, size_t columns, size_t k) {
    for (size_t column = 0; column < columns; column += channel_panel)
        for (size_t i = 0; i < k; i += 2)
            for (size_t c = 0; c < channel_panel; c++) {
                const float *pair = w + (column + c) * k + i;
                *packed++ = column + c < columns
                    ? narrowed_bfloat(pair[0]) | (uint32_t)narrowed_bfloat(pair[1]) << 16 : 0;
            }
}

/// sums [pixel_group, channel_panel], rows `stride` apart, of pixels whose nine taps are `taps`
/// [9][`step`].
INLINE void convolve_tile(float *sums, size_t stride, const uint16_t *const *taps, size_t step,
                          const uint32_t *w, size_t lanes) {
    vector s[pixel_group][3] = {};
    for (size_t tap = 0; tap < 9; tap++, taps += step) {
        const uint16_t *p[pixel_group];
        UNROLL for (size_t i = 0; i < pixel_group; i++) p[i] = taps[i];
        for (size_t c = 0; c < lanes; c++, w += channel_panel) {
            vector v[3];
            UNROLL for (size_t j = 0; j < 3; j++) v[j] = load((const float *)w + j * LANES);
            UNROLL for (size_t i = 0; i < pixel_group; i++) {
                vector x = broadcast_lane((const uint32_t *)(p[i] + 2 * c));
                PIN(x);
                UNROLL for (size_t j = 0; j < 3; j++) s[i][j] = bfloat16_step(s[i][j], x, v[j]);
            }
        }
    }
    UNROLL for (size_t i = 0; i < pixel_group; i++)
        UNROLL for (size_t j = 0; j < 3; j++) store(sums + i * stride + j * LANES, s[i][j]);
}

static void convolve_pairs(const pair_convolution_task *t, void *workspace) {
    const uint16_t *outside = memset(workspace, 0, t->image.channels * sizeof *outside);
    // Pixels past the end of the last group repeat the last one.
    size_t groups = (t->count + pixel_group - 1) / pixel_group, step = groups * pixel_group;
    const uint16_t *taps[9 * convolution_pixels];
    size_t width = output_width(&t->image);
    for (size_t i = 0; i < step; i++) {
        size_t pixel = t->first_pixel + smaller(i, t->count - 1);
        for (size_t tap = 0; tap < 9; tap++) {
            size_t offset = tap_offset(&t->image, pixel / width, pixel % width, tap);
            taps[tap * step + i] = offset == no_pixel ? outside : t->source + offset;
        }
    }
    size_t lanes = t->image.channels / 2;
    size_t stride = (t->columns + channel_panel - 1) / channel_panel * channel_panel;
    for (size_t column = 0; column < stride; column += channel_panel)
        for (size_t i = 0; i < step; i += pixel_group)
            convolve_tile(t->sums + i * stride + column, stride, taps + i, step,
                          t->w + column * 9 * lanes, lanes);
}
