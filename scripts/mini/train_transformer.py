"""Trains the RAW transformer by flow matching with caption dropout; saves and resumes.

    train_transformer.py STATE.pt LATENTS ENCODER TOKENIZER --steps 30000 --minutes 120

LATENTS is a folder that `latents.py` wrote. Stages follow each other with the same state and
another folder: 128, 256 and then 512 pixels. With `--tokens N` a step sees only N of the image
tokens, at their places in the whole picture: 512 pixels for the price of 256.

Two guides, which are thrown away after training, read rows in the middle of the network: where
a token lies on the nearest thing, and which kind of thing covers each of its parts. Shapes are learnt
from that sooner than from velocities alone, after Yu et al., "Representation Alignment for
Generation" (2024).
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
from transformer import (
    TextConditioner, follow, new_optimisers, new_transformer, pack, positions, raw_shift, shifted,
)

# Text rows are padded to multiples of this.
ROW_UNIT = 16
DROPOUT = 0.1
# More noise than sampling has: shapes are decided early.
SHIFT = 0.5
# The guides: before which blocks they read, their share of the loss, how far from a thing's middle
# they are asked for places on it, in radii, and cells along the side of a token.
PLACE_BLOCK, KIND_BLOCK = 4, 6
GUIDANCE_SHARE = 0.5
REACH = 1.5
CELLS = 4


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


class Guide(torch.nn.Module):
    """Reads something from the image rows before a block."""

    def __init__(self, model, block, outputs):
        super().__init__()
        self.norm = torch.nn.LayerNorm(model.hidden_size)
        self.head = torch.nn.Linear(model.hidden_size, outputs)
        self.rows = None
        model.transformer_blocks[block].register_forward_pre_hook(self.keep)

    def keep(self, block, arguments):
        self.rows = arguments[0]

    def forward(self, tokens):
        return self.head(self.norm(self.rows[:, -tokens:].float()))


class Guides(torch.nn.Module):
    """What is asked of the middle of a network."""

    def __init__(self, model):
        super().__init__()
        self.place = Guide(model, PLACE_BLOCK, 2)
        self.kind = Guide(model, KIND_BLOCK, CELLS**2 * (1 + len(world.KINDS)))
        # The sky is most of a picture and the least of the matter.
        weight = torch.ones(1 + len(world.KINDS))
        weight[0] = 0.3
        self.register_buffer("weight", weight, persistent=False)

    def losses(self, places, is_near, kinds):
        """Squared error of places [n, tokens, 2] near things, cross entropy of kinds [n, tokens, cells]."""
        tokens = kinds.shape[1]
        logits = self.kind(tokens).unflatten(-1, (CELLS**2, -1))
        place_loss = F.mse_loss(self.place(tokens)[is_near], places[is_near])
        return place_loss, F.cross_entropy(logits.flatten(0, -2), kinds.flatten(), self.weight)


def answers(scenes, rows, columns):
    """What guides should say of a grid of tokens: places [n, tokens, 2], whether they are near a
    thing, and kinds [n, tokens, cells]."""
    own = [world.own_coordinates(scene, columns, rows) for scene in scenes]
    places = torch.from_numpy(np.stack([place for place, _ in own]).astype(np.float32)).flatten(1, 2)
    is_near = torch.from_numpy(np.stack([distance for _, distance in own]) < REACH).flatten(1)
    maps = np.stack([world.kind_map(scene, CELLS * columns, CELLS * rows) for scene in scenes])
    maps = torch.from_numpy(maps.astype(np.int64)).reshape(-1, rows, CELLS, columns, CELLS)
    return places, is_near, maps.transpose(2, 3).reshape(len(scenes), rows * columns, CELLS**2)


def visible(rng, height, width, count):
    """Indices of about `count` tokens of a grid: half of the time a window, else tokens from everywhere.

    All of them where there are no more, or no count is given.
    """
    if not count or count >= height * width:
        return torch.arange(height * width)
    if rng.random() < 0.5:
        return torch.tensor(sorted(rng.sample(range(height * width), count)))
    rows = min(height, round((count * height / width) ** 0.5))
    columns = min(width, round(count / rows))
    top, left = rng.randint(0, height - rows), rng.randint(0, width - columns)
    grid = torch.arange(height * width).reshape(height, width)
    return grid[top : top + rows, left : left + columns].flatten()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("state")
    parser.add_argument("latents")
    parser.add_argument("encoder")
    parser.add_argument("tokenizer")
    parser.add_argument("--steps", type=int, required=True, help="steps of all stages so far and this one")
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, help="image tokens that a step sees; all by default")
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    parser.add_argument("--final", type=float, default=0.1, help="share of the rate at the end")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    model = new_transformer()
    guides = Guides(model)
    optimisers = new_optimisers(model, 0.02, 1e-3)
    optimisers.append(torch.optim.AdamW(guides.parameters(), lr=2e-3, betas=(0.9, 0.98)))
    rates = [o.param_groups[0]["lr"] for o in optimisers]
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    step = first = 0
    stage_name = f"{arguments.latents} {arguments.tokens}"
    if os.path.exists(arguments.state):
        state = torch.load(arguments.state, weights_only=True)
        model.load_state_dict(state["model"])
        guides.load_state_dict(state.get("guides", guides.state_dict()))
        for optimiser, saved in zip(optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        average, step = state["average"], state["step"]
        first = state.get("stage", {}).get(stage_name, step)
    stage = {stage_name: first}
    for block in model.transformer_blocks:
        block.compile(dynamic=True)
    conditioner = TextConditioner(arguments.encoder, arguments.tokenizer)
    data = Latents(arguments.latents)

    def save():
        torch.save(
            {
                "model": model.state_dict(),
                "guides": guides.state_dict(),
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
    start, total, total_guides = time.time(), 0.0, torch.zeros(2)
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
        rows, columns = z.shape[2] // 2, z.shape[3] // 2
        seen = visible(rng, rows, columns, arguments.tokens)
        x = pack(z)[:, seen]
        mu = SHIFT + raw_shift(rows * columns)
        sigma = shifted(torch.sigmoid(torch.randn(len(x))), mu)
        noise = torch.randn_like(x)
        noisy = x + sigma[:, None, None] * (noise - x)
        where = positions(taps.shape[1], *z.shape[2:], seen)
        answer = [t[:, seen] for t in answers(scenes, rows, columns)]
        with torch.autocast("cpu", torch.bfloat16):
            velocity = model(noisy, taps.float(), sigma, where, mask, return_dict=False)[0]
        loss = F.mse_loss(velocity.float(), noise - x)
        guide_losses = torch.stack(guides.losses(*answer))
        for optimiser in optimisers:
            optimiser.zero_grad()
        (loss + GUIDANCE_SHARE * guide_losses.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        step += 1
        follow(average, model, step, 0.002)
        total += loss.item()
        total_guides += guide_losses.detach()
        if step % 50 == 0:
            places, kinds = (total_guides / 50).tolist()
            line = f"step {step} loss {total / 50:.4f} places {places:.4f} kinds {kinds:.4f}"
            print(f"{line} {time.time() - start:.0f} s", flush=True)
            total, total_guides = 0.0, torch.zeros(2)
        if step % 250 == 0:
            save()
    save()


if __name__ == "__main__":
    main()
