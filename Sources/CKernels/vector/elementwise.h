// Norms, activations and the other kernels that touch each element a few times.

/// Sum of the squares of x [width].
INLINE float sum_of_squares(const float *x, size_t width) {
    vector squares = {};
    for (size_t i = 0; i < width; i += LANES) {
        vector v = load_partial(x + i, width - i);
        squares = multiply_add(v, v, squares);
    }
    return sum_of_lanes(squares);
}

static void rms_norm(float *y, const float *x, const float *weight, const float *scale,
                     const float *shift, size_t rows, size_t width, float offset, float epsilon) {
    for (size_t row = 0; row < rows; row++, x += width, y += width) {
        float inverse = 1 / sqrtf(sum_of_squares(x, width) / (float)width + epsilon);
        for (size_t i = 0; i < width; i += LANES) {
            size_t left = width - i;
            vector v = load_partial(x + i, left) * inverse;
            v *= offset + load_partial(weight + i, left);
            if (scale && shift)
                v = multiply_add(v, 1 + load_partial(scale + i, left),
                                 load_partial(shift + i, left));
            store_partial(y + i, v, left);
        }
    }
}

/// Sum of x [width].
INLINE float sum_of(const float *x, size_t width) {
    vector sums = {};
    for (size_t i = 0; i < width; i += LANES) sums += load_partial(x + i, width - i);
    return sum_of_lanes(sums);
}

static void layer_norm(float *y, const float *x, const float *weight, const float *bias,
                       size_t rows, size_t width, float epsilon) {
    for (size_t row = 0; row < rows; row++, x += width, y += width) {
        vector mean = broadcast(sum_of(x, width) / (float)width);
        // What is stored ends with the row, so that padding adds nothing to the squares.
        for (size_t i = 0; i < width; i += LANES)
            store_partial(y + i, load_partial(x + i, width - i) - mean, width - i);
        float inverse = 1 / sqrtf(sum_of_squares(y, width) / (float)width + epsilon);
        for (size_t i = 0; i < width; i += LANES) {
            size_t left = width - i;
            vector v = load_partial(y + i, left) * inverse;
            v = multiply_add(v, load_partial(weight + i, left), load_partial(bias + i, left));
            store_partial(y + i, v, left);
        }
    }
}

static void head_norm(const head_norm_task *t) {
    size_t half = t->head_size / 2;
    size_t step = t->adjacent_pairs ? 2 : 1, distance = t->adjacent_pairs ? 1 : half;
    for (size_t row = 0; row < t->rows; row++)
        for (size_t head = 0; head < t->heads; head++) {
            float *x = t->x + row * t->stride + head * t->head_size;
            if (t->weight)
                rms_norm(x, x, t->weight, NULL, NULL, 1, t->head_size, t->offset, t->epsilon);
            if (!t->cosine || !t->sine) continue;
            const float *cosine = t->cosine + row * half, *sine = t->sine + row * half;
            for (size_t m = 0; m < half; m++) {
                float a = x[m * step], b = x[m * step + distance];
                x[m * step] = a * cosine[m] - b * sine[m];
                x[m * step + distance] = a * sine[m] + b * cosine[m];
            }
        }
}

static void channel_norm(float *y, const float *x, const float *gamma, size_t rows, size_t width,
                         bool silu) {
    for (size_t row = 0; row < rows; row++, x += width, y += width) {
        float length = sqrtf(sum_of_squares(x, width));
        float factor = sqrtf((float)width) / (length > 1e-12f ? length : 1e-12f);
        for (size_t i = 0; i < width; i += LANES) {
            size_t left = width - i;
            vector v = load_partial(x + i, left) * factor * load_partial(gamma + i, left);
            store_partial(y + i, silu ? v * sigmoid(v) : v, left);
        }
    }
}

static void silu_multiply(float *gate, const float *up, size_t count) {
    for (size_t i = 0; i < count; i += LANES) {
        vector g = load_partial(gate + i, count - i);
        store_partial(gate + i, g * sigmoid(g) * load_partial(up + i, count - i), count - i);
    }
}

static void sigmoid_multiply(float *x, const float *gate, size_t count) {
    for (size_t i = 0; i < count; i += LANES) {
        vector g = load_partial(gate + i, count - i);
        store_partial(x + i, load_partial(x + i, count - i) * sigmoid(g), count - i);
    }
}

static void gelu_tanh(float *x, size_t count) {
    for (size_t i = 0; i < count; i += LANES) {
        vector v = load_partial(x + i, count - i);
        // (1 + tanh u) / 2 is sigmoid(2u), which does not cancel for negative u.
        vector u = 0.7978845608f * (v + 0.044715f * v * v * v);
        store_partial(x + i, v * sigmoid(2 * u), count - i);
    }
}

/// 1 − Φ(x) = erfc(x / sqrt(2)) / 2 for x >= 0, within 5e-8 of itself but for the exponential.
INLINE vector normal_tail(vector x) {
    // exp(x² / 2) · tail is smooth in t = 1 / (1 + x / sqrt(8)): least squares of its quotient by t.
    vector t = 1 / (1 + x * 0.3535533906f);
    vector p = broadcast(-0.0299906885f);
    p = multiply_add(p, t, broadcast(0.1444192078f));
    p = multiply_add(p, t, broadcast(-0.2478008938f));
    p = multiply_add(p, t, broadcast(0.1435741135f));
    p = multiply_add(p, t, broadcast(-0.0162426422f));
    p = multiply_add(p, t, broadcast(0.1024931825f));
    p = multiply_add(p, t, broadcast(0.1212853023f));
    p = multiply_add(p, t, broadcast(0.1412208837f));
    p = multiply_add(p, t, broadcast(0.1410415099f));
    return p * t * exponential(x * x * -0.5f);
}

static void gelu(float *x, size_t count) {
    for (size_t i = 0; i < count; i += LANES) {
        vector v = load_partial(x + i, count - i);
        integers negative = v < 0;
        vector tail = normal_tail(pick(negative, -v, v));
        store_partial(x + i, v * pick(negative, tail, 1 - tail), count - i);
    }
}

static void gated_add(float *x, const float *y, const float *gate, size_t rows, size_t width) {
    for (size_t row = 0; row < rows; row++, x += width, y += width)
        for (size_t i = 0; i < width; i += LANES) {
            size_t left = width - i;
            vector v = load_partial(x + i, left), w = load_partial(y + i, left);
            v = gate ? multiply_add(load_partial(gate + i, left), w, v) : v + w;
            store_partial(x + i, v, left);
        }
}

static void multiply(float *x, const float *y, size_t count) {
    for (size_t i = 0; i < count; i += LANES)
        store_partial(x + i, load_partial(x + i, count - i) * load_partial(y + i, count - i),
                      count - i);
}

static void narrow(uint16_t *y, const float *x, size_t count) {
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        vector v = load(x + i);
        integers bits = (integers)v, none = v != v;
        integers rounded = bits + 0x7fff + (bits >> 16 & 1);
        bits = (none & (bits | 0x400000)) | (~none & rounded);
        halves upper = __builtin_convertvector(bits >> 16, halves);
        memcpy(y + i, &upper, sizeof upper);
    }
    for (; i < count; i++) y[i] = narrowed_bfloat(x[i]);
}

static void widen(float *y, const void *x, weight_type type, size_t count) {
    size_t i = 0;
    switch (type) {
#define CASE(type)                                                                  \
    case type:                                                                      \
        for (; i + LANES <= count; i += LANES) store(y + i, load_widened(x, type, i)); \
        break
        CASE(weight_float32);
        CASE(weight_float16);
        CASE(weight_bfloat16);
        CASE(weight_float8_e4m3);
        CASE(weight_float8_e5m2);
        CASE(weight_int8);
#undef CASE
    }
    for (; i < count; i++) y[i] = widened(x, type, i);
}

/// Multiplies (a, b, c, d) by H_4.
INLINE void rotate_four(vector *a, vector *b, vector *c, vector *d) {
    vector half = (*a + *b + *c + *d) * 0.5f;
    vector first = half - *d, second = half - *c, third = half - *b, fourth = half - *a;
    *a = first, *b = second, *c = third, *d = fourth;
}

/// Rotates elements that are `distance` apart, in each group of four times that.
static void rotate_stage(float *x, size_t count, size_t distance) {
    for (size_t first = 0; first < count; first += 4 * distance)
        for (size_t i = 0; i < distance; i += LANES) {
            size_t left = smaller(LANES, distance - i);
            float *p = x + first + i;
            vector v[4];
            UNROLL for (size_t j = 0; j < 4; j++) v[j] = load_partial(p + j * distance, left);
            rotate_four(v, v + 1, v + 2, v + 3);
            UNROLL for (size_t j = 0; j < 4; j++) store_partial(p + j * distance, v[j], left);
        }
}

#if LANES == 16
/// The four stages of a group of 256, in registers.
INLINE void rotate_256(float *x) {
    vector v[LANES];
    UNROLL for (size_t i = 0; i < LANES; i++) v[i] = load(x + i * LANES);
    UNROLL for (size_t round = 0; round < 2; round++) {
        // Elements 1 and 4 apart first, which the transposition makes 16 and 64 apart.
        transpose(v);
        UNROLL for (size_t i = 0; i < 4; i++)
            rotate_four(v + 4 * i, v + 4 * i + 1, v + 4 * i + 2, v + 4 * i + 3);
        UNROLL for (size_t i = 0; i < 4; i++) rotate_four(v + i, v + i + 4, v + i + 8, v + i + 12);
    }
    UNROLL for (size_t i = 0; i < LANES; i++) store(x + i * LANES, v[i]);
}
#endif

static void rotate(float *x, size_t count, size_t group) {
    size_t distance = 1;
#if LANES == 16
    if (group % 256 == 0) {
        for (size_t i = 0; i < count; i += 256) rotate_256(x + i);
        distance = 256;
    }
#endif
    for (; distance < group; distance *= 4) rotate_stage(x, count, distance);
}

/// The largest magnitude in x [count]; NaN if there is one.
static float largest_magnitude(const float *x, size_t count) {
    // Magnitudes order like their bits, and NaN comes last.
    integers largest = {};
    for (size_t i = 0; i < count; i += LANES) {
        integers magnitude = (integers)load_partial(x + i, count - i) & 0x7fffffff;
        largest = __builtin_elementwise_max(largest, magnitude);
    }
    int32_t bits = 0;
    for (size_t i = 0; i < LANES; i++) bits = largest[i] > bits ? largest[i] : bits;
    return float_from_bits((uint32_t)bits);
}

/// v · factor, rounded to nearest even.
INLINE signed_bytes quantized(vector v, float factor) {
    const float magic = 12582912;  // 1.5 · 2^23
    // In a statement of its own, the product is rounded on every CPU.
    vector scaled = v * factor;
    integers q = (integers)(scaled + magic) - (integers)broadcast(magic);
    return __builtin_convertvector(q, signed_bytes);
}

static float quantize(int8_t *y, const float *x, size_t count) {
    float magnitude = largest_magnitude(x, count), factor = quantization_factor(magnitude);
    for (size_t i = 0; i < count; i += LANES) {
        signed_bytes q = quantized(load_partial(x + i, count - i), factor);
        memcpy(y + i, &q, smaller(LANES, count - i));
    }
    return magnitude / 127;
}

static void dequantize(void *sums, size_t stride, const quantized_row *quantized, size_t rows,
                       size_t columns) {
    for (size_t row = 0; row < rows; row++) {
        float *y = (float *)sums + row * stride;
        vector scale = broadcast(quantized[row].scale);
        for (size_t i = 0; i < columns; i += LANES) {
            integers q = (integers)load_partial(y + i, columns - i) - quantized[row].surplus;
            store_partial(y + i, __builtin_convertvector(q, vector) * scale, columns - i);
        }
    }
}

static bool all_finite(const float *x, size_t count) {
    // x − x is 0 for a finite x, else not a number.
    integers bad = {};
    for (size_t i = 0; i < count; i += LANES) {
        vector v = load_partial(x + i, count - i);
        bad |= (v - v) != 0;
    }
    for (size_t i = 0; i < LANES; i++)
        if (bad[i]) return false;
    return true;
}
