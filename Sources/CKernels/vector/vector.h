// Vectors of LANES floats, and the functions the kernels build on.
//
// The files of this folder are written once and compiled for each instruction set: a level file
// defines LANES (floats in a register), ROWS × (VECTORS · LANES) (the tile of a matrix product
// kept in registers), KEYS (the same for attention, × 3 vectors of queries) and FUSED (whether
// the CPU has fused multiply-add), sets the target and includes them. Nothing here depends on the
// alignment of its arguments, and every element is computed by the same instructions wherever it
// stands in an array, so results do not depend on how work is split.

typedef float vector __attribute__((vector_size(4 * LANES)));
typedef int32_t integers __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));
typedef int8_t signed_bytes __attribute__((vector_size(LANES)));
typedef float unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")

INLINE vector load(const float *p) { return *(const unaligned *)p; }
INLINE void store(float *p, vector v) { *(unaligned *)p = v; }
INLINE vector broadcast(float x) { return x - (vector){}; }

/// The 32 bits at `p` in all lanes.
INLINE vector broadcast_lane(const uint32_t *p) {
    int32_t lane;
    memcpy(&lane, p, sizeof lane);
    return (vector)(lane - (integers){});
}

/// The first `count` elements, then zeros; reads nothing past them.
INLINE vector load_partial(const float *p, size_t count) {
    if (count >= LANES) return load(p);
    vector v = {};
    memcpy(&v, p, count * sizeof *p);
    return v;
}

INLINE void store_partial(float *p, vector v, size_t count) {
    if (count >= LANES)
        store(p, v);
    else
        memcpy(p, &v, count * sizeof *p);
}

/// a · b + c.
INLINE vector multiply_add(vector a, vector b, vector c) {
#if FUSED
    return __builtin_elementwise_fma(a, b, c);
#else
    return a * b + c;
#endif
}

/// The lanes of `v` where `mask` is set, else zero.
INLINE vector keep(integers mask, vector v) { return (vector)(mask & (integers)v); }

/// a where `mask` is set, else b.
INLINE vector pick(integers mask, vector a, vector b) {
    return (vector)((mask & (integers)a) | (~mask & (integers)b));
}

/// LANES half-precision numbers, given by their bits, widened as `widened_half` does.
INLINE vector widened_halves(integers bits) {
    integers magnitude = bits & 0x7fff;
    vector special = (vector)(0x7f800000 | (magnitude & 0x3ff) << 13);
    vector value = pick(magnitude >= 0x7c00, special, (vector)(magnitude << 13) * 0x1p112f);
    return (vector)((integers)value | (bits & 0x8000) << 16);
}

/// LANES elements from `index` on of a row of weights, widened; exact.
INLINE vector load_widened(const void *row, weight_type type, size_t index) {
    switch (type) {
    case weight_float16:
    case weight_bfloat16: {
        halves narrow;
        memcpy(&narrow, (const uint16_t *)row + index, sizeof narrow);
        integers bits = __builtin_convertvector(narrow, integers);
        return type == weight_bfloat16 ? (vector)(bits << 16) : widened_halves(bits);
    }
    case weight_float8_e4m3:
    case weight_float8_e5m2: {
        bytes narrow;
        memcpy(&narrow, (const uint8_t *)row + index, sizeof narrow);
        integers bits = __builtin_convertvector(narrow, integers);
        if (type == weight_float8_e5m2) return widened_halves(bits << 8);
        // As `widened_e4m3` does.
        integers magnitude = bits & 0x7f;
        vector value = pick(magnitude == 0x7f, broadcast(NAN), (vector)(magnitude << 20) * 0x1p120f);
        return (vector)((integers)value | (bits & 0x80) << 24);
    }
    case weight_int8: {
        signed_bytes narrow;
        memcpy(&narrow, (const int8_t *)row + index, sizeof narrow);
        return __builtin_convertvector(__builtin_convertvector(narrow, integers), vector);
    }
    case weight_float32: break;
    }
    return load((const float *)row + index);
}

#if LANES == 16
#define SHUFFLE_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define SHUFFLE_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif LANES == 8
#define SHUFFLE_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define SHUFFLE_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define SHUFFLE_LOW 0, 4, 1, 5
#define SHUFFLE_HIGH 2, 6, 3, 7
#endif

/// Lane j of v[i] becomes lane i of v[j]: shuffled like a deck of cards log2(LANES) times.
INLINE void transpose(vector v[LANES]) {
    UNROLL for (size_t width = 1; width < LANES; width *= 2) {
        vector next[LANES];
        UNROLL for (size_t i = 0; i < LANES / 2; i++) {
            next[2 * i] = __builtin_shufflevector(v[i], v[i + LANES / 2], SHUFFLE_LOW);
            next[2 * i + 1] = __builtin_shufflevector(v[i], v[i + LANES / 2], SHUFFLE_HIGH);
        }
        UNROLL for (size_t i = 0; i < LANES; i++) v[i] = next[i];
    }
}

/// Sum of the lanes, always in the same order.
INLINE float sum_of_lanes(vector v) {
    float lanes[LANES];
    store(lanes, v);
    for (size_t width = LANES / 2; width > 0; width /= 2)
        for (size_t i = 0; i < width; i++) lanes[i] += lanes[i + width];
    return lanes[0];
}

/// e^x within 2 units in the last place; 0 below −87.3, clamped above 88, NaN for NaN.
INLINE vector exponential(vector x) {
    integers tiny = x < broadcast(-87.3f);
    // Comparisons, not minimum and maximum, which would lose a NaN.
    x = pick(x > broadcast(88), broadcast(88), pick(tiny, broadcast(-87.3f), x));
    // Adding 1.5 · 2^23 rounds to the nearest integer.
    const float magic = 12582912;
    vector n = multiply_add(x, broadcast(1.44269504f), broadcast(magic)) - magic;
    // ln 2 in two parts, the first exact when multiplied by n.
    vector r = multiply_add(n, broadcast(-0.693359375f), x);
    r = multiply_add(n, broadcast(2.12194440e-4f), r);
    // Taylor series to r^7: the remainder is below 1e-8 for |r| <= ln(2) / 2.
    vector p = broadcast(1.f / 5040);
    p = multiply_add(p, r, broadcast(1.f / 720));
    p = multiply_add(p, r, broadcast(1.f / 120));
    p = multiply_add(p, r, broadcast(1.f / 24));
    p = multiply_add(p, r, broadcast(1.f / 6));
    p = multiply_add(p, r, broadcast(0.5f));
    p = multiply_add(p, r, broadcast(1));
    p = multiply_add(p, r, broadcast(1));
    integers power = (__builtin_convertvector(n, integers) + 127) << 23;
    return keep(~tiny, p * (vector)power);
}

INLINE vector sigmoid(vector x) { return 1 / (1 + exponential(-x)); }
