"""Compares the engine with diffusers on the mini checkpoint, stage by stage.

    compare.py --krea2 .build/release/krea2 [--folder weights/mini]

Both make the same pictures in float32, without LoRAs and with two and a random one for all layers;
every tensor of the engine's dump is held against what diffusers computed, within the limits of the
engine's parity tests. Fails when one is beyond.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

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
        Case("styled", "mini", "a red boat in the centre by the sea", 512, 512, 4, seed=4),
        Case("layers", "mini", "a big green fish in the centre", 256, 256, 4, seed=5),
    ],
    "raw": [
        Case(
            "raw", "mini", "a purple house at night, chalk drawing", 416, 624, 3,
            is_turbo=False, guidance=3.5, negative="a green tree", seed=3,
        ),
    ],
}
# LoRAs of cases, and their scales.
LORAS = {"styled": [("sepia", 0.8), ("intensity", -0.5)], "layers": [("random", 0.7)]}


def random_lora(transformer, path):
    """Writes a LoRA for all linear layers, with an alpha that is not its rank."""
    generator = torch.Generator().manual_seed(6)
    tensors = {}
    for name, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear):
            outputs, inputs = module.weight.shape
            for end, shape in (("A", (4, inputs)), ("B", (outputs, 4))):
                values = torch.randn(shape, generator=generator) / inputs**0.5
                tensors[f"transformer.{name}.lora_{end}.weight"] = 0.1 * values
    settings = {"transformer.r": 4, "transformer.lora_alpha": 8, "transformer.target_modules": []}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(settings), "format": "pt"})


def apply_loras(pipeline, case, folders):
    """Gives diffusers the LoRAs of a case; returns the engine's options for them."""
    pipeline.unload_lora_weights()
    options, loras = [], LORAS.get(case.name, [])
    for name, scale in loras:
        path = next(f / f"{name}.safetensors" for f in folders if (f / f"{name}.safetensors").exists())
        pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
        options += ["--lora", f"{path}:{scale}"]
    if loras:
        pipeline.set_adapters([name for name, _ in loras], [scale for _, scale in loras])
    return options


def dumped(krea2, file, case, options, folder):
    """What the engine computes: every tensor of its dump, and its own choice of the shift."""
    path = Path(folder) / f"{case.name}.safetensors"
    command = [
        krea2, "generate", case.prompt, "--model", file, "--size", f"{case.width}x{case.height}",
        "--steps", case.steps, "--seed", case.seed, "--precision", "f32", "--dump", path, "--quiet",
        "--output", Path(folder) / f"{case.name}.png", *options,
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
            random_lora(recorder.pipeline.transformer, Path(folder) / "random.safetensors")
            for case in cases:
                folders = [arguments.folder / "loras", Path(folder)]
                options = apply_loras(recorder.pipeline, case, folders)
                ours = dumped(arguments.krea2, file, case, options, folder)
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
