"""Finds what rows of a style reference should be for the transformers, which know text only.

    style_rows.py OUT.npz RAW.pt TURBO.pt LATENTS ENCODER TOKENIZER

A reference stands beside the prompt as a row for each cell of its picture. Were every row a word for the
style, they would drown the prompt, and rows of any other kind disturb what is drawn. So the corners
shall be words, and all other rows such that nobody minds them. The taps of these words and of that
neutral row are fitted: beside them at full strength and a caption without style, each transformer shall
predict what it predicts where the caption names the style. Transformers and text encoder stay what they are.
`train_references.py` then teaches the vision tower to make such rows.
"""

import argparse
import random
import time

import numpy as np
import torch
import torch.nn.functional as F

import world
from sample import load_transformer
from train_transformer import ROW_UNIT, SHIFT, Latents, visible
from transformer import PREFIX_ROWS, TAPS, TextConditioner, pack, positions, predicted, raw_shift, shifted

# Cells along the side of a reference of 384² pixels.
SIDE = 12
# The highest strength that users can give; there a reference does as much as the word.
STRENGTH = 2
TURBO_STEPS, TURBO_SHIFT = 8, 1.15


def corners(rows, columns):
    """Which cells are corners: [cells]."""
    result = torch.zeros(rows, columns, dtype=torch.bool)
    result[:: rows - 1, :: columns - 1] = True
    return result.flatten()


@torch.no_grad()
def word_taps(conditioner, rng, count=16):
    """Mean taps [styles, taps, width] of the last token that names each style."""
    result = []
    for style in world.STYLES:
        name = ", " + world.STYLE_PHRASES[style][0]
        taps, mask = conditioner([world.short_caption(rng, world.sample(rng), 0) + name for _ in range(count)])
        result.append(taps[range(count), mask.sum(1) - 1 - len(conditioner.suffix)].mean(0))
    return torch.stack(result)


@torch.no_grad()
def end_taps(conditioner):
    """Taps [7, taps, width] around a picture's rows: its start, its end and the template's suffix."""
    turn = conditioner.tokenizer(conditioner.prefix + "<|vision_start|><|vision_end|>")["input_ids"]
    states = conditioner.model(
        input_ids=torch.tensor([turn + conditioner.suffix]), output_hidden_states=True
    ).hidden_states
    return torch.stack([states[tap] for tap in TAPS], 2)[0, PREFIX_ROWS:]


def paired_captions(rng, scenes):
    """Captions that name the style, and the same ones without it."""
    seeds = [rng.random() for _ in scenes]
    return [
        [world.short_caption(random.Random(seed), scene, share) for seed, scene in zip(seeds, scenes)]
        for share in (1, 0)
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("out", "raw", "turbo", "latents", "encoder", "tokenizer"):
        parser.add_argument(name)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=160, help="image tokens that are seen")
    parser.add_argument("--rate", type=float, default=0.05, help="in units of a tap's deviation")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    rng, data = random.Random(5), Latents(arguments.latents)
    conditioner = TextConditioner(arguments.encoder, arguments.tokenizer)
    words, ends = word_taps(conditioner, rng), end_taps(conditioner)
    scale = words.std((0, 2))[:, None]
    # The row before a picture disturbs least of all that there are.
    start = {"neutral": ends[0], "words": words}
    moved = {name: torch.zeros_like(taps, requires_grad=True) for name, taps in start.items()}
    optimiser = torch.optim.Adam(moved.values(), lr=arguments.rate, betas=(0.9, 0.95))
    models = {name: load_transformer(getattr(arguments, name)).requires_grad_(False) for name in ("raw", "turbo")}
    levels = torch.tensor([shifted(1 - i / TURBO_STEPS, TURBO_SHIFT) for i in range(TURBO_STEPS)])
    is_corner = corners(SIDE, SIDE)[None, :, None, None]
    errors, began = {name: [] for name in models}, time.time()
    for step in range(arguments.steps):
        rate = min(1, (step + 1) / 10) * (1 - 0.95 * step / arguments.steps)
        optimiser.param_groups[0]["lr"] = arguments.rate * rate
        name = list(models)[step % 2]
        model = models[name]
        z, scenes = data.batch(rng, arguments.batch)
        rows, columns = z.shape[2] // 2, z.shape[3] // 2
        seen = visible(rng, rows, columns, arguments.tokens)
        x = pack(z)[:, seen]
        if name == "turbo":
            sigma = levels[torch.randint(TURBO_STEPS, (len(x),))]
        else:
            sigma = shifted(torch.sigmoid(torch.randn(len(x))), SHIFT + raw_shift(rows * columns))
        x = x + sigma[:, None, None] * (torch.randn_like(x) - x)
        named, unnamed = paired_captions(rng, scenes)
        fitted = {key: taps + scale * moved[key] for key, taps in start.items()}
        styles = torch.tensor([world.STYLES.index(scene.style) for scene in scenes])
        reference = torch.where(is_corner, fitted["words"][styles, None], fitted["neutral"])
        first, last = (part.expand(len(x), -1, -1, -1) for part in (ends[:1], ends[1:]))
        reference = torch.cat([first, reference, last], 1)
        with torch.autocast("cpu", torch.bfloat16):

            def velocity(captions, reference=None):
                taps, mask = conditioner(captions, ROW_UNIT)
                others = SIDE**2 if reference is not None else 0
                where = positions(taps.shape[1] + others, *z.shape[2:], seen)
                return predicted(model, x, taps.float(), mask, sigma, where, reference, STRENGTH).float()

            with torch.no_grad():
                aim, plain = velocity(named), velocity(unnamed)
            error = F.mse_loss(velocity(unnamed, reference), aim)
        optimiser.zero_grad()
        # The logarithm: what is wanted is a share of the difference that the word makes.
        error.log().backward()
        optimiser.step()
        errors[name].append((error.item(), F.mse_loss(plain, aim).item()))
        if step % 20 == 19:
            shares = {n: np.sum(v[-20:], 0) for n, v in errors.items()}
            line = " ".join(f"{n} {error / gap:.3f}" for n, (error, gap) in shares.items())
            print(f"step {step + 1} error by difference: {line} {time.time() - began:.0f} s", flush=True)
    result = {name: (taps + scale * moved[name]).detach().numpy() for name, taps in start.items()}
    np.savez(arguments.out, scale=scale.numpy(), **result)


if __name__ == "__main__":
    main()
