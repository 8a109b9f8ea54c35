// What groups of keys add to attention over other keys.

static void displace(const displacement_task *t) {
    for (size_t first = 0; first < t->queries; first += LANES) {
        size_t count = smaller(LANES, t->queries - first);
        vector lead = load_partial(t->group_log_sums + first, count) + t->log_mass -
                      load_partial(t->base_log_sums + first, count);
        // A comparison, not a minimum, which would lose a NaN.
        vector odds = exponential(pick(lead > broadcast(80), broadcast(80), lead));
        vector share = t->by_mass ? odds : sigmoid(lead), magnitude = broadcast(fabsf(t->weight));
        float *shares = t->shares + first, *all_odds = t->odds + first, factors[LANES];
        store_partial(shares, load_partial(shares, count) + magnitude * share, count);
        store_partial(all_odds, load_partial(all_odds, count) + magnitude * odds, count);
        store(factors, t->weight * share);
        for (size_t r = 0; r < count; r++) {
            size_t row = (first + r) * t->head_size;
            vector factor = broadcast(factors[r]);
            for (size_t d = 0; d < t->head_size; d += LANES) {
                size_t left = t->head_size - d;
                vector sum = load_partial(t->displacements + row + d, left);
                vector step = load_partial(t->group + row + d, left) -
                              load_partial(t->base + row + d, left);
                sum = multiply_add(factor, step, sum);
                store_partial(t->displacements + row + d, sum, left);
            }
        }
    }
}

static void add_displacements(float *result, const float *displacements, const float *shares,
                              const float *odds, size_t queries, size_t head_size, bool by_mass) {
    for (size_t i = 0; i < queries; i++, result += head_size, displacements += head_size) {
        vector factor = broadcast(displacement_factor(shares[i], odds[i], by_mass));
        for (size_t d = 0; d < head_size; d += LANES) {
            size_t left = head_size - d;
            vector sum = load_partial(result + d, left);
            sum = multiply_add(factor, load_partial(displacements + d, left), sum);
            store_partial(result + d, sum, left);
        }
    }
}
