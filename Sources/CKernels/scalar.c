// Reference kernels: the plainest correct code. Every other table is tested against this one.

#include "tables.h"

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/// Where the lane that holds element i of a row (or column) of `panels` lies.
static size_t lane_place(size_t i, size_t lanes, size_t panel, size_t panels) {
    size_t block = i / lane_block * lane_block, length = smaller(lane_block, lanes - block);
    return block * panels + panel * length + i - block;
}

// MARK: Products in float32

static void float32_pack_rows(uint32_t *packed, size_t panel, size_t panels, const float *x,
                              size_t stride, size_t rows, size_t k, quantized_row *quantized) {
    (void)stride, (void)rows, (void)quantized;
    for (size_t i = 0; i < k; i++) packed[lane_place(i, k, panel, panels)] = bits_of(x[i]);
}

static void float32_multiply(const product_task *t, uint32_t *workspace) {
    (void)workspace;
    for (size_t row = t->first_panel; row < t->end_panel; row++)
        for (size_t column = 0; column < t->columns; column++) {
            float *y = (float *)t->sums + (row - t->first_panel) * t->stride + column;
            float sum = t->accumulate ? *y : 0;
            for (size_t i = 0; i < t->k; i++)
                sum += float_from_bits(t->packed[lane_place(i, t->k, row, t->panels)]) *
                       widened(t->w, t->w_type, column * t->w_stride + i);
            *y = sum;
        }
}

static void float32_saturate(void *sums, uint32_t x, uint32_t w, size_t rounds) {
    float *sum = sums;
    for (size_t i = 0; i < rounds; i++) *sum += float_from_bits(x) * float_from_bits(w);
}

// MARK: Products in bfloat16

static void bfloat16_pack_rows(uint32_t *packed, size_t panel, size_t panels, const float *x,
                               size_t stride, size_t rows, size_t k, quantized_row *quantized) {
    (void)stride, (void)rows, (void)quantized;
    size_t lanes = (k + 1) / 2;
    for (size_t i = 0; i < lanes; i++) {
        uint32_t low = narrowed_bfloat(x[2 * i]);
        uint32_t high = 2 * i + 1 < k ? narrowed_bfloat(x[2 * i + 1]) : 0;
        packed[lane_place(i, lanes, panel, panels)] = low | high << 16;
    }
}

static void bfloat16_multiply(const product_task *t, uint32_t *workspace) {
    (void)workspace;
    size_t lanes = (t->k + 1) / 2;
    for (size_t row = t->first_panel; row < t->end_panel; row++)
        for (size_t column = 0; column < t->columns; column++) {
            float *y = (float *)t->sums + (row - t->first_panel) * t->stride + column;
            float sum = t->accumulate ? *y : 0;
            for (size_t i = 0; i < t->k; i++) {
                uint32_t lane = t->packed[lane_place(i / 2, lanes, row, t->panels)];
                float w = widened(t->w, t->w_type, column * t->w_stride + i);
                sum += widened_bfloat((uint16_t)(i % 2 ? lane >> 16 : lane)) *
                       widened_bfloat(narrowed_bfloat(w));
            }
            *y = sum;
        }
}

static void bfloat16_saturate(void *sums, uint32_t x, uint32_t w, size_t rounds) {
    float *sum = sums;
    for (size_t i = 0; i < 2 * rounds; i++) {
        int shift = i % 2 ? 16 : 0;
        *sum += widened_bfloat((uint16_t)(x >> shift)) * widened_bfloat((uint16_t)(w >> shift));
    }
}

// MARK: Products in int8

static float largest_magnitude(const float *x, size_t count) {
    uint32_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        // Magnitudes order like their bits, and NaN comes last.
        uint32_t magnitude = bits_of(x[i]) & 0x7fffffff;
        if (magnitude > largest) largest = magnitude;
    }
    return float_from_bits(largest);
}

static int8_t quantized(float x, float factor) {
    float scaled = x * factor;
    return scaled == scaled ? (int8_t)nearbyintf(scaled) : 0;
}

static void int8_pack_rows(uint32_t *packed, size_t panel, size_t panels, const float *x,
                           size_t stride, size_t rows, size_t k, quantized_row *description) {
    (void)stride, (void)rows;
    float magnitude = largest_magnitude(x, k), factor = quantization_factor(magnitude);
    int32_t total = 0;
    size_t lanes = (k + 3) / 4;
    for (size_t i = 0; i < lanes; i++) {
        uint32_t lane = 0;
        for (size_t j = 0; j < 4 && 4 * i + j < k; j++) {
            int8_t q = quantized(x[4 * i + j], factor);
            total += q;
            lane |= (uint32_t)(uint8_t)q << 8 * j;
        }
        packed[lane_place(i, lanes, panel, panels)] = lane;
    }
    description->scale = magnitude / 127;
    description->surplus = 128 * total;
}

static void int8_multiply(const product_task *t, uint32_t *workspace) {
    (void)workspace;
    size_t lanes = (t->k + 3) / 4;
    for (size_t row = t->first_panel; row < t->end_panel; row++)
        for (size_t column = 0; column < t->columns; column++) {
            int32_t *y = (int32_t *)t->sums + (row - t->first_panel) * t->stride + column;
            int32_t sum = t->accumulate ? *y : 0;
            for (size_t i = 0; i < t->k; i++) {
                uint32_t lane = t->packed[lane_place(i / 4, lanes, row, t->panels)];
                int32_t w = ((const int8_t *)t->w)[column * t->w_stride + i];
                sum += (int8_t)(lane >> i % 4 * 8) * (w + 128);
            }
            *y = sum;
        }
}

static void int8_saturate(void *sums, uint32_t x, uint32_t w, size_t rounds) {
    int32_t *sum = sums;
    for (size_t i = 0; i < 4 * rounds; i++) {
        // Else the compiler would find the total without a loop.
        __asm__("" : "+r"(x));
        int shift = i % 4 * 8;
        *sum += (int8_t)(x >> shift) * (uint8_t)(w >> shift);
    }
}

// MARK: Convolution

static void pack_weights(float *packed, const float *w, size_t columns, size_t k) {
    for (size_t column = 0; column < columns; column++)
        for (size_t i = 0; i < k; i++) packed[lane_place(i, k, column, columns)] = w[column * k + i];
}

static void convolve(const convolution_task *t, float *workspace) {
    (void)workspace;
    size_t width = output_width(&t->image), channels = t->image.channels;
    for (size_t i = 0; i < t->count; i++)
        for (size_t column = 0; column < t->columns; column++) {
            size_t pixel = t->first_pixel + i;
            float *y = t->y + i * t->columns + column;
            float sum = t->accumulate ? *y : 0;
            for (size_t tap = 0; tap < 9; tap++) {
                size_t offset = tap_offset(&t->image, pixel / width, pixel % width, tap);
                for (size_t c = 0; offset != no_pixel && c < channels; c++)
                    sum += t->source[offset + c] *
                           t->w[lane_place(tap * channels + c, 9 * channels, column, t->columns)];
            }
            *y = sum + t->bias[column];
        }
}

static void pack_pair_weights(uint32_t *packed, const float *w, size_t columns, size_t k) {
    for (size_t i = 0; i < columns * k; i += 2)
        packed[i / 2] = narrowed_bfloat(w[i]) | (uint32_t)narrowed_bfloat(w[i + 1]) << 16;
}

static void convolve_pairs(const pair_convolution_task *t, void *workspace) {
    (void)workspace;
    size_t width = output_width(&t->image), channels = t->image.channels;
    for (size_t i = 0; i < t->count; i++)
        for (size_t column = 0; column < t->columns; column++) {
            size_t pixel = t->first_pixel + i;
            float sum = 0;
            for (size_t tap = 0; tap < 9; tap++) {
                size_t offset = tap_offset(&t->image, pixel / width, pixel % width, tap);
                const uint32_t *w = t->w + (column * 9 + tap) * channels / 2;
                for (size_t c = 0; offset != no_pixel && c < channels; c++)
                    sum += widened_bfloat(t->source[offset + c]) *
                           widened_bfloat((uint16_t)(c % 2 ? w[c / 2] >> 16 : w[c / 2]));
            }
            t->sums[i * t->columns + column] = sum;
        }
}

// MARK: Attention

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
            score = score * t->scale + (t->key_logs ? t->key_logs[key] : 0);
            float maximum = fmaxf(largest, score), shrink = expf(largest - maximum);
            float weight = expf(score - maximum);
            largest = maximum;
            total = total * shrink + weight;
            for (size_t d = 0; d < t->head_size; d++)
                sums[d] = sums[d] * shrink + weight * t->v[key * t->kv_stride + d];
        }
        for (size_t d = 0; d < t->head_size; d++) t->o[i * t->o_stride + d] = sums[d] / total;
        if (t->log_sums) t->log_sums[i] = largest + logf(total);
    }
}

// One key and value to a block of its own.

static void pack_keys(uint32_t *packed, const uint16_t *k, const uint16_t *v, size_t stride,
                      size_t keys, size_t head_size) {
    for (size_t key = 0; key < keys; key++)
        for (size_t d = 0; d < head_size; d++)
            *packed++ = k[key * stride + d] | (uint32_t)v[key * stride + d] << 16;
}

static void attend_pairs(const pair_attention_task *t, float *workspace) {
    float *sums = workspace, *query = workspace + t->head_size;
    for (size_t i = 0; i < t->queries; i++) {
        size_t keys = t->causal ? smaller(t->keys, t->first_position + i + 1) : t->keys;
        float largest = -INFINITY, total = 0;
        for (size_t d = 0; d < t->head_size; d++) {
            query[d] = widened_bfloat(t->q[i * t->q_stride + d]);
            sums[d] = 0;
        }
        for (size_t key = 0; key < keys; key++) {
            const uint32_t *packed = t->packed + key * t->head_size;
            float score = 0;
            for (size_t d = 0; d < t->head_size; d++)
                score += query[d] * widened_bfloat((uint16_t)packed[d]);
            score = score * t->scale + (t->key_logs ? t->key_logs[key] : 0);
            float maximum = fmaxf(largest, score), shrink = expf(largest - maximum);
            float weight = expf(score - maximum);
            largest = maximum;
            total = total * shrink + weight;
            // Only products are rounded, the total of the weights is not.
            weight = widened_bfloat(narrowed_bfloat(weight));
            for (size_t d = 0; d < t->head_size; d++)
                sums[d] = sums[d] * shrink +
                          weight * widened_bfloat((uint16_t)(packed[d] >> 16));
        }
        for (size_t d = 0; d < t->head_size; d++) {
            float value = sums[d] / total;
            if (t->exact)
                t->exact[i * t->head_size + d] = value;
            else
                t->o[i * t->o_stride + d] = narrowed_bfloat(value);
        }
        if (t->log_sums) t->log_sums[i] = largest + logf(total);
    }
}

static void displace(const displacement_task *t) {
    for (size_t i = 0; i < t->queries; i++) {
        float lead = t->group_log_sums[i] + t->log_mass - t->base_log_sums[i];
        float odds = expf(lead > 80 ? 80 : lead);
        float share = t->by_mass ? odds : 1 / (1 + expf(-lead));
        t->shares[i] += fabsf(t->weight) * share;
        t->odds[i] += fabsf(t->weight) * odds;
        for (size_t d = i * t->head_size; d < (i + 1) * t->head_size; d++)
            t->displacements[d] += t->weight * share * (t->group[d] - t->base[d]);
    }
}

static void add_displacements(float *result, const float *displacements, const float *shares,
                              const float *odds, size_t queries, size_t head_size, bool by_mass) {
    for (size_t i = 0; i < queries; i++) {
        float factor = displacement_factor(shares[i], odds[i], by_mass);
        for (size_t d = i * head_size; d < (i + 1) * head_size; d++)
            result[d] += factor * displacements[d];
    }
}

// MARK: Rows

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

static void layer_norm(float *y, const float *x, const float *weight, const float *bias,
                       size_t rows, size_t width, float epsilon) {
    for (size_t row = 0; row < rows; row++, x += width, y += width) {
        float mean = 0, squares = 0;
        for (size_t i = 0; i < width; i++) mean += x[i];
        mean /= (float)width;
        for (size_t i = 0; i < width; i++) squares += (x[i] - mean) * (x[i] - mean);
        float inverse = 1 / sqrtf(squares / (float)width + epsilon);
        for (size_t i = 0; i < width; i++) y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
    }
}

static void head_norm(const head_norm_task *t) {
    size_t half = t->head_size / 2;
    for (size_t row = 0; row < t->rows; row++)
        for (size_t head = 0; head < t->heads; head++) {
            float *x = t->x + row * t->stride + head * t->head_size;
            if (t->weight)
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

static void gelu(float *x, size_t count) {
    // erfc does not cancel for negative x, as 1 + erf would.
    for (size_t i = 0; i < count; i++) x[i] = 0.5f * x[i] * erfcf(-0.7071067812f * x[i]);
}

static void gated_add(float *x, const float *y, const float *gate, size_t rows, size_t width) {
    for (size_t row = 0; row < rows; row++, x += width, y += width)
        for (size_t i = 0; i < width; i++) x[i] += gate ? gate[i] * y[i] : y[i];
}

static void multiply(float *x, const float *y, size_t count) {
    for (size_t i = 0; i < count; i++) x[i] *= y[i];
}

static void narrow(uint16_t *y, const float *x, size_t count) {
    for (size_t i = 0; i < count; i++) y[i] = narrowed_bfloat(x[i]);
}

static void widen(float *y, const void *x, weight_type type, size_t count) {
    for (size_t i = 0; i < count; i++) y[i] = widened(x, type, i);
}

static void rotate(float *x, size_t count, size_t group) {
    for (size_t distance = 1; distance < group; distance *= 4)
        for (size_t i = 0; i < count; i++) {
            if (i / distance % 4 != 0) continue;
            float *p = x + i, a = p[0], b = p[distance], c = p[2 * distance], d = p[3 * distance];
            float half = (a + b + c + d) * 0.5f;
            p[0] = half - d;
            p[distance] = half - c;
            p[2 * distance] = half - b;
            p[3 * distance] = half - a;
        }
}

static float quantize(int8_t *y, const float *x, size_t count) {
    float magnitude = largest_magnitude(x, count), factor = quantization_factor(magnitude);
    for (size_t i = 0; i < count; i++) y[i] = quantized(x[i], factor);
    return magnitude / 127;
}

static void dequantize(void *sums, size_t stride, const quantized_row *quantized, size_t rows,
                       size_t columns) {
    for (size_t row = 0; row < rows; row++)
        for (size_t i = 0; i < columns; i++) {
            int32_t q;
            float *y = (float *)sums + row * stride + i;
            memcpy(&q, y, sizeof q);
            *y = (float)(q - quantized[row].surplus) * quantized[row].scale;
        }
}

static bool all_finite(const float *x, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

#define PRODUCTS(arithmetic, elements)              \
    static const product_kernels arithmetic##_products = { \
        .row_panel = 1,                             \
        .column_panel = 1,                          \
        .group = elements,                          \
        .pack_rows = arithmetic##_pack_rows,        \
        .multiply = arithmetic##_multiply,          \
        .saturate = arithmetic##_saturate,          \
    }
PRODUCTS(float32, 1);
PRODUCTS(bfloat16, 2);
PRODUCTS(int8, 4);

static const pair_kernels bfloat16_pairs = {
    .queries = 1,
    .channel_panel = 1,
    .pack_keys = pack_keys,
    .attend = attend_pairs,
    .pack_weights = pack_pair_weights,
    .convolve = convolve_pairs,
};

enum { query_panel = 1 };
#include "vector/table.h"

const kernel_table kernels_scalar =
    TABLE("scalar", &bfloat16_products, &int8_products, &bfloat16_pairs);
