"""Trains the autoencoder on crops of drawn pictures; saves and resumes.

    train_autoencoder.py STATE.pt --minutes 60
"""

import argparse
import os
import random
import time

import numpy as np
import torch
import torch.nn.functional as F

import world
from autoencoder import Autoencoder
from muon import Muon

CROP, BATCH, POOL = 128, 16, 1500
# Deviation of the noise on latents, which deviate by 2 to 3, and the steps until it is reached.
NOISE, SETTLED = 0.35, 1400


def drawn(rng):
    """A picture of a random size, so that the network meets textures of all the sizes in use."""
    side = rng.choice([128, 192, 256, 256, 384])
    return world.draw(world.sample(rng), side, side)


def crop(rng, picture):
    """A square of a picture as [3, CROP, CROP] in -1 ... 1."""
    y, x = (rng.randrange(picture.shape[i] - CROP + 1) for i in range(2))
    part = picture[y : y + CROP, x : x + CROP].astype(np.float32) / 127.5 - 1
    return torch.from_numpy(part).permute(2, 0, 1)


def loss_of(output, target):
    """Mean absolute error of pixels and of their differences to neighbours."""
    loss = F.l1_loss(output, target) + F.mse_loss(output, target)
    for axis in (2, 3):
        loss = loss + 0.5 * F.l1_loss(output.diff(dim=axis), target.diff(dim=axis))
    return loss


def evaluate(model, seed=99, count=32, side=256):
    """Mean PSNR in decibels over held-out pictures."""
    rng = random.Random(seed)
    values = []
    with torch.no_grad():
        for _ in range(count):
            picture = world.draw(world.sample(rng, held_out=True), side, side)
            x = torch.from_numpy(picture.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
            y = model.decode(model.encode(x)).clamp(-1, 1)
            values.append(-10 * torch.log10(F.mse_loss(y, x) / 4).item())
    return sum(values) / len(values)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("state")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--total", type=int, default=2000, help="steps of the whole schedule")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = Autoencoder().to(memory_format=torch.channels_last)
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    # The kernels between hidden channels; first and last layers, norms and biases are the others.
    kernels = [p for p in model.parameters() if p.ndim == 4 and min(p.shape[:2]) > 3]
    others = [p for p in model.parameters() if not any(p is k for k in kernels)]
    optimisers = [Muon(kernels, lr=0.01), torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.99))]
    rates = [optimiser.param_groups[0]["lr"] for optimiser in optimisers]
    step = 0
    if os.path.exists(arguments.state):
        state = torch.load(arguments.state, weights_only=True)
        model.load_state_dict(state["model"])
        for optimiser, saved in zip(optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        average, step = state["average"], state["step"]

    def save():
        torch.save(
            {
                "model": model.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in optimisers],
                "average": average,
                "step": step,
            },
            arguments.state + ".part",
        )
        os.replace(arguments.state + ".part", arguments.state)

    def reconstructed(x):
        """Latents and output; noise on the latents makes them smooth, which the diffusion needs.

        There is little of it at first, when it would hide everything.
        """
        z = model.encode(x)
        return z, model.decode(z + NOISE * min(1, step / SETTLED) * torch.randn_like(z))

    rng = random.Random(step)
    pool = [drawn(rng) for _ in range(POOL if step < arguments.total else 1)]
    start, total = time.time(), 0.0
    while step < arguments.total and time.time() - start < 60 * arguments.minutes:
        factor = min(1, (step + 1) / 100) * (1.01 - step / arguments.total)
        for optimiser, rate in zip(optimisers, rates):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
        for _ in range(2):
            pool[rng.randrange(len(pool))] = drawn(rng)
        x = torch.stack([crop(rng, rng.choice(pool)) for _ in range(BATCH)])
        x = x.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            z, y = reconstructed(x)
        loss = loss_of(y.float(), x) + 1e-4 * z.float().square().mean()
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        step += 1
        decay = min(0.999, step / (step + 20))
        for name, p in model.named_parameters():
            average[name].lerp_(p.detach(), 1 - decay)
        total += loss.item()
        if step % 100 == 0:
            print(f"step {step} loss {total / 100:.4f} {(time.time() - start):.0f} s", flush=True)
            total = 0.0
        if step % 500 == 0:
            save()
            live = {name: p.detach().clone() for name, p in model.named_parameters()}
            model.load_state_dict(average, strict=False)
            print(f"step {step} held-out {evaluate(model):.2f} dB", flush=True)
            model.load_state_dict(live, strict=False)
    save()


if __name__ == "__main__":
    main()
