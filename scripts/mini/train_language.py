"""Trains the language model to expand captions and to caption pictures; saves and resumes.

    train_language.py STATE.pt --tokenizer FOLDER --minutes 30
    train_language.py STATE.pt --tokenizer FOLDER --minutes 60 --vision-only

The second phase leaves the language tower as it is, so that nothing changes for prompts without
pictures: what was trained on their states stays valid. Each phase has a schedule of its own; Muon
leads the second one. The tokenizer is trained first where FOLDER does not hold one. `--check` compares
the batched networks of this file with transformers' own, and the patches with those of its image
processor, and stops.

Steps are of three tasks: expanding, captioning, and looking. Looking trains the vision tower alone to
tell, through a linear layer that is thrown away, what each cell of a picture shows; captioning learns
that too. It teaches the tower in a fraction of the time.
"""

import argparse
import math
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoTokenizer
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

import language
import world
from muon import Muon

ROWS, LENGTH = 7, 256
# Shares of the steps; a looking step is the cheapest.
TASKS = {"expansion": 0.30, "captioning": 0.20, "looking": 0.50}
VISION_TASKS = {"captioning": 0.10, "looking": 0.90}
CELL_WEIGHT = 0.25
LOOKING_PATCHES = 3000
POOL, REFRESHED = 100, 12
# Width and height of the pictures, most of them small.
SMALL = [(w, h) for w in (128, 160, 192, 224, 256) for h in (128, 160, 192, 224, 256)]
LARGE = [(256, 256)] * 4 + [(224, 320), (320, 224), (192, 352), (352, 192)]
LARGE += [(320, 320), (256, 384), (384, 256), (384, 384)]
KINDS, COLOURS = world.KINDS, list(world.COLOURS)
STYLES, PLACES = world.STYLES, list(world.PLACES)
# What a cell may hold (or nothing), and what the whole picture shows: see `cell_labels`.
LABELS = [len(KINDS) + 1, len(COLOURS) + 1, len(STYLES), len(PLACES), 3, 3, 3]
LABELS += [len(world.POSITIONS) + 1, len(world.RELATIONS) + 1, len(world.SIZES), 3]


# The networks, for batches


class Networks(nn.Module):
    """The model with both towers run on whole batches, and the layer that names cells."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.cells = nn.Linear(language.TEXT["hidden_size"], sum(LABELS))
        self.visual, self.text = model.model.visual, model.model.language_model
        self.tables = {}

    def places(self, grid):
        """Position table and rotary phases of a grid of patches (rows, columns)."""
        if grid not in self.tables:
            sizes = torch.tensor([[1, *grid]])
            table = get_vision_interpolation_indices_and_weights(
                sizes, num_grid_per_side=self.visual.num_grid_per_side, mode=self.visual.interpolation_mode,
                align_corners=self.visual.interpolation_align_corners, spatial_merge_size=2,
            )  # fmt: skip
            phases = self.visual.rotary_pos_emb(torch.zeros(1), get_vision_position_ids(sizes, 2))
            self.tables[grid] = (*table, *phases)
        return self.tables[grid]

    def see(self, pixels, grid):
        """Rows of the language model from patches [pictures, patches, 1536], and those of deepstack."""
        visual, heads = self.visual, language.VISION["num_heads"]
        indices, weights, cos, sin = self.places(grid)
        count, patches, _ = pixels.shape
        proj = visual.patch_embed.proj
        x = F.linear(pixels, proj.weight.flatten(1), proj.bias)
        x = x + (visual.pos_embed(indices) * weights[:, :, None]).sum(1)
        deep = []
        for index, block in enumerate(visual.blocks):
            qkv = block.attn.qkv(block.norm1(x)).view(count, patches, 3, heads, -1)
            q, k, v = qkv.unbind(2)
            q, k = apply_rotary_pos_emb_vision(q, k, cos, sin)
            q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + block.attn.proj(y)
            x = x + block.mlp(block.norm2(x))
            if index in visual.deepstack_visual_indexes:
                merger = visual.deepstack_merger_list[visual.deepstack_visual_indexes.index(index)]
                deep.append(merger(x))
        return visual.merger(x), deep

    def talk(self, x, mask, cos, sin, deep):
        """Logits from embeddings [rows, length, width]; `deep` is added after the first layers."""
        for index, layer in enumerate(self.text.layers):
            x = layer(x, attention_mask=mask, position_embeddings=(cos, sin))
            if index < len(deep):
                x = x + deep[index]
        return F.linear(self.text.norm(x), self.text.embed_tokens.weight)

    def answer_loss(self, x, mask, cos, sin, deep, targets, weights):
        logits = self.talk(x, mask, cos, sin, deep).float()
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return losses @ weights.flatten() / weights.sum()

    def inputs(self, batch, pixels=None, grid=None):
        """What `talk` takes, and the pictures' rows."""
        ids, places = torch.from_numpy(batch.ids), torch.from_numpy(batch.positions)
        document = torch.from_numpy(batch.documents)
        same = document[:, :, None] == document[:, None, :]
        mask = (same | (document == 0)[:, None, :]).tril()[:, None]
        x = self.text.embed_tokens(ids)
        cos, sin = self.text.rotary_emb(x, places)
        deep = [torch.zeros_like(x) for _ in language.VISION["deepstack_visual_indexes"]]
        if pixels is None:
            return (x, mask, cos, sin, deep), None
        at = torch.from_numpy(batch.image_at)
        seen, levels = self.see(pixels, grid)

        def put(into, rows):
            return into.flatten(0, 1).index_copy(0, at, rows.flatten(0, -2).to(x.dtype)).view_as(x)

        deep = [put(zeros, rows) for zeros, rows in zip(deep, levels)]
        return (put(x, seen), mask, cos, sin, deep), seen

    def cell_loss(self, seen, labels):
        """Sum over the kinds of label; cells without a thing count less for its kind and colour."""
        parts = self.cells(seen.flatten(0, -2)).float().split(LABELS, dim=-1)
        weights = [torch.ones(part.shape[1]) for part in parts]
        weights[0][-1] = weights[1][-1] = 0.2
        return sum(
            F.cross_entropy(part, labels[:, i], weight)
            for i, (part, weight) in enumerate(zip(parts, weights))
        )


# Pictures


def cell_labels(scene, width, height):
    """What each cell shows, [cells, labels]: the thing whose circle holds its centre, and the whole scene."""
    columns, rows = width // language.CELL, height // language.CELL
    y, x = np.divmod(np.arange(rows * columns), columns)
    x, y = (x + 0.5) / columns, (y + 0.5) / rows
    labels = np.zeros((rows * columns, len(LABELS)), np.int64)
    labels[:, 2], labels[:, 3] = STYLES.index(scene.style), PLACES.index(scene.place)
    for i, value in enumerate((scene.intensity, scene.complexity, scene.movement)):
        labels[:, 4 + i] = world.third(value)
    for i, (words, word) in enumerate(((world.POSITIONS, scene.position), (world.RELATIONS, scene.relation))):
        labels[:, 7 + i] = [*words, None].index(word)
    labels[:, 9], labels[:, 10] = list(world.SIZES).index(scene.size), scene.count - 1
    labels[:, 0], labels[:, 1] = len(KINDS), len(COLOURS)
    short = min(width, height)
    for thing in scene.things:
        near = np.hypot((x - thing.x) * width, (y - thing.y) * height) < thing.radius * short
        labels[near, 0], labels[near, 1] = KINDS.index(thing.kind), COLOURS.index(thing.colour)
    return labels


class Pictures:
    """A pool of drawn pictures for each size, renewed little by little."""

    def __init__(self):
        self.pools = {}

    def draw(self, rng, size):
        scene = world.sample(rng)
        return scene, world.draw(scene, *size), cell_labels(scene, *size)

    def choose(self, rng):
        """A size and its pool."""
        size = rng.choice(SMALL if rng.random() < 0.65 else LARGE)
        pool = self.pools.setdefault(size, [])
        if len(pool) < POOL:
            pool += [self.draw(rng, size) for _ in range(POOL // 3)]
        else:
            for _ in range(REFRESHED):
                pool[rng.randrange(len(pool))] = self.draw(rng, size)
        return size, pool


def expansion_batch(rng, teacher):
    return language.pack(rng, teacher, lambda _: teacher.expansion(rng), ROWS, LENGTH)


def captioning_batch(rng, teacher, pictures):
    """A batch of pictures of one size, their patches, labels and grid of patches."""
    (width, height), pool = pictures.choose(rng)
    rows, columns = height // language.CELL, width // language.CELL
    order = []

    def make(number):
        if not order or number % len(pool) == 0:
            order[:] = rng.sample(range(len(pool)), len(pool))
        index = order[number % len(pool)]
        return teacher.captioning(rng, pool[index][0], rows * columns, index)

    batch = language.pack(rng, teacher, make, ROWS, LENGTH, (rows, columns))
    return batch, *stacked([pool[index] for index in batch.pictures]), (2 * rows, 2 * columns)


def looking_batch(rng, pictures):
    """Patches, labels and grid of pictures of one size alone."""
    (width, height), pool = pictures.choose(rng)
    rows, columns = height // 16, width // 16
    count = min(len(pool), max(1, LOOKING_PATCHES // (rows * columns)))
    chosen = [mirrored(*drawn) if rng.random() < 0.5 else drawn for drawn in rng.sample(pool, count)]
    return *stacked(chosen), (rows, columns)


def mirrored(scene, picture, labels):
    """A picture seen in a mirror; its scene is no longer true, its labels are."""
    columns = picture.shape[1] // language.CELL
    labels = labels.reshape(-1, columns, len(LABELS))[:, ::-1].reshape(-1, len(LABELS)).copy()
    for i, words in ((7, world.POSITIONS), (8, world.RELATIONS)):
        other = list(range(len(words) + 1))
        left, right = (j for j, word in enumerate(words) if word.split()[0] in ("left", "right"))
        other[left], other[right] = right, left
        labels[:, i] = np.array(other)[labels[:, i]]
    return scene, picture[:, ::-1], labels


def stacked(chosen):
    """Patches and labels of drawn pictures."""
    pixels = torch.from_numpy(np.stack([language.patches(picture) for _, picture, _ in chosen]))
    labels = torch.from_numpy(np.concatenate([labels for _, _, labels in chosen]))
    return pixels, labels


# Checks


def check(networks, tokenizer, teacher):
    """Compares batches with transformers' own model, one example at a time, and patches with its processor."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    rng, pictures = random.Random(0), Pictures()
    batch, pixels, _, grid = captioning_batch(rng, teacher, pictures)
    processor = Qwen2VLImageProcessorPil(
        patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_resize=False
    )
    (size, pool), = pictures.pools.items()
    picture = pool[batch.pictures[0]][1]
    theirs = processor(picture, return_tensors="pt")["pixel_values"]
    print("pictures", size, "patches differ by", (theirs - pixels[0]).abs().max().item())
    with torch.no_grad():
        arguments, _ = networks.inputs(batch, pixels, grid)
        ours = networks.talk(*arguments)
        worst, picture = 0.0, 0
        for row in range(ROWS):
            opening = batch.ids[row][batch.documents[row] == 0]
            for document in sorted(set(batch.documents[row]) - {-1, 0}):
                at = batch.documents[row] == document
                ids = torch.from_numpy(np.concatenate([opening, batch.ids[row][at]]))[None]
                logits = networks.model(
                    input_ids=ids, pixel_values=pixels[picture], image_grid_thw=torch.tensor([[1, *grid]]),
                    mm_token_type_ids=(ids == teacher.image_pad).int(),
                ).logits[0, len(opening) :]  # fmt: skip
                worst = max(worst, (logits - ours[row][torch.from_numpy(at)]).abs().max().item())
                picture += 1
    print(picture, "examples, logits differ by", worst, "of", ours.abs().max().item())


# Training


def load_tokenizer(folder):
    if not (Path(folder) / "tokenizer.json").exists():
        language.write_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state")
    parser.add_argument("--tokenizer", required=True, help="folder of the tokenizer")
    parser.add_argument("--minutes", type=float, default=30, help="of the phase's schedule, over all runs")
    parser.add_argument("--vision-only", action="store_true", help="the second phase")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="compare with transformers and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    tokenizer = load_tokenizer(arguments.tokenizer)
    teacher = language.Teacher(tokenizer)
    networks = Networks(language.build(tokenizer))
    if arguments.check:
        return check(networks, tokenizer, teacher)

    average = {name: p.detach().clone() for name, p in networks.named_parameters()}
    hidden = []
    if arguments.vision_only:
        hidden = [p for n, p in networks.visual.named_parameters() if p.dim() > 1 and "pos_embed" not in n]
    others = [p for p in networks.parameters() if not any(p is q for q in hidden)]
    optimisers = [
        torch.optim.AdamW(
            [
                {"params": [p for p in others if p.dim() > 1], "weight_decay": 0.05},
                {"params": [p for p in others if p.dim() == 1], "weight_decay": 0.0},
            ],
            lr=arguments.rate, betas=(0.9, 0.98), fused=True,
        )
    ]  # fmt: skip
    if hidden:
        optimisers.append(Muon(hidden, lr=10 * arguments.rate))
    rates = [optimiser.param_groups[0]["lr"] for optimiser in optimisers]
    step, seconds = 0, {}
    phase, tasks = ("vision", VISION_TASKS) if arguments.vision_only else ("all", TASKS)
    if arguments.vision_only:
        networks.text.requires_grad_(False)
    if os.path.exists(arguments.state):
        state = torch.load(arguments.state, weights_only=True)
        networks.load_state_dict(state["model"])
        if state["phase"] == phase:
            for optimiser, saved in zip(optimisers, state["optimisers"]):
                optimiser.load_state_dict(saved)
        average, step, seconds = state["average"], state["step"], state["seconds"]
        if arguments.vision_only:  # the language tower is the averaged one from here on
            networks.load_state_dict(average, strict=False)
    spent = seconds.get(phase, 0.0)

    def save():
        state = {
            "model": networks.state_dict(), "optimisers": [o.state_dict() for o in optimisers],
            "average": average, "step": step, "phase": phase, "seconds": {**seconds, phase: spent},
        }  # fmt: skip
        torch.save(state, arguments.state + ".part")
        os.replace(arguments.state + ".part", arguments.state)

    answer_loss = torch.compile(networks.answer_loss)
    rng, pictures = random.Random(step), Pictures()
    budget, before = 60 * arguments.minutes, time.time()
    sums = {task: [0.0, 0] for task in tasks}
    examples, started = 0, False
    while spent < budget:
        progress = spent / budget
        shape = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * progress))
        for optimiser, rate in zip(optimisers, rates):
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1, (step + 1) / 150) * shape
        task = rng.choices(list(tasks), tasks.values())[0]
        with torch.autocast("cpu", torch.bfloat16):
            if task == "looking":
                pixels, labels, grid = looking_batch(rng, pictures)
                loss = networks.cell_loss(networks.see(pixels, grid)[0], labels)
            elif task == "captioning":
                batch, pixels, labels, grid = captioning_batch(rng, teacher, pictures)
                parts, seen = networks.inputs(batch, pixels, grid)
                cells = networks.cell_loss(seen, labels)
            else:
                batch = expansion_batch(rng, teacher)
                parts, _ = networks.inputs(batch)
            if task != "looking":
                targets, weights = torch.from_numpy(batch.targets), torch.from_numpy(batch.weights)
                loss = answer_loss(*parts, targets, weights)
                examples += int(batch.documents.max())
        sums[task][0] += loss.item()
        sums[task][1] += 1
        for optimiser in optimisers:
            optimiser.zero_grad()
        (loss + CELL_WEIGHT * cells if task == "captioning" else loss).backward()
        torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        step += 1
        decay = min(0.998, step / (step + 20))
        live = {name: p.detach() for name, p in networks.named_parameters() if p.requires_grad}
        torch._foreach_lerp_([average[name] for name in live], list(live.values()), 1 - decay)
        now = time.time()
        if started:  # the first step compiles
            spent += now - before
        before, started = now, True
        if step % 50 == 0:
            figures = " ".join(f"{key} {total / max(count, 1):.3f}" for key, (total, count) in sums.items())
            print(f"step {step} {figures} examples {examples} {spent:.0f} s", flush=True)
            sums = {task: [0.0, 0] for task in tasks}
        if step % 200 == 0:
            save()
    save()


if __name__ == "__main__":
    main()
