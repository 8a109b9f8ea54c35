"""Pictures from training states, to look at: `sample.py STATE AUTOENCODER ENCODER TOKENIZER OUT.png`."""

import argparse

import numpy as np
import torch
from PIL import Image

from latents import load_autoencoder
from transformer import TextConditioner, new_transformer, pack, positions, raw_shift, shifted, unpack

PROMPTS = [
    "a fox walking in the snow",
    "a big red house on the left, flat",
    "a blue fish by the sea, watercolour",
    "two green trees at sunset, pixel art",
    "a purple star at the top, neon",
    "a yellow moon above a brown boat, chalk",
    "three pink flowers on a meadow, outline",
    "a small orange mushroom on the right, halftone",
]


def load_transformer(path):
    """The averaged weights of a state."""
    model = new_transformer()
    model.load_state_dict(torch.load(path, weights_only=True)["average"], strict=False)
    return model.eval()


@torch.no_grad()
def velocity(model, x, sigma, taps, mask, where):
    """The network's prediction in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        time = torch.full((len(x),), float(sigma))
        return model(x, taps.float(), time, where, mask, return_dict=False)[0].float()


@torch.no_grad()
def sample(model, conditioner, prompts, width, height, steps, guidance, mu, seed=0):
    """Latents [n, 16, height / 8, width / 8] by Euler steps."""
    h, w = height // 8, width // 8
    taps, mask = conditioner(prompts)
    empty, empty_mask = conditioner([""] * len(prompts))
    noise = torch.randn(len(prompts), 16, h, w, generator=torch.Generator().manual_seed(seed))
    x = pack(noise)
    sigmas = [shifted(1 - i / steps, mu) for i in range(steps)] + [0.0]
    for now, after in zip(sigmas, sigmas[1:]):
        v = velocity(model, x, now, taps, mask, positions(taps.shape[1], h, w))
        if guidance:
            u = velocity(model, x, now, empty, empty_mask, positions(empty.shape[1], h, w))
            v = v + guidance * (v - u)
        x = x + (after - now) * v
    return unpack(x, h, w)


def main():
    parser = argparse.ArgumentParser()
    for name in ("state", "autoencoder", "encoder", "tokenizer", "out"):
        parser.add_argument(name)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--guidance", type=float, default=3.5)
    parser.add_argument("--mu", type=float)
    arguments = parser.parse_args()
    model, conditioner = load_transformer(arguments.state), TextConditioner(arguments.encoder, arguments.tokenizer)
    autoencoder, statistics = load_autoencoder(arguments.autoencoder)
    side = arguments.side
    mu = raw_shift((side // 16) ** 2) if arguments.mu is None else arguments.mu
    z = sample(model, conditioner, PROMPTS, side, side, arguments.steps, arguments.guidance, mu)
    mean, std = (statistics[k][None, :, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        pictures = autoencoder.decode(z * std + mean).clamp(-1, 1)
    rows = ((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    sheet = np.concatenate([np.concatenate(list(rows[i : i + 4]), 1) for i in (0, 4)], 0)
    Image.fromarray(sheet).save(arguments.out)


if __name__ == "__main__":
    main()
