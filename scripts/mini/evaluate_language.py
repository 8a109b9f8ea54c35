"""Scores the language model by greedy decoding on held-out scenes, and prints a table.

    evaluate_language.py FOLDER [--count 200]

FOLDER holds text_encoder/ and tokenizer/. Expansion: which share of the answers are valid long
captions, and keep each fact that the short one names. Captioning: which share of the answers names
the right kind, colour, style, … from the picture alone.
"""

import argparse
import random
import re

import torch
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

import language
import world

# Reading captions


def any_of(words):
    """A pattern for one of the words, the longest that fits."""
    return "(?:" + "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) + ")"


def flattened(lists):
    return [word for words in lists for word in words]


def owner(phrases, text):
    """Which key's phrase the text holds; the longest phrase decides."""
    words = {word: key for key, options in phrases for word in options}
    found = re.findall(rf"\b{any_of(words)}\b", text)
    return words[max(found, key=len)] if found else None


SINGULAR = {plural: kind for kind, plural in world.PLURALS.items()} | {kind: kind for kind in world.KINDS}
THING = (
    rf"\b(an?|two|three) (?:({any_of(world.SIZES)}) )?(?:({any_of(world.COLOURS)}) )?({any_of(SINGULAR)})\b"
)
ATTRIBUTES = {
    "intensity": [[f"{word} colours" for word in words] for words in world.INTENSITY],
    "complexity": world.COMPLEXITY,
    "movement": world.MOVEMENT,
}
NAMED_THING = rf"(?:an?|two|three) (?:(?:small|big) )?{any_of(world.COLOURS)} {any_of(SINGULAR)}"
LONG = re.compile(
    rf"an? {any_of(options[0] for options in world.STYLE_PHRASES.values())} picture of {NAMED_THING}"
    rf"(?: {any_of(world.RELATIONS)} {NAMED_THING})?"
    rf"(?: {any_of(flattened(world.POSITION_PHRASES.values()))})? {any_of(flattened(world.PLACE_PHRASES.values()))}, "
    rf"{any_of(flattened(ATTRIBUTES['intensity']))}, {any_of(flattened(world.COMPLEXITY))}, "
    rf"{any_of(flattened(world.MOVEMENT))}"
)


def facts(text):
    """What a caption of either length says; what it leaves out is missing."""
    things = re.findall(THING, text)
    said = {"kinds": tuple(SINGULAR[kind] for *_, kind in things)}
    said["colours"] = tuple(colour or world.NATURAL[SINGULAR[kind]] for _, _, colour, kind in things)
    said["count"] = things[0][0].replace("an", "a") if things else None
    said["size"] = things[0][1] or None if things else None
    relation = re.search(any_of(world.RELATIONS), text) if len(things) > 1 else None
    said["relation"] = relation and relation.group()
    said["position"] = owner(world.POSITION_PHRASES.items(), text)
    said["style"] = owner(world.STYLE_PHRASES.items(), text)
    said["place"] = owner(world.PLACE_PHRASES.items(), text)
    for name, levels in ATTRIBUTES.items():
        said[name] = owner(enumerate(levels), text)
    return {name: fact for name, fact in said.items() if fact is not None}


# Decoding


class Speaker:
    """The model and its tokenizer, answering in batches."""

    def __init__(self, folder, dtype=torch.float32):
        self.tokenizer = AutoTokenizer.from_pretrained(f"{folder}/tokenizer", padding_side="left")
        self.model = Qwen3VLForConditionalGeneration.from_pretrained(f"{folder}/text_encoder", dtype=dtype).eval()
        self.image_pad = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")

    @torch.no_grad()
    def answers(self, turns, prefix=language.PREFIX, **pictures):
        """Greedy answers to the users' turns; pictures as `pixel_values` and `image_grid_thw`."""
        texts = [prefix + turn + language.SUFFIX for turn in turns]
        inputs = self.tokenizer(texts, padding=True, return_tensors="pt")
        if pictures:
            pictures["mm_token_type_ids"] = (inputs["input_ids"] == self.image_pad).int()
        ids = self.model.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], **pictures,
            max_new_tokens=80, do_sample=False,
        )  # fmt: skip
        return self.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def expansions(speaker, rng, count, prefix=language.PREFIX, batch=50):
    """Share of valid answers and, for each kind of fact, of those that keep it."""
    kept, wrong = {"valid": [0, 0]}, []
    for start in range(0, count, batch):
        scenes = [world.sample(rng, held_out=True) for _ in range(min(batch, count - start))]
        shorts = [world.short_caption(rng, scene) for scene in scenes]
        for short, answer in zip(shorts, speaker.answers(shorts, prefix)):
            named, said = facts(short), facts(answer)
            checks = {name: said.get(name) == fact for name, fact in named.items()}
            checks["valid"] = LONG.fullmatch(answer) is not None
            things = ("valid", "kinds", "colours", "count", "relation")
            checks["named things"] = all(checks.get(name, True) for name in things)
            for name, right in checks.items():
                entry = kept.setdefault(name, [0, 0])
                entry[0] += right
                entry[1] += 1
            if not all(checks.values()):
                wrong.append((short, answer))
    return kept, wrong


def captions(speaker, rng, count, size, batch=25):
    """Share of facts that the answer to a picture alone gets right."""
    width, height = size
    cells = width * height // language.CELL**2
    turn = "<|vision_start|>" + "<|image_pad|>" * cells + "<|vision_end|>"
    right, wrong = {"valid": [0, 0]}, []
    for start in range(0, count, batch):
        scenes = [world.sample(rng, held_out=True) for _ in range(min(batch, count - start))]
        pixels = [torch.from_numpy(language.patches(world.draw(scene, *size))) for scene in scenes]
        grids = torch.tensor([[1, height // 16, width // 16]] * len(scenes))
        answers = speaker.answers([turn] * len(scenes), pixel_values=torch.cat(pixels), image_grid_thw=grids)
        for scene, answer in zip(scenes, answers):
            truth, said = facts(world.long_caption(rng, scene)), facts(answer)
            checks = {name: said.get(name) == fact for name, fact in truth.items()}
            checks["valid"] = LONG.fullmatch(answer) is not None
            for name, good in checks.items():
                entry = right.setdefault(name, [0, 0])
                entry[0] += good
                entry[1] += 1
            if not all(checks.values()):
                wrong.append((world.long_caption(rng, scene), answer))
    return right, wrong


def show(title, table, wrong, examples):
    print(title)
    for name, (good, total) in table.items():
        print(f"  {name:14} {100 * good / total:5.1f} %  of {total}")
    for asked, answer in wrong[:examples]:
        print(f"  - {asked}\n    {answer}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--examples", type=int, default=0, help="how many wrong answers to show")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    speaker = Speaker(arguments.folder)
    count, examples = arguments.count, arguments.examples
    show("Expansion", *expansions(speaker, random.Random(1), count), examples)
    other = language.PREFIX.replace(language.INSTRUCTION, language.OTHER_INSTRUCTIONS[0])
    show("Expansion, other instruction", *expansions(speaker, random.Random(2), count // 4, other), examples)
    for size in ((256, 256), (384, 256)):
        show(f"Captioning at {size[0]}x{size[1]}", *captions(speaker, random.Random(3), count, size), examples)


if __name__ == "__main__":
    main()
