"""Teaches the vision tower to make rows that the transformers take for a picture's style.

    train_references.py STATE.pt ROWS.npz --tokenizer FOLDER --steps 900

Goes on from the vision phase of `train_language.py` and saves as it does; resumes. ROWS is what
`style_rows.py` found: the taps that a picture's corners shall have for each style, and those of all its
other rows. Only the tower changes, so pictures without references stay what they are.
"""

import argparse
import os
import random
import time

import numpy as np
import torch
from PIL import Image

import language
import world
from muon import Muon
from style_rows import corners
from train_language import Networks, load_tokenizer
from transformer import PREFIX_ROWS, TAPS

# Sizes of references, and of pictures of moodboards, in pixels. Pictures were smaller or larger by these
# factors before, like those of users.
SIZES = [(384, 384)] * 3 + [(256, 256)] * 3 + [(448, 320), (320, 448), (288, 224), (224, 288)]
SCALES = 0.6, 1.5
POOL, FRESH = 96, 2


class Reader:
    """The language model's taps of pictures alone."""

    def __init__(self, networks, tokenizer):
        self.text, self.tokenizer = networks.text, tokenizer
        self.picture = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self.prefix = tokenizer(language.PREFIX)["input_ids"]

    def taps(self, x, places, deep=()):
        """Taps [n, rows, taps, width] without the prefix, of embeddings [n, rows, width].

        A tap is what a layer hands on, before deepstack adds to it.
        """
        cos, sin = self.text.rotary_emb(x, places)
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()[None, None]
        taps = []
        for index, layer in enumerate(self.text.layers[: TAPS[-1]]):
            x = layer(x, attention_mask=mask, position_embeddings=(cos, sin))
            if index + 1 in TAPS:
                taps.append(x[:, PREFIX_ROWS:])
            if index < len(deep):
                x = x + deep[index]
        return torch.stack(taps, 2)

    def pictures(self, seen, levels, rows, columns):
        """Taps [n, cells, taps, width] of the tower's rows of pictures of one size."""
        cells = rows * columns
        start, end = self.tokenizer("<|vision_start|><|vision_end|>")["input_ids"]
        ids = self.prefix + [start] + [self.picture] * cells + [end]
        x = self.text.embed_tokens(torch.tensor([ids])).expand(len(seen) // cells, -1, -1)
        own = slice(PREFIX_ROWS + 1, PREFIX_ROWS + 1 + cells)

        def put(values, into):
            values = values.reshape(len(into), cells, -1).to(into.dtype)
            return torch.cat([into[:, : own.start], values, into[:, own.stop :]], 1)

        deep = [put(values, torch.zeros_like(x)) for values in levels]
        places = torch.from_numpy(language.positions(ids, self.picture, (rows, columns), 0))
        taps = self.taps(put(seen, x), places[:, None].expand(3, len(x), -1), deep)
        return taps[:, 1 : 1 + cells]


class Pools:
    """Drawn pictures by size, renewed little by little."""

    def __init__(self):
        self.pools = {size: [] for size in SIZES}

    def batch(self, rng, count):
        """Patches [count, patches, 1536] of pictures of one size, their styles, and the size."""
        size = rng.choice(SIZES)
        pool = self.pools[size]
        for _ in range(FRESH if pool else POOL):
            scene, scale = world.sample(rng), rng.uniform(*SCALES)
            picture = Image.fromarray(world.draw(scene, *(round(scale * side) for side in size)))
            pool.append((np.asarray(picture.resize(size, Image.Resampling.BICUBIC)), scene.style))
        del pool[:-POOL]
        pictures, styles = zip(*rng.sample(pool, count))
        # A picture that is turned over has the same style.
        pictures = [picture[:: rng.choice((1, -1)), :: rng.choice((1, -1))] for picture in pictures]
        styles = torch.tensor([world.STYLES.index(style) for style in styles])
        return torch.from_numpy(np.stack([language.patches(picture) for picture in pictures])).float(), styles, size


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("state")
    parser.add_argument("rows")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = load_tokenizer(arguments.tokenizer)
    networks = Networks(language.build(tokenizer)).requires_grad_(False)
    state = torch.load(arguments.state, weights_only=True)
    done, average = state.get("reference_steps", 0), state["average"]
    networks.load_state_dict(state["model"] if done else average, strict=bool(done))
    reader = Reader(networks, tokenizer)
    words, neutral, scale = (torch.from_numpy(np.load(arguments.rows)[n]) for n in ("words", "neutral", "scale"))
    networks.visual.requires_grad_(True)
    live = {n: p for n, p in networks.named_parameters() if p.requires_grad}
    hidden = [p for n, p in live.items() if p.dim() > 1 and "pos_embed" not in n]
    others = [p for p in live.values() if not any(p is q for q in hidden)]
    optimisers = [Muon(hidden, lr=5 * arguments.rate), torch.optim.AdamW(others, lr=arguments.rate)]
    rates = [optimiser.param_groups[0]["lr"] for optimiser in optimisers]
    if done:
        for optimiser, saved in zip(optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)

    def save():
        kept = {"optimisers": [o.state_dict() for o in optimisers], "reference_steps": done}
        state.update(model=networks.state_dict(), average=average, **kept)
        torch.save(state, arguments.state + ".part")
        os.replace(arguments.state + ".part", arguments.state)

    rng, pools, sums, start = random.Random(done), Pools(), [], time.time()
    while done < arguments.steps:
        factor = min(1, (done + 1) / 50) * (1.02 - done / arguments.steps)
        for optimiser, rate in zip(optimisers, rates):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
        pixels, styles, size = pools.batch(rng, arguments.batch)
        columns, rows = (side // language.CELL for side in size)
        with torch.autocast("cpu", torch.bfloat16):
            taps = reader.pictures(*networks.see(pixels, (2 * rows, 2 * columns)), rows, columns)
        is_corner = corners(rows, columns)
        own, rest = taps[:, is_corner].float(), taps[:, ~is_corner].float()
        saying = (((own - words[styles, None]) / scale) ** 2).mean()
        rest = (((rest - neutral) / scale) ** 2).mean()
        # Of all styles, the nearest word should be the right one.
        distances = (((own.mean(1)[:, None] - words) / scale) ** 2).mean((2, 3))
        right = (distances.argmin(1) == styles).float().mean()
        sums.append((saying.item(), rest.item(), right.item()))
        for optimiser in optimisers:
            optimiser.zero_grad()
        (saying + rest).backward()
        torch.nn.utils.clip_grad_norm_(live.values(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        done += 1
        with torch.no_grad():
            share = 1 - min(0.995, done / (done + 20))
            torch._foreach_lerp_([average[n] for n in live], list(live.values()), share)
        if done % 25 == 0:
            means = "corners {:.3f} rest {:.3f} right {:.3f}".format(*np.mean(sums[-25:], 0))
            print(f"step {done} {means} {time.time() - start:.0f} s", flush=True)
        if done % 200 == 0:
            save()
    save()


if __name__ == "__main__":
    main()
