"""The mini transformer's sizes, and what training and sampling share."""

import math

import torch
import torch.nn.functional as F

from muon import Muon

CONFIG = {
    "in_channels": 64,
    "num_layers": 8,
    "attention_head_dim": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 768,
    "timestep_embed_dim": 128,
    "text_hidden_dim": 192,
    "num_text_layers": 3,
    "text_num_attention_heads": 3,
    "text_num_key_value_heads": 3,
    "text_intermediate_size": 384,
    "num_layerwise_text_blocks": 1,
    "num_refiner_text_blocks": 1,
    "axes_dims_rope": (32, 48, 48),
}
TAPS = (2, 5, 8)
PREFIX_ROWS = 34
# Of a reference's rows: behind its start, before its end and the template's suffix.
IMAGE_ROWS = slice(1, -6)


def new_transformer():
    """The network with random weights; what it adds to the residual stream starts small."""
    from diffusers import Krea2Transformer2DModel

    model = Krea2Transformer2DModel(**CONFIG)
    for name, p in model.named_parameters():
        if p.ndim == 2 and not name.endswith("scale_shift_table"):
            torch.nn.init.normal_(p, std=p.shape[1] ** -0.5)
        elif name.endswith("bias"):
            torch.nn.init.zeros_(p)
    # Gates start at zero as tables and small in the projection.
    torch.nn.init.normal_(model.time_mod_proj.weight, std=0.02)
    torch.nn.init.normal_(model.final_layer.linear.weight, std=0.002)
    with torch.no_grad():
        for block in model.transformer_blocks:
            block.scale_shift_table[2] = block.scale_shift_table[5] = 0.5
    return model


def new_optimisers(model, muon_rate, adam_rate):
    """Muon for the matrices of the blocks, AdamW for the rest."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "transformer_blocks" in n and "table" not in n]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)]
    return [Muon(matrices, lr=muon_rate), torch.optim.AdamW(others, lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.01)]


@torch.no_grad()
def follow(average, model, steps, least):
    """Moves a running average of the weights, by name, on to those after so many steps.

    `least` is the share that new weights have later on; the first ones have more.
    """
    for name, p in model.named_parameters():
        average[name].lerp_(p, max(least, 50 / (steps + 50)))


def pack(z):
    """[n, 16, h, w] to [n, h / 2 · w / 2, 64], features ordered channel, row, column."""
    n, c, h, w = z.shape
    z = z.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return z.reshape(n, h // 2 * (w // 2), 4 * c)


def unpack(x, h, w):
    """The inverse of `pack` for latents of h × w."""
    n, _, c = x.shape
    x = x.reshape(n, h // 2, w // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(n, c // 4, h, w)


def positions(text_rows, h, w, seen=slice(None)):
    """Rotary coordinates [text + image rows, 3] for latents of h × w, of the image tokens that are seen."""
    grid = torch.zeros(h // 2, w // 2, 3)
    grid[..., 1] = torch.arange(h // 2)[:, None]
    grid[..., 2] = torch.arange(w // 2)[None, :]
    return torch.cat([torch.zeros(text_rows, 3), grid.reshape(-1, 3)[seen]])


def predicted(model, x, taps, mask, sigma, where, reference=None, strength=1):
    """The velocity of image rows x beside text, and beside a reference that is fused alone.

    `reference` has taps [n, rows, taps, width], whose image rows stand beside the text's; `where` has
    coordinates for all. At a strength of 1 or more, other rows see the reference's rows so many times.
    """
    time = model.time_embed(sigma, dtype=x.dtype)
    modulation = model.time_mod_proj(F.gelu(time, approximate="tanh"))
    parts = [model.txt_in(model.text_fusion(taps, attention_mask=mask[:, None, None, :]))]
    if reference is not None:
        parts.append(model.txt_in(model.text_fusion(reference))[:, IMAGE_ROWS])
    parts.append(model.img_in(x))
    others = sum(part.shape[1] for part in parts[1:])
    seen = torch.cat([mask, mask.new_ones(len(mask), others)], 1)[:, None, None, :]
    if reference is not None and strength != 1:
        own = torch.zeros(seen.shape[-1], dtype=torch.bool)
        own[mask.shape[1] :][: parts[1].shape[1]] = True
        seen = torch.where(seen, math.log(strength) * (own & ~own[:, None]), -math.inf)
    rows, rotary = torch.cat(parts, 1), model.rotary_emb(where)
    for block in model.transformer_blocks:
        rows = block(rows, modulation, rotary, seen)
    return model.final_layer(rows[:, -x.shape[1] :], time)


def shifted(sigma, mu):
    """The schedule's bend towards noise."""
    return math.exp(mu) * sigma / (1 + (math.exp(mu) - 1) * sigma)


def raw_shift(tokens):
    """The reference's shift of RAW for a number of image tokens."""
    return 0.5 + (1.15 - 0.5) * (tokens - 256) / (6400 - 256)


class TextConditioner:
    """Captions to taps by the frozen language model, as diffusers' pipeline makes them."""

    def __init__(self, encoder_folder, tokenizer_folder):
        from diffusers import Krea2Pipeline
        from transformers import AutoTokenizer, Qwen3VLModel

        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
        self.model = Qwen3VLModel.from_pretrained(encoder_folder, dtype=torch.float32).eval()
        template = Krea2Pipeline(None, None, None, self.tokenizer, None)
        self.prefix = template.prompt_template_encode_prefix
        self.suffix = self.tokenizer(template.prompt_template_encode_suffix)["input_ids"]
        self.padding = self.tokenizer.convert_tokens_to_ids("<|endoftext|>")

    @torch.no_grad()
    def __call__(self, captions, unit=1):
        """Taps [n, rows, taps, width] and mask [n, rows], rows a multiple of `unit`.

        Rows beyond a caption's own are masked.
        """
        ids = [self.tokenizer(self.prefix + caption)["input_ids"] + self.suffix for caption in captions]
        rows = max(map(len, ids)) - PREFIX_ROWS
        longest = -(-rows // unit) * unit + PREFIX_ROWS
        mask = torch.tensor([[i < len(row) for i in range(longest)] for row in ids])
        padded = torch.tensor([(row + [self.padding] * longest)[:longest] for row in ids])
        states = self.model(input_ids=padded, attention_mask=mask.long(), output_hidden_states=True).hidden_states
        taps = torch.stack([states[tap] for tap in TAPS], 2)[:, PREFIX_ROWS:]
        return taps, mask[:, PREFIX_ROWS:]
