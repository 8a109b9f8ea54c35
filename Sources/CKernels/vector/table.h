// The table of a level: its name, and what not every level has.

#define TABLE(level, bfloat16, int8, bfloat16_kernels)                                             \
    {                                                                                              \
        .name = level,                                                                             \
        .products = {&float32_products, bfloat16, int8},                                           \
        .query_panel = query_panel,                                                                \
        .pairs = bfloat16_kernels,                                                                 \
        .displace = displace,                                                                      \
        .add_displacements = add_displacements,                                                    \
        .rotate = rotate,                                                                          \
        .quantize = quantize,                                                                      \
        .dequantize = dequantize,                                                                  \
        .narrow = narrow,                                                                          \
        .widen = widen,                                                                            \
        .pack_weights = pack_weights,                                                              \
        .convolve = convolve,                                                                      \
        .attend = attend,                                                                          \
        .rms_norm = rms_norm,                                                                      \
        .layer_norm = layer_norm,                                                                  \
        .head_norm = head_norm,                                                                    \
        .channel_norm = channel_norm,                                                              \
        .silu_multiply = silu_multiply,                                                            \
        .sigmoid_multiply = sigmoid_multiply,                                                      \
        .gelu_tanh = gelu_tanh,                                                                    \
        .gelu = gelu,                                                                              \
        .gated_add = gated_add,                                                                    \
        .multiply = multiply,                                                                      \
        .all_finite = all_finite,                                                                  \
    }
