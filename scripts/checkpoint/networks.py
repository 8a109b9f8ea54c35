"""Names, shapes and random scales of every tensor of a Krea 2 model.

Names are those of the released files: the official single file for the transformer, Qwen3-VL's own
for the text encoder, diffusers' for the autoencoder.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Sizes:
    """Sizes of the three networks; each is an option of `make-checkpoint`."""

    head_size: int
    heads: int
    key_value_heads: int
    blocks: int
    mlp_width: int
    time_width: int
    taps: int
    fusion_heads: int
    fusion_mlp_width: int
    text_width: int
    text_layers: int
    text_heads: int
    text_key_value_heads: int
    text_head_size: int
    text_mlp_width: int
    vocabulary: int
    vision_width: int
    vision_depth: int
    vision_heads: int
    vision_mlp_width: int
    vision_positions: int
    autoencoder_width: int


FULL = Sizes(
    head_size=128,
    heads=48,
    key_value_heads=12,
    blocks=28,
    mlp_width=16384,
    time_width=256,
    taps=12,
    fusion_heads=20,
    fusion_mlp_width=6912,
    text_width=2560,
    text_layers=36,
    text_heads=32,
    text_key_value_heads=8,
    text_head_size=128,
    text_mlp_width=9728,
    vocabulary=151_936,
    vision_width=1024,
    vision_depth=24,
    vision_heads=16,
    vision_mlp_width=4096,
    vision_positions=2304,
    autoencoder_width=96,
)

TINY = Sizes(
    head_size=64,
    heads=4,
    key_value_heads=1,
    blocks=3,
    mlp_width=512,
    time_width=64,
    taps=12,
    fusion_heads=4,
    fusion_mlp_width=128,
    text_width=64,
    text_layers=36,
    text_heads=4,
    text_key_value_heads=2,
    text_head_size=32,
    text_mlp_width=128,
    vocabulary=2048,
    vision_width=32,
    vision_depth=6,
    vision_heads=2,
    vision_mlp_width=64,
    vision_positions=64,
    autoencoder_width=8,
)


@dataclass(frozen=True)
class Spec:
    """One tensor: values are normal with this mean and deviation."""

    name: str
    shape: tuple[int, ...]
    deviation: float
    mean: float = 0.0
    is_block_matrix: bool = False

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def matrix(name: str, *shape: int, gain: float = 1.0, in_block: bool = False) -> Spec:
    """A weight that keeps the variance of its input, times `gain` squared."""
    inputs = math.prod(shape[1:])
    if len(shape) == 5 and shape[2:] == (3, 3, 3):
        inputs //= 3  # one picture meets the last temporal slice only
    return Spec(f"{name}.weight", shape, gain / math.sqrt(inputs), is_block_matrix=in_block)


def linear(name: str, outputs: int, inputs: int, gain: float = 1.0) -> Iterator[Spec]:
    """A weight and a bias."""
    yield matrix(name, outputs, inputs, gain=gain)
    yield Spec(f"{name}.bias", (outputs,), 0.1)


def vision_deepstack(sizes: Sizes) -> list[int]:
    """The blocks whose output is merged early: 5, 11 and 17 of 24."""
    return [sizes.vision_depth * i // 4 - 1 for i in (1, 2, 3)]


# MARK: Transformer


def transformer(sizes: Sizes) -> Iterator[Spec]:
    """The transformer under its official names; norm weights are stored minus one."""
    width, text = sizes.head_size * sizes.heads, sizes.text_width
    yield from linear("first", width, 64)
    yield from linear("tmlp.0", width, sizes.time_width)
    yield from linear("tmlp.2", width, width)
    yield from linear("tproj.1", 6 * width, width, gain=0.8)
    yield Spec("txtmlp.0.scale", (text,), 0.2)
    yield from linear("txtmlp.1", width, text)
    yield from linear("txtmlp.3", width, width)
    yield matrix("txtfusion.projector", 1, sizes.taps)
    for kind in ("layerwise_blocks", "refiner_blocks"):
        for index in (0, 1):
            name = f"txtfusion.{kind}.{index}"
            heads, head_size = sizes.fusion_heads, text // sizes.fusion_heads
            yield from _block(name, text, head_size, heads, sizes.fusion_mlp_width)
    for index in range(sizes.blocks):
        name = f"blocks.{index}"
        yield Spec(f"{name}.mod.lin", (6 * width,), 0.5)
        yield from _block(name, width, sizes.head_size, sizes.key_value_heads, sizes.mlp_width)
    yield Spec("last.norm.scale", (width,), 0.2)
    yield Spec("last.modulation.lin", (2, width), 0.5)
    yield from linear("last.linear", 64, width, gain=0.7)


def _block(name: str, width: int, head_size: int, kv_heads: int, mlp_width: int) -> Iterator[Spec]:
    yield Spec(f"{name}.prenorm.scale", (width,), 0.2)
    yield Spec(f"{name}.postnorm.scale", (width,), 0.2)
    yield Spec(f"{name}.attn.qknorm.qnorm.scale", (head_size,), 0.2, mean=0.5)
    yield Spec(f"{name}.attn.qknorm.knorm.scale", (head_size,), 0.2, mean=0.5)
    key_width = head_size * kv_heads
    yield matrix(f"{name}.attn.wq", width, width, in_block=True)
    yield matrix(f"{name}.attn.wk", key_width, width, in_block=True)
    yield matrix(f"{name}.attn.wv", key_width, width, gain=2.0, in_block=True)
    yield matrix(f"{name}.attn.gate", width, width, in_block=True)
    yield matrix(f"{name}.attn.wo", width, width, in_block=True)
    yield matrix(f"{name}.mlp.gate", mlp_width, width, in_block=True)
    yield matrix(f"{name}.mlp.up", mlp_width, width, in_block=True)
    yield matrix(f"{name}.mlp.down", width, mlp_width, in_block=True)


# MARK: Text encoder


def text_encoder(sizes: Sizes) -> Iterator[Spec]:
    """Qwen3-VL: language model and vision tower."""
    width, head_size = sizes.text_width, sizes.text_head_size
    query, key = head_size * sizes.text_heads, head_size * sizes.text_key_value_heads
    language = "model.language_model"
    yield Spec(f"{language}.embed_tokens.weight", (sizes.vocabulary, width), 0.5)
    for index in range(sizes.text_layers):
        name = f"{language}.layers.{index}"
        yield Spec(f"{name}.input_layernorm.weight", (width,), 0.2, mean=1)
        yield matrix(f"{name}.self_attn.q_proj", query, width)
        yield matrix(f"{name}.self_attn.k_proj", key, width)
        yield matrix(f"{name}.self_attn.v_proj", key, width)
        yield matrix(f"{name}.self_attn.o_proj", width, query)
        yield Spec(f"{name}.self_attn.q_norm.weight", (head_size,), 0.2, mean=1)
        yield Spec(f"{name}.self_attn.k_norm.weight", (head_size,), 0.2, mean=1)
        yield Spec(f"{name}.post_attention_layernorm.weight", (width,), 0.2, mean=1)
        yield matrix(f"{name}.mlp.gate_proj", sizes.text_mlp_width, width)
        yield matrix(f"{name}.mlp.up_proj", sizes.text_mlp_width, width)
        yield matrix(f"{name}.mlp.down_proj", width, sizes.text_mlp_width)
    yield Spec(f"{language}.norm.weight", (width,), 0.2, mean=1)
    yield from _vision(sizes, "model.visual")


def _vision(sizes: Sizes, vision: str) -> Iterator[Spec]:
    width, merged = sizes.vision_width, 4 * sizes.vision_width
    yield matrix(f"{vision}.patch_embed.proj", width, 3, 2, 16, 16)
    yield Spec(f"{vision}.patch_embed.proj.bias", (width,), 0.1)
    yield Spec(f"{vision}.pos_embed.weight", (sizes.vision_positions, width), 0.5)
    for index in range(sizes.vision_depth):
        name = f"{vision}.blocks.{index}"
        yield from _layer_norm(f"{name}.norm1", width)
        yield from _layer_norm(f"{name}.norm2", width)
        yield from linear(f"{name}.attn.qkv", 3 * width, width)
        yield from linear(f"{name}.attn.proj", width, width)
        yield from linear(f"{name}.mlp.linear_fc1", sizes.vision_mlp_width, width)
        yield from linear(f"{name}.mlp.linear_fc2", width, sizes.vision_mlp_width)
    mergers = {f"{vision}.merger": width}
    for index in range(len(vision_deepstack(sizes))):
        mergers[f"{vision}.deepstack_merger_list.{index}"] = merged
    for name, norm_width in mergers.items():
        yield from _layer_norm(f"{name}.norm", norm_width)
        yield from linear(f"{name}.linear_fc1", merged, merged)
        yield from linear(f"{name}.linear_fc2", sizes.text_width, merged)


def _layer_norm(name: str, width: int) -> Iterator[Spec]:
    yield Spec(f"{name}.weight", (width,), 0.2, mean=1)
    yield Spec(f"{name}.bias", (width,), 0.1)


# MARK: Autoencoder


def autoencoder(sizes: Sizes) -> Iterator[Spec]:
    """The autoencoder under diffusers' names; channels 1, 2, 4, 4 times the width."""
    one, two, four = (sizes.autoencoder_width * i for i in (1, 2, 4))
    yield from _convolution("encoder.conv_in", one, 3, 3, 3, 3)
    stages = [(one, one), (one, two), (two, four), (four, four)]
    for stage, (inputs, outputs) in enumerate(stages):
        name = f"encoder.down_blocks.{3 * stage}"
        yield from _residual(name, inputs, outputs)
        yield from _residual(f"encoder.down_blocks.{3 * stage + 1}", outputs, outputs)
        if stage < 3:
            name = f"encoder.down_blocks.{3 * stage + 2}"
            yield from _convolution(f"{name}.resample.1", outputs, outputs, 3, 3)
            if stage > 0:
                yield from _convolution(f"{name}.time_conv", outputs, outputs, 3, 1, 1)
    yield from _middle("encoder", four)
    yield Spec("encoder.norm_out.gamma", (four, 1, 1, 1), 0.2, mean=1)
    yield from _convolution("encoder.conv_out", 32, four, 3, 3, 3)
    yield from _convolution("quant_conv", 32, 32, 1, 1, 1)
    yield from _convolution("post_quant_conv", 16, 16, 1, 1, 1)
    yield from _convolution("decoder.conv_in", four, 16, 3, 3, 3)
    yield from _middle("decoder", four)
    stages = [(four, four), (two, four), (two, two), (one, one)]
    for stage, (inputs, outputs) in enumerate(stages):
        name = f"decoder.up_blocks.{stage}"
        for index in range(3):
            yield from _residual(f"{name}.resnets.{index}", inputs, outputs)
            inputs = outputs
        if stage < 3:
            name += ".upsamplers.0"
            yield from _convolution(f"{name}.resample.1", outputs // 2, outputs, 3, 3)
            if stage < 2:
                yield from _convolution(f"{name}.time_conv", 2 * outputs, outputs, 3, 1, 1)
    yield Spec("decoder.norm_out.gamma", (one, 1, 1, 1), 0.2, mean=1)
    yield from _convolution("decoder.conv_out", 3, one, 3, 3, 3, gain=0.7)


def _convolution(name: str, *shape: int, gain: float = 1.0) -> Iterator[Spec]:
    yield matrix(name, *shape, gain=gain)
    yield Spec(f"{name}.bias", (shape[0],), 0.1)


def _residual(name: str, inputs: int, outputs: int) -> Iterator[Spec]:
    yield Spec(f"{name}.norm1.gamma", (inputs, 1, 1, 1), 0.2, mean=1)
    yield from _convolution(f"{name}.conv1", outputs, inputs, 3, 3, 3)
    yield Spec(f"{name}.norm2.gamma", (outputs, 1, 1, 1), 0.2, mean=1)
    yield from _convolution(f"{name}.conv2", outputs, outputs, 3, 3, 3)
    if inputs != outputs:
        yield from _convolution(f"{name}.conv_shortcut", outputs, inputs, 1, 1, 1)


def _middle(name: str, width: int) -> Iterator[Spec]:
    name += ".mid_block"
    yield from _residual(f"{name}.resnets.0", width, width)
    yield Spec(f"{name}.attentions.0.norm.gamma", (width, 1, 1), 0.2, mean=1)
    yield from _convolution(f"{name}.attentions.0.to_qkv", 3 * width, width, 1, 1)
    yield from _convolution(f"{name}.attentions.0.proj", width, width, 1, 1)
    yield from _residual(f"{name}.resnets.1", width, width)
