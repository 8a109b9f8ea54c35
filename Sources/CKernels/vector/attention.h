// Attention with a streaming softmax: no score matrix, only [attention_keys, query_panel] of it.
//
// Everything is transposed: scores are [keys, queries] and sums [head_size, queries], so maximum,
// exponential and sum run down the lanes without shuffles, and keys and values are read as they
// lie, one broadcast at a time.

enum { query_panel = 3 * LANES };

/// sums [KEYS, query_panel] += Σ_i a[r][i] · b[i], for i < count.
///
/// a[r] is row r, whose elements are `step` floats apart.
INLINE void accumulate_products(vector sums[KEYS][3], const float *const a[KEYS], size_t step,
                                const float *b, size_t count) {
    for (size_t i = 0; i < count; i++, b += query_panel) {
        vector w[3] = {load(b), load(b + LANES), load(b + 2 * LANES)};
        UNROLL for (size_t r = 0; r < KEYS; r++) {
            vector x = broadcast(a[r][i * step]);
            PIN(x);
            UNROLL for (size_t j = 0; j < 3; j++) sums[r][j] = multiply_add(x, w[j], sums[r][j]);
        }
    }
}

/// scores [count, query_panel] = scale · k · queriesᵀ for keys first ..< first + count.
static void score_keys(float *scores, const attention_task *t, const float *queries, size_t first,
                       size_t count) {
    for (size_t key = 0; key < count; key += KEYS) {
        const float *rows[KEYS];
        // Past the end the last key stands in; its scores are not stored.
        for (size_t r = 0; r < KEYS; r++)
            rows[r] = t->k + (first + smaller(key + r, count - 1)) * t->kv_stride;
        vector sums[KEYS][3] = {};
        accumulate_products(sums, rows, 1, queries, t->head_size);
        for (size_t r = 0; r < KEYS && key + r < count; r++)
            for (size_t j = 0; j < 3; j++)
                store(scores + (key + r) * query_panel + j * LANES, sums[r][j] * t->scale);
    }
}

/// Adds the logarithms of how often keys count.
static void add_key_logs(float *scores, const float *logs, size_t count) {
    for (size_t key = 0; key < count; key++, scores += query_panel)
        for (size_t j = 0; j < query_panel; j += LANES)
            store(scores + j, load(scores + j) + logs[key]);
}

/// Hides the keys after each query.
static void mask_later_keys(float *scores, const attention_task *t, size_t first, size_t count) {
    for (size_t key = 0; key < count; key++)
        for (size_t i = 0; i < query_panel && t->first_position + i < first + key; i++)
            scores[key * query_panel + i] = -INFINITY;
}

/// sums [head_size, query_panel] = shrink · sums + vᵀ · weights over keys first ..< first + count.
static void add_values(float *sums, const attention_task *t, const float *weights,
                       const vector shrink[3], size_t first, size_t count) {
    for (size_t d = 0; d < t->head_size; d += KEYS) {
        const float *columns[KEYS];
        vector totals[KEYS][3];
        UNROLL for (size_t r = 0; r < KEYS; r++) {
            size_t element = smaller(d + r, t->head_size - 1);
            columns[r] = t->v + first * t->kv_stride + element;
            UNROLL for (size_t j = 0; j < 3; j++)
                totals[r][j] = load(sums + element * query_panel + j * LANES) * shrink[j];
        }
        accumulate_products(totals, columns, t->kv_stride, weights, count);
        for (size_t r = 0; r < KEYS && d + r < t->head_size; r++)
            for (size_t j = 0; j < 3; j++)
                store(sums + (d + r) * query_panel + j * LANES, totals[r][j]);
    }
}

static void attend(const attention_task *t, float *workspace) {
    float *queries = workspace, *sums = queries + t->head_size * query_panel;
    float *scores = sums + t->head_size * query_panel;
    memset(queries, 0, 2 * t->head_size * query_panel * sizeof *queries);
    for (size_t i = 0; i < t->queries; i++)
        for (size_t d = 0; d < t->head_size; d++)
            queries[d * query_panel + i] = t->q[i * t->q_stride + d];
    vector largest[3], total[3] = {};
    for (size_t j = 0; j < 3; j++) largest[j] = broadcast(-1e30f);

    size_t keys = t->causal ? smaller(t->keys, t->first_position + t->queries) : t->keys;
    for (size_t first = 0; first < keys; first += attention_keys) {
        size_t count = smaller(attention_keys, keys - first);
        score_keys(scores, t, queries, first, count);
        if (t->key_logs) add_key_logs(scores, t->key_logs + first, count);
        if (t->causal && first + count > t->first_position)
            mask_later_keys(scores, t, first, count);

        vector shrink[3];
        for (size_t j = 0; j < 3; j++) {
            vector maximum = largest[j];
            for (size_t key = 0; key < count; key++)
                maximum = __builtin_elementwise_max(
                    maximum, load(scores + key * query_panel + j * LANES));
            shrink[j] = exponential(largest[j] - maximum);
            total[j] *= shrink[j];
            largest[j] = maximum;
            for (size_t key = 0; key < count; key++) {
                float *score = scores + key * query_panel + j * LANES;
                vector weight = exponential(load(score) - maximum);
                total[j] += weight;
                store(score, weight);
            }
        }
        add_values(sums, t, scores, shrink, first, count);
    }

    float totals[query_panel];
    for (size_t j = 0; j < 3; j++) store(totals + j * LANES, total[j]);
    for (size_t i = 0; i < t->queries; i++)
        for (size_t d = 0; d < t->head_size; d++)
            t->o[i * t->o_stride + d] = sums[d * query_panel + i] / totals[i];
    for (size_t i = 0; t->log_sums && i < t->queries; i++)
        t->log_sums[i] = largest[i / LANES][i % LANES] + logf(totals[i]);
}
