"""Writes the trained language model as text_encoder/ and tokenizer/, in BF16 and under the names of Qwen3-VL.

    export_language.py STATE.pt OUT --tokenizer FOLDER
"""

import argparse
import shutil
from pathlib import Path

import torch
from transformers import AutoTokenizer

import language


def export(state, tokenizer_folder, folder):
    """Writes the averaged weights of a training state; returns the model as written."""
    folder = Path(folder)
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_folder))
    model = language.build(tokenizer)
    average = torch.load(state, weights_only=True, map_location="cpu")["average"]
    weights = {
        name.removeprefix("model."): tensor
        for name, tensor in average.items()
        if name.startswith("model.")
    }
    missing, surplus = model.load_state_dict(weights, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not surplus, (missing, surplus)
    model.to(torch.bfloat16).save_pretrained(folder / "text_encoder")
    (folder / "text_encoder" / "model.safetensors").chmod(0o644)
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copyfile(Path(tokenizer_folder) / name, folder / "tokenizer" / name)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state")
    parser.add_argument("output")
    parser.add_argument("--tokenizer", required=True, help="folder of the tokenizer")
    arguments = parser.parse_args()
    export(arguments.state, arguments.tokenizer, arguments.output)
    total = sum(file.stat().st_size for file in Path(arguments.output).glob("t*/*"))
    print(f"{total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
