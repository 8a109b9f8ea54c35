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

static void head_norm(const head_norm_task *t) {
    size_t half = t->head_size / 2;
    size_t step = t->adjacent_pairs ? 2 : 1, distance = t->adjacent_pairs ? 1 : half;
    for (size_t row = 0; row < t->rows; row++)
        for (size_t head = 0; head < t->heads; head++) {
            float *x = t->x + row * t->stride + head * t->head_size;
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

static void gated_add(float *x, const float *y, const float *gate, size_t rows, size_t width) {
    for (size_t row = 0; row < rows; row++, x += width, y += width)
        for (size_t i = 0; i < width; i += LANES) {
            size_t left = width - i;
            vector v = load_partial(x + i, left), w = load_partial(y + i, left);
            v = gate ? multiply_add(load_partial(gate + i, left), w, v) : v + w;
            store_partial(x + i, v, left);
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
