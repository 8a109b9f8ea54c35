// Fills the table of the level that included the kernels; NAME and TABLE are the level's.

const kernel_table TABLE = {
    .name = NAME,
    .row_panel = ROWS,
    .column_panel = column_panel,
    .k_block = k_block,
    .query_panel = query_panel,
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
