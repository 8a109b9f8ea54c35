"""Compares the engine with diffusers on the mini checkpoint, stage by stage.

    compare.py --krea2 .build/release/krea2 [--folder weights/mini]

Both make the same pictures in float32; every tensor of the engine's dump is held against what
diffusers computed, within the limits of the engine's parity tests. Fails when one is beyond.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

import load

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "fixtures"))

from cases import Case  # noqa: E402
from reference import Recorder  # noqa: E402

RELATIVE, ABSOLUTE, LEVELS, SHARE = 2e-5, 1e-4, 1, 0.005

CASES = {
    "turbo": [
        Case("turbo", "mini", "a small red fox in the snow, watercolour", 512, 512, 8, seed=1),
        Case("wide", "mini", "two blue boats, neon", 784, 336, 2, seed=2),
    ],
    "raw": [
        Case(
            "raw", "mini", "a purple house at night, chalk drawing", 416, 624, 3,
            is_turbo=False, guidance=3.5, negative="a green tree", seed=3,
        ),
    ],
}


def dumped(krea2, file, case, folder):
    """What the engine computes: every tensor of its dump, and its own choice of the shift."""
    path = Path(folder) / f"{case.name}.safetensors"
    command = [
        krea2, "generate", case.prompt, "--model", file, "--size", f"{case.width}x{case.height}",
        "--steps", case.steps, "--seed", case.seed, "--precision", "f32", "--dump", path, "--quiet",
        "--output", Path(folder) / f"{case.name}.png",
    ]
    if case.negative is not None:
        command += ["--negative-prompt", case.negative]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    return load_file(path)


def is_near(name, ours, theirs):
    """Whether a tensor is within its limit, and by how much it differs, in words."""
    if ours.shape != theirs.shape:
        return False, f"shape {list(ours.shape)}, diffusers has {list(theirs.shape)}"
    if name.startswith("ids.") or name in ("noise", "sigmas"):
        return torch.equal(ours, theirs.to(ours.dtype)), "differs"
    if name == "rgb":
        difference = (ours.int() - theirs.int()).abs()
        share = (difference > 0).float().mean().item()
        return difference.max() <= LEVELS and share < SHARE, f"{difference.max()}, {share:.5f}"
    ours, theirs = ours.double(), theirs.double()
    if name == "vae.out":
        value = (ours - theirs).abs().max().item()
        return value < ABSOLUTE, f"{value:.2e}"
    value = ((ours - theirs).norm() / theirs.norm()).item()
    return value < RELATIVE, f"{value:.2e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--krea2", default=str(ROOT / ".build" / "release" / "krea2"))
    parser.add_argument("--folder", type=Path, default=load.FOLDER)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for variant, cases in CASES.items():
            recorder = Recorder(load.load(variant, arguments.folder))
            file = arguments.folder / f"{variant}.safetensors"
            for case in cases:
                ours = dumped(arguments.krea2, file, case, folder)
                with torch.no_grad():
                    theirs = recorder.record(case)
                    # The decoder alone; what latents differ by is told of them.
                    latents = ours["vae.in"][None, :, None]
                    decoded = recorder.pipeline.vae.decode(latents, return_dict=False)[0]
                    theirs["vae.out"] = decoded[0, :, 0]
                worst = {}
                for name, tensor in theirs.items():
                    if name not in ours:
                        near, words = False, "is not dumped"
                    else:
                        near, words = is_near(name, ours[name], tensor)
                    worst[name] = words
                    if not near:
                        failures += 1
                        print(f"{case.name}: {name}: {words}")
                shown = (f"{name} {worst[name]}" for name in ("latents", "vae.out", "rgb"))
                print(f"{case.name}: {', '.join(shown)}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
