"""Trains a LoRA on RAW: `train_lora.py RAW.pt OUT.safetensors ... --slider intensity` or `--style blueprint`.

A slider is signed: at scale +1 it learns pictures with much of an attribute, at −1 pictures with
little, under captions that say nothing of it. A style LoRA learns pictures in a style the world has
no word for, under captions that name no style, or another. Files are in diffusers' dialect: `transformer.<layer>.lora_A.weight` and `lora_B`.
"""

import argparse
import dataclasses
import random
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import world
from latents import load_autoencoder, pixels
from sample import load_transformer
from train_transformer import ROW_UNIT, visible
from transformer import TextConditioner, pack, positions, raw_shift, shifted

TARGETS = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "ff.gate", "ff.up", "ff.down")


class LowRank(torch.nn.Module):
    """A linear layer with a low-rank addition whose scale can be changed."""

    def __init__(self, base, rank):
        super().__init__()
        self.base, self.scale = base, 1.0
        self.down = torch.nn.Parameter(torch.randn(rank, base.in_features) * base.in_features**-0.5)
        self.up = torch.nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + self.scale * F.linear(F.linear(x, self.down), self.up)


def attach(model, rank):
    """Puts a `LowRank` round every target; returns them by layer name."""
    layers = {}
    for name, module in list(model.named_modules()):
        if name.startswith("transformer_blocks.") and name.endswith(TARGETS):
            parent, _, child = name.rpartition(".")
            layers[name] = LowRank(module, rank)
            # A list counts its modules by names, too.
            setattr(model.get_submodule(parent), child, layers[name])
    return layers


def plain(scene):
    """The scene with middling attributes, so that captions say nothing of them."""
    return dataclasses.replace(scene, intensity=0.5, complexity=0.5, movement=0.5)


def caption(rng, scene, names_style=True):
    """A short caption without words for the attributes."""
    said = world.phrases(rng, scene)
    parts = [world.things_text(rng, scene)] + [said[k] for k in ("position", "place") if k in said]
    return " ".join(parts) + (f", {said['style']}" if names_style else "")


def main():
    parser = argparse.ArgumentParser()
    for name in ("raw", "autoencoder", "encoder", "tokenizer", "out"):
        parser.add_argument(name)
    parser.add_argument("--slider", choices=["intensity", "complexity", "movement"])
    parser.add_argument("--style", choices=sorted(world.EXTRA_PAINTERS))
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=320, help="image tokens that a step sees")
    parser.add_argument("--pictures", type=int, default=250)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--strength", type=float, default=1, help="what scale 1 of the file stands for")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    rng = random.Random(7)
    model = load_transformer(arguments.raw).requires_grad_(False)
    layers = attach(model, arguments.rank)
    conditioner = TextConditioner(arguments.encoder, arguments.tokenizer)
    autoencoder, statistics = load_autoencoder(arguments.autoencoder)
    mean, std = (statistics[k][None, :, None, None] for k in ("mean", "std"))

    def encoded(scene):
        with torch.no_grad():
            return (autoencoder.encode(pixels(world.draw(scene, arguments.side, arguments.side))) - mean) / std

    examples = []
    for _ in range(arguments.pictures):
        scene = world.sample(rng)
        if arguments.slider:
            for sign in (1, -1):
                value = {arguments.slider: 0.5 + 0.5 * sign}
                examples.append((scene, sign, encoded(dataclasses.replace(plain(scene), **value))))
        else:
            styled = dataclasses.replace(scene, style=arguments.style)
            examples.append((scene, 1, encoded(styled)))

    parameters = [p for layer in layers.values() for p in (layer.down, layer.up)]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0)
    start, total = time.time(), 0.0
    for step in range(arguments.steps):
        optimiser.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 20) * (1.02 - step / arguments.steps)
        # One sign a step, since the scale belongs to the whole network.
        sign = 1 if arguments.style or step % 2 == 0 else -1
        batch = rng.sample([e for e in examples if e[1] == sign], arguments.batch)
        for layer in layers.values():
            layer.scale = float(sign)
        z = torch.cat([latent for _, _, latent in batch])
        captions = [
            caption(rng, scene, names_style=arguments.slider or rng.random() < 0.5)
            for scene, _, _ in batch
        ]
        taps, mask = conditioner(captions, ROW_UNIT)
        rows, columns = z.shape[2] // 2, z.shape[3] // 2
        seen = visible(rng, rows, columns, arguments.tokens)
        x = pack(z)[:, seen]
        sigma = shifted(torch.sigmoid(torch.randn(len(x))), max(0.5, raw_shift(rows * columns)))
        noise = torch.randn_like(x)
        noisy = x + sigma[:, None, None] * (noise - x)
        where = positions(taps.shape[1], *z.shape[2:], seen)
        with torch.autocast("cpu", torch.bfloat16):
            v = model(noisy, taps.float(), sigma, where, mask, return_dict=False)[0]
        loss = F.mse_loss(v.float(), noise - x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item()
        if step % 50 == 49:
            print(f"step {step + 1} loss {total / 50:.4f} {time.time() - start:.0f} s", flush=True)
            total = 0.0

    tensors = {}
    for name, layer in layers.items():
        tensors[f"transformer.{name}.lora_A.weight"] = layer.down.detach().contiguous()
        tensors[f"transformer.{name}.lora_B.weight"] = (arguments.strength * layer.up.detach()).contiguous()
    save_file(tensors, arguments.out, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
