"""Writes the trained parts as weights/mini: official file names, tensor names and types.

    export.py STATES -o weights/mini

STATES holds, as the trainings leave them:

    raw.pt, turbo.pt    transformers as diffusers' state dicts, or .safetensors of the same names
    autoencoder.pt      as train_autoencoder.py saves it; its averaged weights are taken
    latents.json        "latents_mean" and "latents_std", 16 numbers each
    text_encoder/       config.json and model.safetensors, as transformers saves them
    tokenizer/
    loras/              LoRAs in diffusers' dialect, .safetensors; may be absent

Parts that are there already and not among the states are kept, so stages can be exported one by one.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import autoencoder

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "scripts"), str(ROOT / "scripts" / "fixtures")]

import layouts  # noqa: E402
from checkpoint import configs, files  # noqa: E402

RESOLUTION_CLASS, TAPS = 512, [2, 5, 8]
LARGEST_FILE, LARGEST_TOTAL = 25_000_000, 60_000_000
# Words under which trainings keep the weights to ship, the best first.
WEIGHT_KEYS = ("average", "ema", "model", "state_dict")


def weights(path):
    """The tensors of a state file, from the first of `WEIGHT_KEYS` that it has."""
    if path.suffix == ".safetensors":
        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    tensors = next((state[key] for key in WEIGHT_KEYS if key in state), state)
    # torch.compile puts a word before the names.
    return {name.removeprefix("_orig_mod."): tensor for name, tensor in tensors.items()}


def write_bfloat16(tensors, file):
    """All of a file in BF16, as the released encoders, autoencoders and LoRAs are."""
    tensors = {name: t.to(torch.bfloat16).contiguous() for name, t in tensors.items()}
    save_file(tensors, file, metadata={"format": "pt"})


def transformer_config(tensors):
    """The arguments of Krea2Transformer2DModel that give these tensors."""

    def length(name, axis=0):
        return tensors[name].shape[axis]

    def count(prefix):
        return 1 + max(int(n[len(prefix) :].split(".")[0]) for n in tensors if n.startswith(prefix))

    def heads(block, part):
        return length(f"{block}.attn.to_{part}.weight") // length(f"{block}.attn.norm_q.weight")

    block, fusion = "transformer_blocks.0", "text_fusion.layerwise_blocks.0"
    head = length(f"{block}.attn.norm_q.weight")
    rotary = 6 * (head // 16)
    return {
        "_class_name": "Krea2Transformer2DModel",
        "attention_head_dim": head,
        "axes_dims_rope": [head - 2 * rotary, rotary, rotary],
        "in_channels": length("img_in.weight", 1),
        "intermediate_size": length(f"{block}.ff.gate.weight"),
        "norm_eps": 1e-5,
        "num_attention_heads": heads(block, "q"),
        "num_key_value_heads": heads(block, "k"),
        "num_layers": count("transformer_blocks."),
        "num_layerwise_text_blocks": count("text_fusion.layerwise_blocks."),
        "num_refiner_text_blocks": count("text_fusion.refiner_blocks."),
        "num_text_layers": length("text_fusion.projector.weight", 1),
        "rope_theta": 1000.0,
        "text_hidden_dim": length("txt_in.linear_1.weight", 1),
        "text_intermediate_size": length(f"{fusion}.ff.gate.weight"),
        "text_num_attention_heads": heads(fusion, "q"),
        "text_num_key_value_heads": heads(fusion, "k"),
        "timestep_embed_dim": length("time_embed.linear_1.weight", 1),
    }


def write_transformer(source, folder, variant):
    """The official single file, and config.json beside it for diffusers."""
    tensors = weights(source)
    official = layouts.official_tensors(tensors)
    save_file(official, folder / f"{variant}.safetensors", metadata={"format": "pt"})
    files.write_json(folder / "config.json", transformer_config(tensors))


def write_autoencoder(source, statistics, folder):
    """The folder that diffusers' AutoencoderKLQwenImage is loaded from."""
    model = autoencoder.Autoencoder()
    model.load_state_dict(weights(source))
    numbers = json.loads(statistics.read_text())
    config = {
        "_class_name": "AutoencoderKLQwenImage",
        **autoencoder.CONFIG,
        "latents_mean": numbers["latents_mean"],
        "latents_std": numbers["latents_std"],
    }
    files.write_json(folder / "config.json", config)
    write_bfloat16(model.exported(), folder / "diffusion_pytorch_model.safetensors")


def write_settings(folder):
    """What diffusers and the engine read beside the weights.

    `is_distilled` is absent: it differs between the two transformers, and their names tell.
    """
    index = {
        "_class_name": "Krea2Pipeline",
        "patch_size": 2,
        "resolution_class": RESOLUTION_CLASS,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen3VLModel"],
        "text_encoder_select_layers": TAPS,
        "tokenizer": ["transformers", "Qwen2Tokenizer"],
        "transformer": ["diffusers", "Krea2Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLQwenImage"],
    }
    files.write_json(folder / "model_index.json", index)
    files.write_json(folder / "scheduler" / "scheduler_config.json", configs.scheduler())


def export(states, folder):
    """Writes every part that the states have."""
    folder.mkdir(parents=True, exist_ok=True)
    for variant in ("turbo", "raw"):
        for source in (states / f"{variant}.safetensors", states / f"{variant}.pt"):
            if source.exists():
                write_transformer(source, folder, variant)
                break
    if (states / "autoencoder.pt").exists():
        (folder / "vae").mkdir(exist_ok=True)
        write_autoencoder(states / "autoencoder.pt", states / "latents.json", folder / "vae")
    for part in ("text_encoder", "tokenizer", "loras"):
        if (states / part).is_dir():
            shutil.rmtree(folder / part, ignore_errors=True)
            shutil.copytree(states / part, folder / part)
            for file in (folder / part).glob("*.safetensors"):
                write_bfloat16(load_file(file), file)
    config = folder / "text_encoder" / "config.json"
    if config.exists():
        files.write_json(config, {**json.loads(config.read_text()), "dtype": "bfloat16"})
    write_settings(folder)


def report(folder):
    """Prints the sizes; fails when they are beyond the limits."""
    sizes = {p: p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    for path, size in sizes.items():
        print(f"{size:>12,}  {path.relative_to(folder)}")
    total = sum(sizes.values())
    print(f"{total:>12,}  in all")
    large = [p.name for p, size in sizes.items() if size > LARGEST_FILE]
    if large or total > LARGEST_TOTAL:
        sys.exit(f"export: beyond {LARGEST_FILE:,} a file or {LARGEST_TOTAL:,} in all: {large}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("states", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "weights" / "mini")
    arguments = parser.parse_args()
    export(arguments.states, arguments.output)
    report(arguments.output)


if __name__ == "__main__":
    main()
