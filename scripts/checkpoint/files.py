"""Writes safetensors files of random values, quickly and in little memory.

Normal values are drawn once, a prime number of them. A tensor takes them in a circle from a place
of its own, so that rows never line up; each mean, deviation and type is converted once.
"""

import json
import random
import struct
import sys
import zlib
from array import array
from pathlib import Path

from .networks import Spec

BYTES = {"F32": 4, "F16": 2, "BF16": 2}


class RandomValues:
    """A circle of normal values."""

    def __init__(self, seed: int, count: int):
        generator = random.Random(seed)
        self.seed = seed
        self.count = count
        self._values = [generator.gauss(0, 1) for _ in range(count)]
        self._converted: dict[tuple[float, float, str], memoryview] = {}

    def chunks(self, spec: Spec, element_type: str):
        """The bytes of a tensor, piece by piece."""
        circle = self._bytes(spec.mean, spec.deviation, element_type)
        size = BYTES[element_type]
        at = zlib.crc32(f"{self.seed} {spec.name}".encode()) % self.count * size
        left = spec.count * size
        while left > 0:
            piece = circle[at : at + left]
            yield piece
            left -= len(piece)
            at = 0

    def _bytes(self, mean: float, deviation: float, element_type: str) -> memoryview:
        key = (mean, deviation, element_type)
        if key not in self._converted:
            values = [mean + deviation * value for value in self._values]
            if element_type == "F16":
                data = struct.pack(f"<{len(values)}e", *values)
            else:
                floats = array("f", values)
                if sys.byteorder == "big":
                    floats.byteswap()
                data = floats.tobytes()
            if element_type == "BF16":
                data = array("H", data)[1::2].tobytes()  # the upper half of each float
            self._converted[key] = memoryview(data)
        return self._converted[key]


def write(file: Path, tensors: list[tuple[Spec, str]], values: RandomValues) -> int:
    """Writes tensors with their types; returns the number of bytes of data.

    Wider types come first, so that every tensor is aligned.
    """
    tensors = sorted(tensors, key=lambda tensor: -BYTES[tensor[1]])
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for spec, element_type in tensors:
        begin, end = end, end + spec.count * BYTES[element_type]
        header[spec.name] = {
            "dtype": element_type,
            "shape": spec.shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "wb") as output:
        output.write(struct.pack("<Q", len(text)) + text)
        for spec, element_type in tensors:
            for piece in values.chunks(spec, element_type):
                output.write(piece)
    return end


def write_shards(
    folder: Path, name: str, tensors: list[tuple[Spec, str]], values: RandomValues, largest: int
) -> int:
    """Writes `name-0000i-of-0000n.safetensors` and their index; returns the bytes of data."""
    shards, room = [], 0
    for spec, element_type in tensors:
        size = spec.count * BYTES[element_type]
        if size > room:
            shards.append([])
            room = largest
        shards[-1].append((spec, element_type))
        room -= size
    places, total = {}, 0
    for index, shard in enumerate(shards, start=1):
        file = f"{name}-{index:05}-of-{len(shards):05}.safetensors"
        total += write(folder / file, shard, values)
        places |= {spec.name: file for spec, _ in shard}
    index = {"metadata": {"total_size": total}, "weight_map": places}
    write_json(folder / f"{name}.safetensors.index.json", index)
    return total


def write_json(file: Path, content: dict) -> None:
    """Indented, with a line feed at the end."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n")
