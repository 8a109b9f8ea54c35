// Attention in bfloat16 with a streaming softmax in float32; transposed like the one in float32.
//
// Keys and values are packed once for all query heads that read them, queries by each task. Four
// panels of queries share each block of keys, which then comes from the second-level cache.

enum { pair_panel = 3 * LANES, pair_panels = 4, pair_keys = 8 };

_Static_assert(attention_keys % pair_keys == 0, "a block has whole groups of keys");

/// Lanes of `count` elements in pairs.
static inline size_t pairs(size_t count) { return (count + 1) / 2; }

/// Elements `element` and `element + 1` of a row as a lane; zero past the end.
static inline uint32_t pair_at(const uint16_t *row, size_t element, size_t count) {
    uint32_t low = element < count ? row[element] : 0;
    return low | (uint32_t)(element + 1 < count ? row[element + 1] : 0) << 16;
}

static void pack_keys(uint32_t *packed, const uint16_t *k, const uint16_t *v, size_t stride,
                      size_t keys, size_t head_size) {
    for (size_t first = 0; first < keys; first += attention_keys) {
        size_t count = smaller(attention_keys, keys - first);
        for (size_t key = 0; key < attention_keys; key += pair_keys)
            for (size_t i = 0; i < pairs(head_size); i++)
                for (size_t r = 0; r < pair_keys; r++)
                    *packed++ = key + r < count
                        ? pair_at(k + (first + key + r) * stride, 2 * i, head_size) : 0;
        for (size_t d = 0; d < head_size; d += pair_keys)
            for (size_t key = 0; key < attention_keys; key += 2)
                for (size_t r = 0; r < pair_keys; r++) {
                    const uint16_t *column = v + (first + key) * stride + d + r;
                    bool inside = d + r < head_size;
                    uint32_t low = inside && key < count ? column[0] : 0;
                    uint32_t high = inside && key + 1 < count ? column[stride] : 0;
                    *packed++ = low | high << 16;
                }
    }
}

/// sums [pair_keys, pair_panel] += a · b over `count` lanes.
INLINE void accumulate_pairs(vector sums[pair_keys][3], const uint32_t *a, const uint32_t *b,
                             size_t count) {
    for (; count > 0; count--, a += pair_keys, b += pair_panel) {
        vector w[3];
        UNROLL for (size_t j = 0; j < 3; j++) w[j] = load((const float *)b + j * LANES);
        UNROLL for (size_t r = 0; r < pair_keys; r++) {
            vector x = broadcast_lane(a + r);
            PIN(x);
            UNROLL for (size_t j = 0; j < 3; j++) sums[r][j] = bfloat16_step(sums[r][j], x, w[j]);
        }
    }
}

/// 2^x within 3e-7 relative for x <= 0; 0 below −126, NaN for NaN.
INLINE vector power_of_two(vector x) {
    __mmask16 kept = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-126), _CMP_NLT_UQ);
    vector n = (vector)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vector f = x - n;
    // Taylor series of 2^f: the remainder is below 2e-7 for |f| <= 1/2.
    vector p = broadcast(1.5403530e-4f);
    p = multiply_add(p, f, broadcast(1.3333558e-3f));
    p = multiply_add(p, f, broadcast(9.6181291e-3f));
    p = multiply_add(p, f, broadcast(5.5504109e-2f));
    p = multiply_add(p, f, broadcast(2.4022651e-1f));
    p = multiply_add(p, f, broadcast(6.9314718e-1f));
    p = multiply_add(p, f, broadcast(1));
    return (vector)_mm512_maskz_scalef_ps(kept, (__m512)p, (__m512)n);
}

/// Packs up to pair_panel queries: [pairs(head_size)][pair_panel].
static void pack_queries(uint32_t *packed, const uint16_t *q, size_t stride, size_t queries,
                         size_t head_size) {
    for (size_t column = 0; column < pair_panel; column += LANES)
        for (size_t i = 0; i < pairs(head_size); i += LANES) {
            vector v[LANES] = {};
            for (size_t r = 0; r < LANES && column + r < queries; r++) {
                const uint16_t *row = q + (column + r) * stride;
                uint32_t lanes[LANES] = {};
                size_t left = smaller(2 * LANES, head_size - 2 * i);
                memcpy(lanes, row + 2 * i, left * sizeof *row);
                v[r] = load((const float *)lanes);
            }
            transpose(v);
            for (size_t lane = 0; lane < LANES && i + lane < pairs(head_size); lane++)
                store((float *)packed + (i + lane) * pair_panel + column, v[lane]);
        }
}

/// What a panel of queries has seen so far.
typedef struct {
    vector largest[3], total[3];
} softmax_state;

/// scores [count, pair_panel] in units of ln 2, hidden keys −∞; raises state->largest.
static void score_pairs(float *scores, const pair_attention_task *t, const uint32_t *keys,
                        const uint32_t *queries, size_t position, size_t first, size_t count,
                        softmax_state *state) {
    vector scale = broadcast(t->scale * 1.44269504f);
    vector m[3] = {state->largest[0], state->largest[1], state->largest[2]};
    for (size_t key = 0; key < count; key += pair_keys) {
        vector sums[pair_keys][3] = {};
        accumulate_pairs(sums, keys + key * pairs(t->head_size), queries, pairs(t->head_size));
        // Before they are scaled.
        if (t->key_logs)
            UNROLL for (size_t r = 0; r < pair_keys; r++) {
                float log = t->key_logs[first + smaller(key + r, count - 1)] / t->scale;
                UNROLL for (size_t j = 0; j < 3; j++) sums[r][j] += log;
            }
        float *target = scores + key * pair_panel;
        bool all = key + pair_keys <= count &&
                   (!t->causal || first + key + pair_keys <= position + 1);
        UNROLL for (size_t r = 0; r < pair_keys; r++)
            UNROLL for (size_t j = 0; j < 3; j++) {
                sums[r][j] *= scale;
                if (all) m[j] = (vector)_mm512_max_ps((__m512)sums[r][j], (__m512)m[j]);
                store(target + r * pair_panel + j * LANES, sums[r][j]);
            }
        if (all) continue;
        for (size_t r = 0; r < pair_keys; r++) {
            float *row = target + r * pair_panel;
            for (size_t i = 0; i < pair_panel; i++)
                if (key + r >= count || (t->causal && position + i < first + key + r))
                    row[i] = -INFINITY;
            for (size_t j = 0; j < 3; j++)
                m[j] = (vector)_mm512_max_ps((__m512)load(row + j * LANES), (__m512)m[j]);
        }
    }
    for (size_t j = 0; j < 3; j++) state->largest[j] = m[j];
}

/// weights [pairs(count)][pair_panel]: 2^(score − largest) in bfloat16; adds them to state->total.
static void weigh_pairs(uint32_t *weights, const float *scores, size_t count, softmax_state *state) {
    for (size_t j = 0; j < 3; j++) {
        vector total = state->total[j], largest = state->largest[j];
        for (size_t key = 0; key < count; key += 2) {
            const float *row = scores + key * pair_panel + j * LANES;
            vector low = power_of_two(load(row) - largest);
            vector high = key + 1 < count ? power_of_two(load(row + pair_panel) - largest) : (vector){};
            total += low + high;
            // Both halves of a lane belong to one query.
            integers rounded = (integers)low + 0x7fff + ((integers)low >> 16 & 1);
            integers upper = (integers)high + 0x7fff + ((integers)high >> 16 & 1);
            integers lane = (rounded >> 16 & 0xffff) | (upper & (int32_t)0xffff0000);
            store((float *)weights + key / 2 * pair_panel + j * LANES, (vector)lane);
        }
        state->total[j] = total;
    }
}

/// sums [head_size in whole groups, pair_panel] = shrink · sums + vᵀ · weights over `count` keys.
static void add_pairs(float *sums, const uint32_t *values, const uint32_t *weights,
                      const vector shrink[3], size_t head_size, size_t count) {
    for (size_t d = 0; d < head_size; d += pair_keys) {
        vector totals[pair_keys][3];
        float *target = sums + d * pair_panel;
        UNROLL for (size_t r = 0; r < pair_keys; r++)
            UNROLL for (size_t j = 0; j < 3; j++)
                totals[r][j] = load(target + r * pair_panel + j * LANES) * shrink[j];
        accumulate_pairs(totals, values + d * pairs(attention_keys), weights, pairs(count));
        UNROLL for (size_t r = 0; r < pair_keys; r++)
            UNROLL for (size_t j = 0; j < 3; j++)
                store(target + r * pair_panel + j * LANES, totals[r][j]);
    }
}

/// Writes sums / total as rows of bfloat16, or of float32.
static void write_queries(const pair_attention_task *t, size_t first, const float *sums,
                          const softmax_state *state) {
    size_t queries = smaller(pair_panel, t->queries - first);
    for (size_t j = 0; j < 3 && j * LANES < queries; j++) {
        vector inverse = 1 / state->total[j];
        for (size_t d = 0; d < t->head_size; d += LANES) {
            vector v[LANES] = {};
            size_t count = smaller(LANES, t->head_size - d);
            for (size_t r = 0; r < count; r++)
                v[r] = load(sums + (d + r) * pair_panel + j * LANES) * inverse;
            transpose(v);
            for (size_t r = 0; r < LANES && j * LANES + r < queries; r++) {
                size_t query = first + j * LANES + r;
                if (t->exact) {
                    store_partial(t->exact + query * t->head_size + d, v[r], count);
                    continue;
                }
                __m256bh row = _mm512_cvtneps_pbh((__m512)v[r]);
                memcpy(t->o + query * t->o_stride + d, &row, 2 * count);
            }
        }
        for (size_t r = 0; t->log_sums && r < LANES && j * LANES + r < queries; r++)
            t->log_sums[first + j * LANES + r] =
                state->largest[j][r] * 0.693147181f + logf(state->total[j][r]);
    }
}

static void attend_pairs(const pair_attention_task *t, float *workspace) {
    size_t depth = pairs(t->head_size) * pair_panel;
    size_t width = (t->head_size + pair_keys - 1) / pair_keys * pair_keys * pair_panel;
    uint32_t *queries = (uint32_t *)workspace;
    float *sums = workspace + pair_panels * depth, *scores = sums + pair_panels * width;
    uint32_t *weights = (uint32_t *)(scores + attention_keys * pair_panel);
    size_t panels = (t->queries + pair_panel - 1) / pair_panel;
    softmax_state states[pair_panels];
    memset(sums, 0, panels * width * sizeof *sums);
    for (size_t p = 0; p < panels; p++) {
        for (size_t j = 0; j < 3; j++) {
            states[p].largest[j] = broadcast(-1e30f);
            states[p].total[j] = (vector){};
        }
        pack_queries(queries + p * depth, t->q + p * pair_panel * t->q_stride, t->q_stride,
                     t->queries - p * pair_panel, t->head_size);
    }
    size_t keys = t->causal ? smaller(t->keys, t->first_position + t->queries) : t->keys;
    size_t values = attention_keys * pairs(t->head_size);
    size_t block = values + width / pair_panel * pairs(attention_keys);
    for (size_t first = 0; first < keys; first += attention_keys) {
        const uint32_t *packed = t->packed + first / attention_keys * block;
        size_t count = smaller(attention_keys, keys - first);
        for (size_t p = 0; p < panels; p++) {
            softmax_state *state = states + p;
            vector before[3] = {state->largest[0], state->largest[1], state->largest[2]}, shrink[3];
            score_pairs(scores, t, packed, queries + p * depth,
                        t->first_position + p * pair_panel, first, count, state);
            for (size_t j = 0; j < 3; j++) {
                shrink[j] = power_of_two(before[j] - state->largest[j]);
                state->total[j] *= shrink[j];
            }
            weigh_pairs(weights, scores, count, state);
            add_pairs(sums + p * width, packed + values, weights, shrink, t->head_size, count);
        }
    }
    for (size_t p = 0; p < panels; p++)
        write_queries(t, p * pair_panel, sums + p * width, states + p);
}
