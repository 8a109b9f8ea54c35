// Numeric kernels and the tables that choose between their implementations.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma clang assume_nonnull begin

/// How an element of a weight matrix is stored. The float8 types are those without (E4M3) and with
/// (E5M2) infinities.
typedef enum __attribute__((enum_extensibility(closed))) {
    weight_float32,
    weight_float16,
    weight_bfloat16,
    weight_float8_e4m3,
    weight_float8_e5m2,
    weight_int8,
} weight_type;

/// What a product multiplies. Sums are float32, or int32 for int8, which is exact.
typedef enum __attribute__((enum_extensibility(closed))) {
    arithmetic_float32,
    arithmetic_bfloat16,
    arithmetic_int8,
} arithmetic;

/// One row of activations as `pack_rows` of int8 arithmetic has quantised it.
typedef struct {
    /// Its elements are about scale · q with q in −127 ... 127.
    float scale;
    /// 128 · Σ q, which is in every sum of products, since weights are packed as w + 128.
    int32_t surplus;
} quantized_row;

/// Products of the rows of some packed panels with a block of weights: sums = x wᵀ.
typedef struct {
    /// First element of the block: [rows of the panels, columns in whole panels], float32 or, for
    /// int8, int32, rows `stride` elements apart. Rows and columns of padding are written, too.
    void *sums;
    size_t stride;
    /// Rows packed by `pack_rows`, all `panels` of them.
    const uint32_t *packed;
    size_t panels;
    /// The panels to compute, first ..< end.
    size_t first_panel, end_panel;
    /// Weights of the block: [columns, k], rows `w_stride` elements apart.
    const void *w;
    weight_type w_type;
    size_t w_stride;
    size_t columns, k;
    /// Adds to `sums` instead of overwriting them.
    bool accumulate;
} product_task;

/// Products in one arithmetic. Elements are packed in lanes of 32 bits.
typedef struct {
    /// Rows of a packed panel of activations, and columns of one of weights.
    size_t row_panel, column_panel;
    /// Consecutive elements of k in a lane: 1, 2 or 4.
    size_t group;

    /// Packs x [rows, k], at most `row_panel` rows, as panel number `panel` of `panels`.
    ///
    /// Layout: [blocks of k][panels][lanes of the block][row_panel], with `lane_block` lanes in all
    /// blocks but the last; what is missing is zero. bfloat16 rounds to nearest even; int8
    /// quantises each row by its largest element and describes it in `quantized`.
    void (*pack_rows)(uint32_t *packed, size_t panel, size_t panels, const float *x, size_t stride,
                      size_t rows, size_t k, quantized_row *_Nullable quantized);

    /// Runs one task; workspace: [lane_block · column_panel] lanes.
    void (*multiply)(const product_task *task, uint32_t *workspace);

    /// Multiplies in registers alone, which is the most that `multiply` could reach: adds the
    /// products of two lanes of elements, `x` of rows and `w` of weights as packed, to each of the
    /// sums [row_panel, column_panel], `rounds` times.
    ///
    /// A round is 2 · row_panel · column_panel · group multiplications and additions.
    void (*saturate)(void *sums, uint32_t x, uint32_t w, size_t rounds);
} product_kernels;

/// The rows of an image that a 3×3 convolution reads.
///
/// The image may be seen through nearest-neighbour upsampling, which is index arithmetic here.
typedef struct {
    /// Rows `first_row` ..< `first_row + row_count` of the image: [rows, width, channels].
    size_t first_row, row_count;
    /// Size of the image; the output is `upsampling` times as large and `stride` times as small.
    /// Rows outside the image are zero; rows inside it that an output pixel needs must be there.
    size_t height, width, channels;
    /// 1, or 2 for nearest-neighbour upsampling before the convolution.
    size_t upsampling;
    /// 1, with zero padding of one pixel on all sides; or 2, with padding at the bottom and on the
    /// right alone: output pixel (r, c) then reads rows 2r to 2r + 2 and columns 2c to 2c + 2.
    size_t stride;
} convolved_image;

/// Consecutive output pixels of a 3×3 convolution.
typedef struct {
    /// First output pixel: [count, columns].
    float *y;
    /// Index of that pixel in the output image, row-major, and the number of pixels.
    size_t first_pixel, count;
    const float *source;
    convolved_image image;
    /// Weights packed by `pack_weights` from [columns, 3 · 3 · channels].
    const float *w;
    size_t columns;
    /// [columns].
    const float *bias;
    /// Adds to y instead of overwriting it.
    bool accumulate;
} convolution_task;

/// Consecutive output pixels of a 3×3 convolution of bfloat16 pixels, with sums in float32.
typedef struct {
    /// [count in whole groups of 8, columns in whole panels].
    float *sums;
    /// Index of the first pixel in the output image, row-major, and the number of pixels.
    size_t first_pixel, count;
    /// The channels are even.
    const uint16_t *source;
    convolved_image image;
    /// Weights packed by `pack_pair_weights` from [columns, 3 · 3 · channels].
    const uint32_t *w;
    size_t columns;
} pair_convolution_task;

/// Attention of up to `query_panel` consecutive queries of one head over all keys of its group.
typedef struct {
    /// [queries, head_size], rows `o_stride` apart; may be the memory of q.
    float *o;
    size_t o_stride;
    const float *q;
    size_t q_stride;
    /// [keys, head_size], rows `kv_stride` apart.
    const float *k;
    const float *v;
    size_t kv_stride;
    size_t queries, keys, head_size;
    /// Factor of the scores before the softmax.
    float scale;
    /// Query i reads keys 0 ... first_position + i only.
    bool causal;
    size_t first_position;
    /// Receives the logarithm of each query's sum of exponentials: [queries]; NULL for none.
    float *_Nullable log_sums;
    /// Added to the scores, the logarithm of how often each key counts: [keys]; NULL for once.
    const float *_Nullable key_logs;
} attention_task;

/// The same in bfloat16, up to `pair_queries` queries, with keys and values packed by `pack_keys`.
typedef struct {
    /// [queries, head_size], rows `o_stride` apart; may be the memory of q.
    uint16_t *o;
    size_t o_stride;
    const uint16_t *q;
    size_t q_stride;
    const uint32_t *packed;
    size_t queries, keys, head_size;
    float scale;
    bool causal;
    size_t first_position;
    float *_Nullable log_sums;
    const float *_Nullable key_logs;
    /// Receives the result in float32, and o nothing: [queries, head_size]; NULL for none.
    float *_Nullable exact;
} pair_attention_task;

/// What a group of keys does to attention over other keys, the base.
///
/// With r the group's sum of exponentials by the base's, at most e^80, and f = r / (1 + r), the
/// share that the group would have in a softmax over both.
typedef struct {
    /// Sums over the groups of a family so far: of w f (group − base), [queries, head_size]; of
    /// |w| f and of |w| r, [queries].
    float *displacements;
    float *shares;
    float *odds;
    /// Attention over the base alone and over the group alone, [queries, head_size], and the
    /// logarithms of their sums of exponentials, [queries].
    const float *base;
    const float *base_log_sums;
    const float *group;
    const float *group_log_sums;
    size_t queries, head_size;
    /// Weight w of the group, and the logarithm of what its sums of exponentials are multiplied by.
    float weight, log_mass;
    /// Sums w r (group − base) and |w| r instead of w f (group − base) and |w| f.
    bool by_mass;
} displacement_task;

/// Root-mean-square norm of each head, if wanted, then rotary embedding, in place.
typedef struct {
    /// [rows, heads, head_size], rows `stride` apart.
    float *x;
    size_t stride, rows, heads, head_size;
    /// [head_size]; the factor is offset + weight. NULL for no norm.
    const float *_Nullable weight;
    float offset, epsilon;
    /// [rows, head_size / 2], or NULL for no rotation.
    const float *_Nullable cosine;
    const float *_Nullable sine;
    /// Rotates elements (2m, 2m + 1) if set, else (m, m + head_size / 2).
    bool adjacent_pairs;
} head_norm_task;

/// Attention and convolution in bfloat16, two elements to a lane.
typedef struct {
    /// Queries that `attend` takes at once.
    size_t queries;
    /// Columns in a packed panel of a convolution's weights.
    size_t channel_panel;

    /// Packs the keys and values [keys, head_size] of one head, rows `stride` apart.
    ///
    /// For each block of `attention_keys` keys, `packed` takes attention_keys · ⌈head_size / 2⌉
    /// lanes of keys and attention_keys / 2 · head_size, in whole groups of 8, of values.
    void (*pack_keys)(uint32_t *packed, const uint16_t *k, const uint16_t *v, size_t stride,
                      size_t keys, size_t head_size);

    /// Runs one task; workspace: [(3 · (head_size + 8) / 2 + attention_keys) · queries] floats.
    void (*attend)(const pair_attention_task *task, float *workspace);

    /// Packs w [columns, 9 · channels], which are even: [panels][9 · channels / 2][channel_panel].
    void (*pack_weights)(uint32_t *packed, const float *w, size_t columns, size_t k);

    /// Runs one task; workspace: [channels] of 16 bits.
    void (*convolve)(const pair_convolution_task *task, void *workspace);
} pair_kernels;

/// One implementation of every kernel. Immutable, so Swift may share it between threads.
typedef struct __attribute__((swift_attr("@Sendable"))) {
    /// "scalar", "generic", "avx2", "avx512"; printed by `krea2 info` and the benchmarks.
    const char *name;

    /// Products by `arithmetic`; NULL where the level has no instructions for it.
    const product_kernels *_Nullable products[3];

    /// Rotates each group of x [count] by the Hadamard matrix H_group, which is its own inverse.
    ///
    /// H_4 = ½ [[1, 1, 1, −1], [1, 1, −1, 1], [1, −1, 1, 1], [−1, 1, 1, 1]], H_4G = H_G ⊗ H_4. The
    /// group is a power of 4 that divides the count.
    void (*rotate)(float *x, size_t count, size_t group);

    /// Quantises x [count] by its largest element to y in −127 ... 127; returns the scale.
    float (*quantize)(int8_t *y, const float *x, size_t count);

    /// y = (float)(q − surplus of its row) · scale of its row, in place: [rows, columns].
    void (*dequantize)(void *sums, size_t stride, const quantized_row *rows_quantized, size_t rows,
                       size_t columns);

    /// y[i] = x[i], rounded to bfloat16, to nearest even.
    void (*narrow)(uint16_t *y, const float *x, size_t count);

    /// y[i] = x[i].
    void (*widen)(float *y, const void *x, weight_type type, size_t count);

    /// Queries that `attend` takes at once.
    size_t query_panel;

    /// Packs w [columns, k] for `convolve`: [k / lane_block][panels][lane_block][column_panel], with
    /// the column panels of float32 products.
    void (*pack_weights)(float *packed, const float *w, size_t columns, size_t k);

    /// Runs one task; workspace: [convolution_pixels · lane_block] floats.
    void (*convolve)(const convolution_task *task, float *workspace);

    /// Runs one task; workspace: [(2 · head_size + attention_keys) · query_panel] floats.
    void (*attend)(const attention_task *task, float *workspace);

    /// The same in bfloat16, or NULL where the level has no products of it.
    const pair_kernels *_Nullable pairs;

    /// Adds a group to the sums of its family; see `displacement_task`.
    void (*displace)(const displacement_task *task);

    /// result += min(1, C / A) · displacements, with A = shares and C = odds / (1 + odds), which is
    /// what the groups' share would be if their masses were multiplied by |w|; with `by_mass`,
    /// result += displacements / (1 + odds).
    ///
    /// result: [queries, head_size]; the others as in `displacement_task`.
    void (*add_displacements)(float *result, const float *displacements, const float *shares,
                              const float *odds, size_t queries, size_t head_size, bool by_mass);

    /// y[r] = x[r] · 1/sqrt(mean(x[r]²) + epsilon) · (offset + weight), then, unless scale is
    /// NULL, y[r] = (1 + scale) · y[r] + shift.
    ///
    /// x, y: [rows, width], may be the same memory. weight, scale, shift: [width].
    void (*rms_norm)(float *y, const float *x, const float *weight, const float *_Nullable scale,
                     const float *_Nullable shift, size_t rows, size_t width, float offset,
                     float epsilon);

    /// y[r] = (x[r] − mean x[r]) · 1/sqrt(variance x[r] + epsilon) · weight + bias.
    ///
    /// x, y: [rows, width], may be the same memory. weight, bias: [width].
    void (*layer_norm)(float *y, const float *x, const float *weight, const float *bias,
                       size_t rows, size_t width, float epsilon);

    /// See `head_norm_task`.
    void (*head_norm)(const head_norm_task *task);

    /// y[r] = x[r] / max(‖x[r]‖, 1e-12) · sqrt(width) · gamma, then x · sigmoid(x) if `silu`.
    ///
    /// x, y: [rows, width], may be the same memory. gamma: [width].
    void (*channel_norm)(float *y, const float *x, const float *gamma, size_t rows, size_t width,
                         bool silu);

    /// gate[i] = gate[i] · sigmoid(gate[i]) · up[i].
    void (*silu_multiply)(float *gate, const float *up, size_t count);

    /// x[i] = x[i] · sigmoid(gate[i]).
    void (*sigmoid_multiply)(float *x, const float *gate, size_t count);

    /// x[i] = 0.5 x (1 + tanh(sqrt(2/π) (x + 0.044715 x³))).
    void (*gelu_tanh)(float *x, size_t count);

    /// x[i] = 0.5 x (1 + erf(x / sqrt(2))).
    void (*gelu)(float *x, size_t count);

    /// x[r] += gate · y[r]; gate: [width], or NULL for 1.
    void (*gated_add)(float *x, const float *y, const float *_Nullable gate, size_t rows,
                      size_t width);

    /// x[i] = x[i] · y[i].
    void (*multiply)(float *x, const float *y, size_t count);

    /// Whether no element is infinite or not a number.
    bool (*all_finite)(const float *x, size_t count);
} kernel_table;

/// Lanes of k that are packed together.
enum { lane_block = 192 };
/// Most pixels one `convolution_task` may have.
enum { convolution_pixels = 192 };
/// Keys whose scores `attend` holds at once.
enum { attention_keys = 128 };

/// What the choice of a table depends on.
enum {
    /// AVX2, FMA and F16C.
    cpu_avx2 = 1 << 0,
    cpu_avxvnni = 1 << 1,
    /// AVX-512 F, BW, VL and DQ.
    cpu_avx512 = 1 << 2,
    cpu_avx512vnni = 1 << 3,
    cpu_avx512bf16 = 1 << 4,
};

/// The fastest table this CPU can run; the same pointer on every call.
const kernel_table *kernels_best(void);

/// The fastest table for a CPU with these features, which need not be this one.
const kernel_table *kernels_best_with(uint32_t features);

/// The table called `name`, or NULL where this build or this CPU lacks it.
const kernel_table *_Nullable kernels_named(const char *name);

/// The name of the `index`th table this build knows, fastest first, or NULL past the last.
const char *_Nullable kernels_name_at(size_t index);

#pragma clang assume_nonnull end
