// Numeric kernels and the tables that choose between their implementations.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma clang assume_nonnull begin

/// How a weight matrix is stored; kernels widen it to float32 while they pack it.
typedef enum __attribute__((enum_extensibility(closed))) {
    weight_float32,
    weight_float16,
    weight_bfloat16,
} weight_type;

/// One block of columns of y = x wᵀ + bias, for the rows of some packed panels.
typedef struct {
    /// First element of the block, in row 0 of the packed rows: [rows, columns], row-strided.
    float *y;
    size_t y_stride;
    /// Rows packed by `pack_rows`, all `panels` of them.
    const float *packed;
    size_t panels;
    /// The panels to compute, first ..< end.
    size_t first_panel, end_panel;
    /// Rows in all panels; the last panel may be partly filled.
    size_t rows;
    /// Weights of the block: [columns, k], rows `w_stride` elements apart.
    const void *w;
    weight_type w_type;
    size_t w_stride;
    size_t columns, k;
    /// [columns], or NULL for none.
    const float *_Nullable bias;
    /// Adds to y instead of overwriting it.
    bool accumulate;
} linear_task;

/// Consecutive output pixels of a 3×3 convolution with zero padding of one pixel.
///
/// The source may be seen through nearest-neighbour upsampling, which is index arithmetic here.
typedef struct {
    /// First output pixel: [count, columns].
    float *y;
    /// Index of that pixel in the output image, row-major, and the number of pixels.
    size_t first_pixel, count;
    /// Source rows `first_row` ..< `first_row + row_count` of the image: [rows, width, channels].
    const float *source;
    size_t first_row, row_count;
    /// Size of the source image; the output is `upsampling` times as large. Rows outside the
    /// image are zero; rows inside it that an output pixel needs must be in `source`.
    size_t height, width, channels;
    /// 1, or 2 for nearest-neighbour upsampling before the convolution.
    size_t upsampling;
    /// Weights packed by `pack_weights` from [columns, 3 · 3 · channels].
    const float *w;
    size_t columns;
    /// [columns].
    const float *bias;
    /// Adds to y instead of overwriting it.
    bool accumulate;
} convolution_task;

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
} attention_task;

/// Root-mean-square norm of each head, then rotary embedding, in place.
typedef struct {
    /// [rows, heads, head_size], rows `stride` apart.
    float *x;
    size_t stride, rows, heads, head_size;
    /// [head_size]; the factor is offset + weight.
    const float *weight;
    float offset, epsilon;
    /// [rows, head_size / 2], or NULL for no rotation.
    const float *_Nullable cosine;
    const float *_Nullable sine;
    /// Rotates elements (2m, 2m + 1) if set, else (m, m + head_size / 2).
    bool adjacent_pairs;
} head_norm_task;

/// One implementation of every kernel. Immutable, so Swift may share it between threads.
typedef struct __attribute__((swift_attr("@Sendable"))) {
    /// "scalar", "generic", "avx2", "avx512"; printed by `krea2 info` and the benchmarks.
    const char *name;

    /// Rows of a packed panel of activations, and of a packed panel of weights.
    size_t row_panel, column_panel;
    /// Elements of k that are packed together.
    size_t k_block;
    /// Queries that `attend` takes at once.
    size_t query_panel;

    /// Packs panels first ..< end of x [rows, k] so that `linear` reads them in order.
    ///
    /// Layout: [k / k_block][panels][k_block][row_panel]; rows past the end are zero.
    void (*pack_rows)(float *packed, const float *x, size_t stride, size_t rows, size_t k,
                      size_t panels, size_t first_panel, size_t end_panel);

    /// Packs w [columns, k] for `convolve`: [k / k_block][panels][k_block][column_panel].
    void (*pack_weights)(float *packed, const void *w, weight_type type, size_t stride,
                         size_t columns, size_t k);

    /// Runs one task; workspace: [linear_columns · k_block] floats.
    void (*linear)(const linear_task *task, float *workspace);

    /// Runs one task; workspace: [convolution_pixels · k_block] floats.
    void (*convolve)(const convolution_task *task, float *workspace);

    /// Runs one task; workspace: [(2 · head_size + attention_keys) · query_panel] floats.
    void (*attend)(const attention_task *task, float *workspace);

    /// y[r] = x[r] · 1/sqrt(mean(x[r]²) + epsilon) · (offset + weight), then, unless scale is
    /// NULL, y[r] = (1 + scale) · y[r] + shift.
    ///
    /// x, y: [rows, width], may be the same memory. weight, scale, shift: [width].
    void (*rms_norm)(float *y, const float *x, const float *weight, const float *_Nullable scale,
                     const float *_Nullable shift, size_t rows, size_t width, float offset,
                     float epsilon);

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

    /// x[r] += gate · y[r]; gate: [width], or NULL for 1.
    void (*gated_add)(float *x, const float *y, const float *_Nullable gate, size_t rows,
                      size_t width);

    /// Whether no element is infinite or not a number.
    bool (*all_finite)(const float *x, size_t count);
} kernel_table;

/// Most columns one `linear_task` may have.
enum { linear_columns = 256 };
/// Most pixels one `convolution_task` may have.
enum { convolution_pixels = 192 };
/// Keys whose scores `attend` holds at once.
enum { attention_keys = 128 };

/// The fastest table this CPU can run; the same pointer on every call.
const kernel_table *kernels_best(void);

/// The table called `name`, or NULL where this build or this CPU lacks it.
const kernel_table *_Nullable kernels_named(const char *name);

/// The name of the `index`th table this build knows, fastest first, or NULL past the last.
const char *_Nullable kernels_name_at(size_t index);

#pragma clang assume_nonnull end
