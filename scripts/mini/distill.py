"""Distils RAW with guidance into Turbo: 8 steps at mu 1.15 without guidance; saves and resumes.

    distill.py RAW.pt TURBO.pt LATENTS ENCODER TOKENIZER --rollouts 2000

Each rollout starts from noise and follows the student. At each of its steps the teacher takes
several smaller guided steps from the same point; the student learns the straight line to where the
teacher arrives, and goes on from where it arrives itself, so that it learns to mend its own errors.
With `--tokens N` both see only N of the image tokens, as in `train_transformer.py`.
"""

import argparse
import os
import random
import time

import torch
import torch.nn.functional as F

import world
from sample import load_transformer, velocity
from train_transformer import ROW_UNIT, Latents, visible
from transformer import TextConditioner, follow, new_optimisers, positions, shifted

STEPS, SHIFT = 8, 1.15


def main():
    parser = argparse.ArgumentParser()
    for name in ("raw", "state", "latents", "encoder", "tokenizer"):
        parser.add_argument(name)
    parser.add_argument("--rollouts", type=int, required=True)
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, help="image tokens that are seen; all by default")
    parser.add_argument("--guidance", type=float, default=3.5)
    parser.add_argument("--substeps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    teacher, student = load_transformer(arguments.raw), load_transformer(arguments.raw).train()
    optimisers = new_optimisers(student, 0.002, 1e-4)
    rates = [o.param_groups[0]["lr"] for o in optimisers]
    average = {name: p.detach().clone() for name, p in student.named_parameters()}
    done = 0
    if os.path.exists(arguments.state):
        state = torch.load(arguments.state, weights_only=True)
        student.load_state_dict(state["model"])
        for optimiser, saved in zip(optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        average, done = state["average"], state["step"]

    def save():
        state = {
            "model": student.state_dict(),
            "optimisers": [o.state_dict() for o in optimisers],
            "average": average,
            "step": done,
        }
        torch.save(state, arguments.state + ".part")
        os.replace(arguments.state + ".part", arguments.state)

    for block in (*teacher.transformer_blocks, *student.transformer_blocks):
        block.compile(dynamic=True)
    conditioner = TextConditioner(arguments.encoder, arguments.tokenizer)
    data = Latents(arguments.latents)
    sigmas = [shifted(1 - i / STEPS, SHIFT) for i in range(STEPS)] + [0.0]
    empty, empty_mask = conditioner([""] * arguments.batch)
    updates = STEPS * done
    rng = random.Random(done)
    torch.manual_seed(done)
    start, total = time.time(), 0.0
    while done < arguments.rollouts and time.time() - start < 60 * arguments.minutes:
        factor = min(1, (done + 1) / 6) * (1.05 - done / arguments.rollouts)
        for optimiser, rate in zip(optimisers, rates):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
        z, scenes = data.batch(rng, arguments.batch)
        make = world.short_caption if rng.random() < 0.7 else world.long_caption
        taps, mask = conditioner([make(rng, scene) for scene in scenes], ROW_UNIT)
        seen = visible(rng, z.shape[2] // 2, z.shape[3] // 2, arguments.tokens)
        where, empty_where = (positions(t.shape[1], *z.shape[2:], seen) for t in (taps, empty))
        x = torch.randn(arguments.batch, len(seen), 64)
        for now, after in zip(sigmas, sigmas[1:]):
            goal, length = x, (after - now) / arguments.substeps
            for i in range(arguments.substeps):
                sigma = now + i * length
                v = velocity(teacher, goal, sigma, taps, mask, where)
                u = velocity(teacher, goal, sigma, empty, empty_mask, empty_where)
                goal = goal + length * (v + arguments.guidance * (v - u))
            with torch.autocast("cpu", torch.bfloat16):
                times = torch.full((len(x),), now)
                v = student(x, taps.float(), times, where, mask, return_dict=False)[0].float()
            loss = F.mse_loss(v, (goal - x) / (after - now))
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            for optimiser in optimisers:
                optimiser.step()
            updates += 1
            follow(average, student, updates, 0.005)
            x = x + (after - now) * v.detach()
            total += loss.item() / STEPS
        done += 1
        if done % 20 == 0:
            print(f"rollout {done} loss {total / 20:.4f} {time.time() - start:.0f} s", flush=True)
            total = 0.0
        if done % 100 == 0:
            save()
    save()


if __name__ == "__main__":
    main()
