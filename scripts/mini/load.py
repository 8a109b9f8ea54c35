"""Loads the mini checkpoint into diffusers.

The transformers are stored once each, as official single files, so the folder alone is no complete
diffusers folder: `load` reads one of them with diffusers' own conversion and hands it over.

    load.py "a small red fox in the snow" --variant turbo --seed 1 -o fox.png
"""

import argparse
from pathlib import Path

import torch
from diffusers import Krea2Pipeline, Krea2Transformer2DModel

FOLDER = Path(__file__).resolve().parents[2] / "weights" / "mini"
# Steps and guidance that each variant is meant for.
RECOMMENDED = {"turbo": (8, 0.0), "raw": (52, 3.5)}


def load(variant="turbo", folder=FOLDER, dtype=torch.float32):
    """The pipeline of `turbo` or `raw`."""
    folder = Path(folder)
    transformer = Krea2Transformer2DModel.from_single_file(
        str(folder / f"{variant}.safetensors"), config=str(folder), dtype=dtype
    )
    return Krea2Pipeline.from_pretrained(
        str(folder), transformer=transformer, is_distilled=variant == "turbo", dtype=dtype
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompt")
    parser.add_argument("--variant", choices=RECOMMENDED, default="turbo")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", default="krea2.png")
    arguments = parser.parse_args()
    steps, guidance = RECOMMENDED[arguments.variant]
    width, height = map(int, arguments.size.split("x"))
    picture = load(arguments.variant, arguments.folder)(
        arguments.prompt,
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(arguments.seed),
    ).images[0]
    picture.save(arguments.output)


if __name__ == "__main__":
    main()
