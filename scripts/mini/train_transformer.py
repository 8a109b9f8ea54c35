"""Trains the RAW transformer by flow matching with caption dropout; saves and resumes.

    train_transformer.py STATE.pt LATENTS ENCODER TOKENIZER --steps 30000 --minutes 120

LATENTS is a folder that `latents.py` wrote. Stages follow each other with the same state and
another folder: 128, 256 and then 512 pixels.
"""

import argparse
import glob
import os
import pickle
import random
import time

import numpy as np
import torch
import torch.nn.functional as F

import world
from muon import Muon
from transformer import TextConditioner, new_transformer, pack, positions, raw_shift, shifted

# Text rows are padded to multiples of this.
ROW_UNIT = 16
DROPOUT = 0.1


class Latents:
    """Latents and scenes by picture size; batches are of one size."""

    def __init__(self, folder):
        self.groups = []
        for path in sorted(glob.glob(folder + "/*.npy")):
            with open(path[:-4] + ".pickle", "rb") as file:
                self.groups.append((np.load(path, mmap_mode="r"), pickle.load(file)))
        self.sizes = [len(scenes) for _, scenes in self.groups]

    def batch(self, rng, count):
        """Latents [count, 16, h, w] and their scenes."""
        latents, scenes = rng.choices(self.groups, self.sizes)[0]
        indices = sorted(rng.sample(range(len(scenes)), count))
        z = torch.from_numpy(latents[indices].astype(np.float32))
        return z, [scenes[i] for i in indices]


def captions(rng, scenes, short=0.6):
    """What pictures are trained with: short captions or long ones, and some without any."""
    make = world.short_caption if rng.random() < short else world.long_caption
    return ["" if rng.random() < DROPOUT else make(rng, scene) for scene in scenes]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("state")
    parser.add_argument("latents")
    parser.add_argument("encoder")
    parser.add_argument("tokenizer")
    parser.add_argument("--steps", type=int, required=True, help="steps of all stages so far and this one")
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    parser.add_argument("--final", type=float, default=0.1, help="share of the rate at the end")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    model = new_transformer()
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "transformer_blocks" in n and "table" not in n]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)]
    optimisers = [
        Muon(matrices, lr=0.02),
        torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    rates = [o.param_groups[0]["lr"] for o in optimisers]
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    step = first = 0
    if os.path.exists(arguments.state):
        state = torch.load(arguments.state, weights_only=True)
        model.load_state_dict(state["model"])
        for optimiser, saved in zip(optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        average, step = state["average"], state["step"]
        first = state.get("stage", {}).get(arguments.latents, step)
    stage = {arguments.latents: first}
    conditioner = TextConditioner(arguments.encoder, arguments.tokenizer)
    data = Latents(arguments.latents)
    compiled = torch.compile(model)

    def save():
        torch.save(
            {
                "model": model.state_dict(),
                "optimisers": [o.state_dict() for o in optimisers],
                "average": average,
                "step": step,
                "stage": stage,
            },
            arguments.state + ".part",
        )
        os.replace(arguments.state + ".part", arguments.state)

    rng = random.Random(step)
    torch.manual_seed(step)
    start, total = time.time(), 0.0
    while step < arguments.steps and time.time() - start < 60 * arguments.minutes:
        progress = (step - first) / max(1, arguments.steps - first)
        warm = min(1, (step + 1) / 300, (step - first + 1) / 50)
        factor = arguments.rate * warm * (1 - (1 - arguments.final) * progress)
        for optimiser, rate in zip(optimisers, rates):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
        z, scenes = data.batch(rng, arguments.batch)
        with torch.autocast("cpu", torch.bfloat16):
            taps, mask = conditioner(captions(rng, scenes), ROW_UNIT)
        x = pack(z)
        mu = raw_shift(x.shape[1]) if x.shape[1] > 256 else 0.5
        sigma = shifted(torch.sigmoid(torch.randn(len(x))), mu)
        noise = torch.randn_like(x)
        noisy = x + sigma[:, None, None] * (noise - x)
        where = positions(taps.shape[1], *z.shape[2:])
        with torch.autocast("cpu", torch.bfloat16):
            velocity = compiled(noisy, taps.float(), sigma, where, mask, return_dict=False)[0]
        loss = F.mse_loss(velocity.float(), noise - x)
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        step += 1
        decay = min(0.9995, step / (step + 50))
        with torch.no_grad():
            for name, p in model.named_parameters():
                average[name].lerp_(p, 1 - decay)
        total += loss.item()
        if step % 50 == 0:
            print(f"step {step} loss {total / 50:.4f} {time.time() - start:.0f} s", flush=True)
            total = 0.0
        if step % 250 == 0:
            save()
    save()


if __name__ == "__main__":
    main()
