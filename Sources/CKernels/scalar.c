// Reference kernels: the plainest correct code. Every other table is tested against this one.

#include "tables.h"

enum { k_block = 64 };

static void pack_rows(float *packed, const float *x, size_t stride, size_t rows, size_t k,
                      size_t panels, size_t first_panel, size_t end_panel) {
    (void)rows;
    for (size_t row = first_panel; row < end_panel; row++)
        for (size_t i = 0; i < k; i++) {
            size_t block = i / k_block * k_block, length = smaller(k_block, k - block);
            packed[block * panels + row * length + i - block] = x[row * stride + i];
        }
}

static void pack_weights(float *packed, const void *w, weight_type type, size_t stride,
                         size_t columns, size_t k) {
    for (size_t column = 0; column < columns; column++)
        for (size_t i = 0; i < k; i++) {
            size_t block = i / k_block * k_block, length = smaller(k_block, k - block);
            packed[block * columns + column * length + i - block] =
                widened(w, type, column * stride + i);
        }
}

static void linear(const linear_task *t, float *workspace) {
    (void)workspace;
    for (size_t row = t->first_panel; row < t->end_panel; row++)
        for (size_t column = 0; column < t->columns; column++) {
            float *y = t->y + row * t->y_stride + column;
            float sum = t->accumulate ? *y : 0;
            for (size_t i = 0; i < t->k; i++) {
                size_t block = i / k_block * k_block, length = smaller(k_block, t->k - block);
                sum += t->packed[block * t->panels + row * length + i - block] *
                       widened(t->w, t->w_type, column * t->w_stride + i);
            }
            *y = t->bias ? sum + t->bias[column] : sum;
        }
}

static void convolve(const convolution_task *t, float *workspace) {
    (void)workspace;
    size_t width = t->width * t->upsampling, k = 9 * t->channels;
    for (size_t i = 0; i < t->count; i++)
        for (size_t column = 0; column < t->columns; column++) {
            size_t pixel = t->first_pixel + i;
            float *y = t->y + i * t->columns + column;
            float sum = t->accumulate ? *y : 0;
            for (size_t tap = 0; tap < 9; tap++) {
                const float *source = tap_source(t, pixel / width, pixel % width, tap);
                if (!source) continue;
                for (size_t c = 0; c < t->channels; c++) {
                    size_t j = tap * t->channels + c;
                    size_t block = j / k_block * k_block, length = smaller(k_block, k - block);
                    sum += source[c] * t->w[block * t->columns + column * length + j - block];
                }
            }
            *y = sum + t->bias[column];
        }
}

static void attend(const attention_task *t, float *workspace) {
    // One query at a time: its running maximum, sum and weighted values, as in the fast kernels.
    float *sums = workspace, *query = workspace + t->head_size;
    for (size_t i = 0; i < t->queries; i++) {
        size_t keys = t->causal ? smaller(t->keys, t->first_position + i + 1) : t->keys;
        float largest = -INFINITY, total = 0;
        memcpy(query, t->q + i * t->q_stride, t->head_size * sizeof *query);
        memset(sums, 0, t->head_size * sizeof *sums);
        for (size_t key = 0; key < keys; key++) {
            float score = 0;
            for (size_t d = 0; d < t->head_size; d++)
                score += query[d] * t->k[key * t->kv_stride + d];
            score *= t->scale;
            float maximum = fmaxf(largest, score), shrink = expf(largest - maximum);
            float weight = expf(score - maximum);
            largest = maximum;
            total = total * shrink + weight;
            for (size_t d = 0; d < t->head_size; d++)
                sums[d] = sums[d] * shrink + weight * t->v[key * t->kv_stride + d];
        }
        for (size_t d = 0; d < t->head_size; d++) t->o[i * t->o_stride + d] = sums[d] / total;
    }
}

static void rms_norm(float *y, const float *x, const float *weight, const float *scale,
                     const float *shift, size_t rows, size_t width, float offset, float epsilon) {
    for (size_t row = 0; row < rows; row++, x += width, y += width) {
        float squares = 0;
        for (size_t i = 0; i < width; i++) squares += x[i] * x[i];
        float inverse = 1 / sqrtf(squares / (float)width + epsilon);
        for (size_t i = 0; i < width; i++) {
            float normed = x[i] * inverse * (offset + weight[i]);
            y[i] = scale && shift ? (1 + scale[i]) * normed + shift[i] : normed;
        }
    }
}

static void head_norm(const head_norm_task *t) {
    size_t half = t->head_size / 2;
    for (size_t row = 0; row < t->rows; row++)
        for (size_t head = 0; head < t->heads; head++) {
            float *x = t->x + row * t->stride + head * t->head_size;
            rms_norm(x, x, t->weight, NULL, NULL, 1, t->head_size, t->offset, t->epsilon);
            if (!t->cosine || !t->sine) continue;
            for (size_t m = 0; m < half; m++) {
                float c = t->cosine[row * half + m], s = t->sine[row * half + m];
                float *a = x + (t->adjacent_pairs ? 2 * m : m);
                float *b = x + (t->adjacent_pairs ? 2 * m + 1 : m + half);
                float rotated = *a * c - *b * s;
                *b = *a * s + *b * c;
                *a = rotated;
            }
        }
}

static float sigmoid(float x) { return 1 / (1 + expf(-x)); }

static void channel_norm(float *y, const float *x, const float *gamma, size_t rows, size_t width,
                         bool silu) {
    for (size_t row = 0; row < rows; row++, x += width, y += width) {
        float squares = 0;
        for (size_t i = 0; i < width; i++) squares += x[i] * x[i];
        float factor = sqrtf((float)width) / fmaxf(sqrtf(squares), 1e-12f);
        for (size_t i = 0; i < width; i++) {
            float normed = x[i] * factor * gamma[i];
            y[i] = silu ? normed * sigmoid(normed) : normed;
        }
    }
}

static void silu_multiply(float *gate, const float *up, size_t count) {
    for (size_t i = 0; i < count; i++) gate[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

static void sigmoid_multiply(float *x, const float *gate, size_t count) {
    for (size_t i = 0; i < count; i++) x[i] *= sigmoid(gate[i]);
}

static void gelu_tanh(float *x, size_t count) {
    for (size_t i = 0; i < count; i++) {
        float inner = 0.7978845608f * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
        x[i] = 0.5f * x[i] * (1 + tanhf(inner));
    }
}

static void gated_add(float *x, const float *y, const float *gate, size_t rows, size_t width) {
    for (size_t row = 0; row < rows; row++, x += width, y += width)
        for (size_t i = 0; i < width; i++) x[i] += gate ? gate[i] * y[i] : y[i];
}

static bool all_finite(const float *x, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

const kernel_table kernels_scalar = {
    .name = "scalar",
    .row_panel = 1,
    .column_panel = 1,
    .k_block = k_block,
    .query_panel = 1,
    .pack_rows = pack_rows,
    .pack_weights = pack_weights,
    .linear = linear,
    .convolve = convolve,
    .attend = attend,
    .rms_norm = rms_norm,
    .head_norm = head_norm,
    .channel_norm = channel_norm,
    .silu_multiply = silu_multiply,
    .sigmoid_multiply = sigmoid_multiply,
    .gelu_tanh = gelu_tanh,
    .gated_add = gated_add,
    .all_finite = all_finite,
};
