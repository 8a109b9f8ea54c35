"""Trains the judges on drawn pictures, tells how good they are on held-out ones, and saves them.

    train_judges.py --minutes 10              trains and writes judges.safetensors
    train_judges.py --minutes 10 --resume     goes on with the saved ones, at --rate and --seed
    train_judges.py --minutes 0               only tells how good the saved ones are
    train_judges.py --all-styles              trains what also knows the styles of LoRAs, a minute
"""

import argparse
import dataclasses
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import judges
import world

BATCH = 32
# Sides that are drawn, halved for the detector: the square and the seven other shapes.
SHAPES = [
    (256, 256),
    (336, 256), (384, 256), (464, 256), (592, 256), (256, 320), (256, 384), (256, 464),
]


def shape_of(rng):
    """Half of the pictures are squares."""
    return SHAPES[0] if rng.random() < 0.5 else rng.choice(SHAPES[1:])


def drawn(rng, shape, held_out=False):
    """A scene and its pixels at half the size it is drawn in."""
    scene = world.sample(rng, held_out)
    scale = rng.choice([1, 1, 1, 2])
    width, height = (side * scale // 2 for side in shape)
    x = judges.prepared(world.draw(scene, width, height))[0]
    return scene, ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def targets(scenes, rows, columns):
    """Heat [n, rows, columns], and for each thing: picture, row, column, dx, dy, kind, colour."""
    heat = torch.zeros(len(scenes), rows, columns)
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    things = []
    for index, scene in enumerate(scenes):
        for thing in scene.things:
            cx, cy = thing.x * columns, thing.y * rows
            spot = torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 1.3)
            heat[index] = torch.maximum(heat[index], spot)
            kind = world.KINDS.index(thing.kind)
            colour = judges.COLOUR_NAMES.index(thing.colour)
            # The middle cell and its neighbours learn, for the hottest may be one of them.
            for row in range(int(cy) - 1, int(cy) + 2):
                for column in range(int(cx) - 1, int(cx) + 2):
                    if 0 <= row < rows and 0 <= column < columns:
                        dx, dy = cx - column - 0.5, cy - row - 0.5
                        things.append((index, row, column, dx, dy, kind, colour))
    return heat, torch.tensor(things)


def loss_of(model, x, scenes):
    """Sum of the losses of heat, place, kind, colour and style."""
    with torch.autocast("cpu", torch.bfloat16):
        cells, style = model(x)
    cells, style = cells.float(), style.float()
    heat, things = targets(scenes, *cells.shape[2:])
    weight = 1 + 8 * heat
    loss = 4 * (F.binary_cross_entropy_with_logits(cells[:, 0], heat, weight) / weight.mean())
    at = cells[things[:, 0].long(), :, things[:, 1].long(), things[:, 2].long()]
    kinds = len(world.KINDS)
    loss = loss + 0.3 * F.smooth_l1_loss(at[:, 1:3], things[:, 3:5])
    loss = loss + F.cross_entropy(at[:, 3 : 3 + kinds], things[:, 5].long())
    loss = loss + F.cross_entropy(at[:, 3 + kinds :], things[:, 6].long())
    names = torch.tensor([world.STYLES.index(scene.style) for scene in scenes])
    return loss + F.cross_entropy(style, names)


def disturbed(x):
    """A little blur, noise and another brightness, as made pictures have."""
    blurred = F.avg_pool2d(F.pad(x, (1,) * 4, mode="replicate"), 3, 1)
    x = torch.lerp(x, blurred, torch.rand(len(x), 1, 1, 1) * 0.8)
    x = x + 0.06 * torch.rand(len(x), 1, 1, 1) * torch.randn_like(x)
    return x * (1 + 0.05 * torch.randn(len(x), 1, 1, 1)) + 0.03 * torch.randn(len(x), 3, 1, 1)


class Score:
    """Counts of right answers by name."""

    def __init__(self):
        self.right, self.asked = {}, {}

    def add(self, name, is_right):
        self.right[name] = self.right.get(name, 0) + bool(is_right)
        self.asked[name] = self.asked.get(name, 0) + 1

    def __str__(self):
        parts = (f"{n} {100 * self.right[n] / self.asked[n]:.1f} %" for n in sorted(self.asked))
        return ", ".join(parts)


def evaluate(model, count, seed=4242):
    """Accuracies on held-out drawn pictures of all shapes."""
    rng = random.Random(seed)
    score, distances = Score(), []
    model.eval()
    for _ in range(count):
        scene, pixels = drawn(rng, shape_of(rng), held_out=True)
        things, style = judges.look(model, pixels.permute(1, 2, 0).numpy())
        score.add("style", style == scene.style)
        score.add("count", len(things) == len(scene.things))
        if scene.position:
            score.add("kind", things[0].kind == scene.things[0].kind)
            score.add("colour", things[0].colour == scene.things[0].colour)
            score.add("position", judges.position_of(things[0]) == scene.position)
            distances.append(np.hypot(things[0].x - scene.things[0].x, things[0].y - scene.things[0].y))
        else:
            for thing in scene.things:
                near = min(things, key=lambda t: (t.x - thing.x) ** 2 + (t.y - thing.y) ** 2)
                score.add("kind of several", near.kind == thing.kind)
                score.add("colour of several", near.colour == thing.colour)
    return f"{score}; centre off by {np.mean(distances):.3f} of a side"


def monotone(count=40, seed=7):
    """Means of each statistic on scenes that differ in that attribute alone, at 0, 0.25, ... 1."""
    rng = random.Random(seed)
    scenes = [world.sample(rng, held_out=True) for _ in range(count)]
    lines = []
    for name, statistic in judges.STATISTICS.items():
        values = np.array(
            [
                [
                    statistic(world.draw(dataclasses.replace(scene, **{name: level}), 256, 256))
                    for level in (0, 0.25, 0.5, 0.75, 1)
                ]
                for scene in scenes
            ]
        )
        steps = np.diff(values, axis=1)
        errors = steps.std(0, ddof=1) / np.sqrt(count)
        means = " ".join(f"{mean:.2f}" for mean in values.mean(0))
        ratio = " ".join(f"{step / error:.1f}" for step, error in zip(steps.mean(0), errors))
        lines.append(f"{name}: {means} (steps in standard errors: {ratio})")
    return "\n".join(lines)


def train(arguments):
    rng = random.Random(arguments.seed)
    model = judges.loaded(arguments.output) if arguments.resume else judges.Judges()
    model = model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=arguments.rate, weight_decay=0.02)
    pool = []
    for _ in range(arguments.pool // BATCH):
        shape = shape_of(rng)
        pool.append((shape, [drawn(rng, shape) for _ in range(BATCH)]))
    print(f"{len(pool) * BATCH} pictures drawn", flush=True)
    start, step, total = time.monotonic(), 0, 0.0
    while (elapsed := time.monotonic() - start) < 60 * arguments.minutes:
        progress = elapsed / (60 * arguments.minutes)
        for group in optimiser.param_groups:
            group["lr"] = arguments.rate * min(1, (step + 1) / 100) * (0.01 + 0.99 * (1 - progress))
        # Some pictures of the batch are new each time.
        index = rng.randrange(len(pool))
        shape, batch = pool[index]
        for _ in range(arguments.fresh):
            batch[rng.randrange(BATCH)] = drawn(rng, shape)
        x = torch.stack([pixels for _, pixels in batch]).float() / 127.5 - 1
        x = disturbed(x).to(memory_format=torch.channels_last)
        model.train()
        loss = loss_of(model, x, [scene for scene, _ in batch])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        step += 1
        total += loss.item()
        if step % 100 == 0:
            print(f"step {step} loss {total / 100:.3f} {elapsed:.0f} s", flush=True)
            total = 0.0
        if step % 500 == 0:
            print(evaluate(model, 150), flush=True)
    save(model.eval(), arguments.output)


def train_all_styles(arguments, steps=400):
    """Teaches the last layer for all styles, on the features that the others have led to."""
    model, rng = judges.loaded(arguments.output), random.Random(arguments.seed)

    def features(count, held_out):
        inputs, names = [], []
        for index in range(count):
            style = world.ALL_STYLES[index % len(world.ALL_STYLES)]
            scene = dataclasses.replace(world.sample(rng, held_out), style=style)
            width, height = shape_of(rng)
            x = judges.prepared(world.draw(scene, width, height))
            with torch.no_grad():
                inputs.append(model.body(x if held_out else disturbed(x)).mean((2, 3))[0])
            names.append(index % len(world.ALL_STYLES))
        return torch.stack(inputs), torch.tensor(names)

    inputs, names = features(arguments.pool // 4, held_out=False)
    optimiser = torch.optim.AdamW(model.all_styles.parameters(), lr=0.03, weight_decay=0.01)
    for _ in range(steps):
        loss = F.cross_entropy(model.all_styles(inputs), names)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    save(model, arguments.output)
    inputs, names = features(arguments.count // 2, held_out=True)
    right = (model.all_styles(inputs).argmax(1) == names).float()
    for index, style in enumerate(world.ALL_STYLES):
        print(f"{style} {100 * right[names == index].mean():.1f} %")


def save(model, file):
    """Writes the judges in half precision."""
    save_file(
        {n: t.half().contiguous() for n, t in model.state_dict().items() if t.is_floating_point()},
        file,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=judges.FILE)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--all-styles", action="store_true")
    parser.add_argument("--rate", type=float, default=3e-3, help="of learning, at the start")
    parser.add_argument("--pool", type=int, default=8000, help="pictures drawn before training")
    parser.add_argument("--fresh", type=int, default=4, help="pictures drawn anew in a batch")
    parser.add_argument("--count", type=int, default=1000, help="held-out pictures at the end")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    if arguments.all_styles:
        train_all_styles(arguments)
        return
    if arguments.minutes > 0:
        train(arguments)
    print(evaluate(judges.loaded(arguments.output), arguments.count))
    print(monotone())


if __name__ == "__main__":
    main()
