"""Draws scenes and encodes them: `latents.py AUTOENCODER.pt OUT --side 256 --count 20000`.

OUT/<width>x<height>.npy holds normalised latents as float16 [count, 16, height / 8, width / 8] and
OUT/<width>x<height>.pickle the scenes. Sizes are the documented ones of the class `side`, square
ones more often than the others. Adds to what is there until the count is reached.
"""

import argparse
import os
import pickle
import random
import zlib

import numpy as np
import torch

import world
from autoencoder import Autoencoder

# Sides of the documented sizes at class 512.
SIZES = [(512, 512), (592, 448), (624, 416), (688, 384), (784, 336), (464, 576), (416, 624), (384, 688)]


def sizes_of_class(side):
    """The documented sizes scaled to a class, in multiples of 16."""
    return [tuple(max(16, round(s * side / 512 / 16) * 16) for s in size) for size in SIZES]


def load_autoencoder(path):
    """The averaged weights, and mean and deviation of each latent channel if they are known."""
    state = torch.load(path, weights_only=True)
    model = Autoencoder()
    model.load_state_dict(state["average"], strict=False)
    return model.eval().to(memory_format=torch.channels_last), state.get("statistics")


def pixels(picture):
    """uint8 [h, w, 3] to float [1, 3, h, w] in -1 ... 1."""
    return torch.from_numpy(picture.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]


def measure(model, count=400, side=256):
    """Mean and deviation of each latent channel over drawn pictures."""
    rng = random.Random(5)
    with torch.no_grad():
        z = torch.cat([model.encode(pixels(world.draw(world.sample(rng), side, side))) for _ in range(count)])
    return {"mean": z.mean((0, 2, 3)), "std": z.std((0, 2, 3))}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("autoencoder")
    parser.add_argument("out")
    parser.add_argument("--side", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--square", type=float, default=0.5, help="share of square pictures")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, statistics = load_autoencoder(arguments.autoencoder)
    if statistics is None:
        statistics = measure(model)
        state = torch.load(arguments.autoencoder, weights_only=True)
        torch.save(state | {"statistics": statistics}, arguments.autoencoder + ".part")
        os.replace(arguments.autoencoder + ".part", arguments.autoencoder)
    mean, std = (statistics[k][None, :, None, None] for k in ("mean", "std"))
    os.makedirs(arguments.out, exist_ok=True)
    sizes = sizes_of_class(arguments.side)
    shares = [arguments.square] + [(1 - arguments.square) / (len(sizes) - 1)] * (len(sizes) - 1)
    for (width, height), share in zip(sizes, shares):
        count = round(arguments.count * share)
        path = f"{arguments.out}/{width}x{height}"
        if count == 0 or os.path.exists(path + ".pickle"):
            continue
        rng = random.Random(zlib.crc32(path.encode()))
        scenes = [world.sample(rng) for _ in range(count)]
        latents = np.empty((count, 16, height // 8, width // 8), np.float16)
        for first in range(0, count, 8):
            group = scenes[first : first + 8]
            x = torch.cat([pixels(world.draw(scene, width, height)) for scene in group])
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                z = model.encode(x.to(memory_format=torch.channels_last)).float()
            latents[first : first + 8] = ((z - mean) / std).numpy()
        np.save(path + ".npy", latents)
        with open(path + ".pickle", "wb") as file:
            pickle.dump(scenes, file)
        print(path, count, flush=True)


if __name__ == "__main__":
    main()
