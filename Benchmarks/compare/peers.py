"""The work that `krea2 bench` times, done by torch, diffusers and transformers.

Weights and inputs are random. Each function returns a callable that does the work once.
"""

from collections.abc import Callable

import diffusers
import torch
from checkpoint import configs, networks
from diffusers import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_krea2 import (
    Krea2RotaryPosEmbed,
    Krea2TransformerBlock,
)
from torch.nn import functional
from transformers import Qwen3VLConfig, Qwen3VLTextModel

diffusers.utils.logging.set_verbosity_error()

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}

Work = Callable[[], object]


def gemm(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> Work:
    """One linear layer without a bias."""
    x, weight = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    return lambda: functional.linear(x, weight)


def attention(rows: int, dtype: torch.dtype) -> Work:
    """48 query heads on 12 of keys and values, 128 elements each, as in the released model."""
    query = torch.randn(1, 48, rows, 128).to(dtype)
    key = torch.randn(1, 12, rows, 128).to(dtype)
    return lambda: functional.scaled_dot_product_attention(query, key, key, enable_gqa=True)


def block(
    sizes: networks.Sizes, width: int, height: int, tokens: int, dtype: torch.dtype
) -> Work:
    """One block of the transformer; its norms are float32, as diffusers loads them."""
    channels = sizes.head_size * sizes.heads
    module = Krea2TransformerBlock(
        channels, sizes.mlp_width, sizes.heads, sizes.key_value_heads, norm_eps=1e-5
    ).to(dtype)
    for name, child in module.named_modules():
        if name.split(".")[-1] in ("norm1", "norm2", "norm_q", "norm_k"):
            child.float()
    rows, columns = torch.meshgrid(
        torch.arange(height // 16), torch.arange(width // 16), indexing="ij"
    )
    image = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)
    positions = torch.cat([torch.zeros(tokens, 3, dtype=image.dtype), image])
    unit = sizes.head_size // 16
    axes = [sizes.head_size - 12 * unit, 6 * unit, 6 * unit]
    rotary = Krea2RotaryPosEmbed(theta=1000, axes_dim=axes)(positions)
    x = torch.randn(1, len(positions), channels).to(dtype)
    time = 0.1 * torch.randn(1, 1, 6 * channels).to(dtype)
    return lambda: module(x, time, rotary)


def text_encoder(sizes: networks.Sizes, layers: int, tokens: int, dtype: torch.dtype) -> Work:
    """The first layers of the language model; embedding is left out."""
    config = Qwen3VLConfig(**configs.text_encoder(sizes)).text_config
    config.num_hidden_layers, config.vocab_size = layers, 16
    config.pad_token_id = None
    module = Qwen3VLTextModel(config).to(dtype).eval()
    x = torch.randn(1, tokens, sizes.text_width).to(dtype)
    return lambda: module(inputs_embeds=x, use_cache=False)


def decoder(sizes: networks.Sizes, width: int, height: int, dtype: torch.dtype) -> Work:
    """Decodes one latent, as `Krea2Pipeline` does: as a video of one picture."""
    module = AutoencoderKLQwenImage.from_config(configs.autoencoder(sizes)).to(dtype).eval()
    latent = torch.randn(1, 16, 1, height // 8, width // 8).to(dtype)
    return lambda: module.decode(latent)
