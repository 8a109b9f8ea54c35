#!/usr/bin/env python3
"""Times torch, diffusers and transformers in alternation with `krea2 bench`.

    compare.py [gemm] [attention] [block] [te] [vae] [options]

In each round both sides do the same work once; what the machine does besides disturbs both. Every
pair is printed with its ratio (peer / krea2, so more is faster), and the medians at the end. Both
sides have warmed up before. The peers keep their weights in memory; so does krea2, but for te,
which reads its weights from the file each time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))
os.environ["HF_HUB_OFFLINE"] = "1"

import peers  # noqa: E402
import torch  # noqa: E402
from checkpoint import networks  # noqa: E402

GROUPS = ["gemm", "attention", "block", "te", "vae"]
SIZES = {"full": networks.FULL, "tiny": networks.TINY}
# One block; nine layers of the encoder, eight of which are run.
REDUCED = ["--blocks", "1", "--text-layers", "9", "--taps", "3"]
ENCODER_LAYERS = 8


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    groups = arguments.groups or GROUPS
    if arguments.model is None and {"block", "te", "vae"} & set(groups):
        arguments.model = made_model(arguments.preset)
    pairs = []
    with torch.inference_mode():
        for group in groups:
            pairs += compared(group, arguments)
    print_medians(pairs)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", type=group_name, metavar="GROUP")
    parser.add_argument("-r", "--repetitions", type=int, default=5, metavar="N")
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count(), metavar="N")
    parser.add_argument("--size", default="1024x1024", metavar="LIST", help="(%(default)s)")
    parser.add_argument("--tokens", type=int, default=64, metavar="N", help="(%(default)s)")
    parser.add_argument("--rows", default="45,1032,4160", metavar="LIST", help="(%(default)s)")
    parser.add_argument("--matrices", default="6144x6144,6144x16384,16384x6144", metavar="LIST")
    parser.add_argument(
        "--precision", default="bf16,int8", metavar="LIST", help="of krea2 (%(default)s)"
    )
    parser.add_argument("--peer", default="bf16", metavar="LIST", help="f32, bf16 (%(default)s)")
    parser.add_argument("--preset", choices=SIZES, default="full", help="(%(default)s)")
    parser.add_argument(
        "-m",
        "--model",
        type=Path,
        metavar="DIR",
        help="for krea2; default: random weights, made once in .build",
    )
    parser.add_argument(
        "--krea2", type=Path, default=ROOT / ".build" / "release" / "krea2", metavar="PATH"
    )
    return parser.parse_args()


def group_name(text: str) -> str:
    """One of the groups."""
    if text not in GROUPS:
        raise argparse.ArgumentTypeError(f"'{text}' is not one of {', '.join(GROUPS)}")
    return text


def made_model(preset: str) -> Path:
    """A model of random weights, which is kept for the next time."""
    folder = ROOT / ".build" / f"compare-{preset}"
    if not folder.exists():
        part = folder.with_name(folder.name + ".part")
        script = ROOT / "scripts" / "make-checkpoint"
        subprocess.run([script, "--preset", preset, *REDUCED, "-o", part], check=True)
        part.rename(folder)
    return folder


# MARK: The two sides


def peer_work(group: str, arguments: argparse.Namespace) -> dict[tuple[str, str], peers.Work]:
    """The peer's work by the shape as `krea2 bench` writes it, and its type."""
    sizes = SIZES[arguments.preset]
    pictures = [tuple(map(int, size.split("x"))) for size in arguments.size.split(",")]
    work = {}
    for name in arguments.peer.split(","):
        dtype = peers.TYPES[name]
        if group == "gemm":
            for matrix in arguments.matrices.split(","):
                inputs, outputs = map(int, matrix.split("x"))
                for rows in map(int, arguments.rows.split(",")):
                    shape = f"{rows}x{inputs}x{outputs}"
                    work[shape, name] = peers.gemm(rows, inputs, outputs, dtype)
        elif group == "te":
            shape = f"{arguments.tokens} tokens"
            work[shape, name] = peers.text_encoder(sizes, ENCODER_LAYERS, arguments.tokens, dtype)
        for width, height in pictures if group in ("attention", "block", "vae") else []:
            rows = width * height // 256 + arguments.tokens
            shape = f"{width}x{height}, {rows} tokens"
            if group == "attention":
                work[shape, name] = peers.attention(rows, dtype)
            elif group == "block":
                work[shape, name] = peers.block(sizes, width, height, arguments.tokens, dtype)
            else:
                work[f"{width}x{height}", name] = peers.decoder(sizes, width, height, dtype)
    return work


def our_seconds(group: str, arguments: argparse.Namespace) -> dict[tuple[str, str], float]:
    """Seconds of one repetition of krea2 by shape and precision."""
    command = [arguments.krea2, "bench", group, "-r", "1", "-o", "jsonl", "--quiet"]
    command += ["-t", str(arguments.threads), "--precision", arguments.precision]
    if group == "gemm":
        command += ["--rows", arguments.rows, "--matrices", arguments.matrices]
    else:
        command += ["--size", arguments.size, "--tokens", str(arguments.tokens)]
    if group in ("block", "te", "vae"):
        command += ["-m", arguments.model]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = [json.loads(line) for line in output.splitlines()]
    return {(row["shape"], row["precision"]): row["medianSeconds"] for row in rows}


def timed(work: peers.Work) -> float:
    """Wall seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# MARK: Comparison


def compared(group: str, arguments: argparse.Namespace) -> list[tuple]:
    """All pairs of a group: labels, the peer's seconds and ours."""
    work = peer_work(group, arguments)
    for item in work.values():
        item()
    pairs = {}
    for round_number in range(arguments.repetitions):
        # Either side begins as often as the other.
        ours = our_seconds(group, arguments) if round_number % 2 else {}
        theirs = {key: timed(item) for key, item in work.items()}
        ours = ours or our_seconds(group, arguments)
        for (shape, peer), their_seconds in theirs.items():
            for (our_shape, precision), seconds in ours.items():
                if our_shape != shape:
                    continue
                print(
                    f"{round_number + 1}  {group}, {shape}: peer {peer} {their_seconds:.4g} s, "
                    f"krea2 {precision} {seconds:.4g} s, ratio {their_seconds / seconds:.2f}",
                    flush=True,
                )
                key = group, shape, peer, precision
                pairs.setdefault(key, []).append((their_seconds, seconds))
    if not pairs:
        sys.exit(f"compare: krea2 bench has no rows for {group} of these shapes")
    return list(pairs.items())


def print_medians(pairs: list[tuple]) -> None:
    """A table in Markdown."""
    print("\n| group | shape | peer | krea2 | peer s | krea2 s | ratio | least | most |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (group, shape, peer, precision), seconds in pairs:
        theirs, ours = (statistics.median(side) for side in zip(*seconds))
        ratios = [a / b for a, b in seconds]
        print(
            f"| {group} | {shape} | {peer} | {precision} | {theirs:.4g} | {ours:.4g} | "
            f"{statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |"
        )


if __name__ == "__main__":
    main()
