"""The language model of the mini checkpoint: sizes, tokenizer, pictures as patches, and what it learns from.

The tokenizer is of Qwen's kind: the same rules and added tokens as the fixtures' one, trained on the
captions of the world, the prompt template's words and general English, so that unknown words fall
into pieces. The model is a Qwen3-VL with a language and a vision tower, deepstack and tied embeddings.

An `Example` is one turn of a user and its answer. Many of them share a row with one system turn:
each sees the system turn and itself only, and counts its positions from the system turn's end, so
that every one is computed as if it stood alone.
"""

import dataclasses
import random
import sys
from pathlib import Path

import numpy as np
from diffusers import Krea2Pipeline
from transformers import AutoTokenizer, Qwen3VLConfig, Qwen3VLForConditionalGeneration

import world

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))
import tokenizer as qwen  # noqa: E402

VOCABULARY_SIZE = 1400
TEXT = {
    "hidden_size": 192,
    "num_hidden_layers": 9,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 512,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 4096,
}
ROPE = {
    "rope_type": "default",
    "rope_theta": 5_000_000.0,
    "mrope_section": [6, 5, 5],
    "mrope_interleaved": True,
}
VISION = {
    "depth": 5,
    "hidden_size": 96,
    "num_heads": 3,
    "intermediate_size": 384,
    "patch_size": 16,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "num_position_embeddings": 256,
    "out_hidden_size": 192,
    "deepstack_visual_indexes": [1, 2, 3],
}
# Side of the square of pixels behind one row of the language model.
CELL = 32

_PIPELINE = Krea2Pipeline(None, None, None, None, None)
PREFIX = _PIPELINE.prompt_template_encode_prefix
SUFFIX = _PIPELINE.prompt_template_encode_suffix
INSTRUCTION = PREFIX.removeprefix("<|im_start|>system\n").split("<|im_end|>")[0]

_RULES = "Expand the prompt into one sentence for an image model and keep everything that it names."
OTHER_INSTRUCTIONS = [
    f"{_RULES} Fill only obvious gaps and keep the wording.",
    f"{_RULES} Be balanced.",
    f"{_RULES} Take liberties with style, mood and light where none is given.",
    "Fill only obvious gaps.",
    "Be balanced.",
    "Take liberties.",
    "You are a helpful assistant.",
    "Describe the picture in one sentence.",
    "Write a longer prompt. Keep every thing, colour, place and number that the user names.",
    "You write prompts for an image model. Add no new things. Answer with one sentence only.",
]
REQUESTS = [
    "Describe the picture.",
    "Describe this image.",
    "What does this show?",
    "Describe the style of the picture.",
    "caption",
    "What is in the picture?",
]
OPENINGS = ["a picture of", "picture of", "please draw", "draw", "an image of", "make", "I want"]
OTHER_SPELLINGS = {"colours": "colors", "watercolour": "watercolor", "grey": "gray", "centre": "center"}

# Tokenizer

WORDS = """a about above across after again against air all almost alone along already also always among ancient and
another any are around art artist as asleep at autumn away baby back background bad bag ball be beach bear beautiful
because bed been before behind being below bench beneath beside best better between big bird black blue board boat body
bold book both bottom bowl box boy branch bread bridge bright bring brown brush building but butterfly by cafe cake
camera can candle car cartoon castle cat cave chair child children cinematic circle city clean clear close cloud clouds
coat cold color colorful colour colours composition contrast cool corner could crystal cup cute dark dawn day deep depth
design desk detail detailed did different digital do does dog door down dragon dramatic drawing dream dress drink dusk
dynamic each early earth east edge elegant empty end engine even evening every eye eyes face falling family fantasy far
farm fast field film fire first fish floating floor flower flowers flying focus fog food for forest fox frame fresh from
front full fur futuristic garden girl give glass glow glowing go gold golden good grass gray great green grey ground
group had hair half hand hands hanging happy has hat have he head heart heavy her here high hill his holding home horse
hot house how huge human ice if illustration image in inside intricate into is island it its jungle just keep kitchen
lake lamp landscape large last late lay leaf leaves left lens less let light lighting like line lines lion little living
long look looking lots love low made magic make man many map market me metal middle minimal mirror mist misty modern
moon more morning most mother motion mountain mountains mouse moving much music must my natural near neon new next night
no north not now ocean of off oil old on one only open or orange other our out over owl page paint painted painting
palette pale paper park part path pattern pencil people perfect person photo photograph photography picture pink place
plain plant plants player please poster portrait print purple quality quiet rabbit rain rainbow realistic red render
resolution retro right river road robot rock rocks roof room rose round running sad sail sand scene sea seen serene set
shadow shadows shape sharp she shining ship shirt shore shot show side sign silver simple sitting sketch sky sleeping
small smile smiling smoke smooth snow so soft some something space standing star stars stone storm street strong studio
style subtle such summer sun sunlight sunny sunset surface surreal swimming table tall tea than that the their them then
there these they thick thin thing things this three through tiger time tiny to together top toward tower town toy train
tree trees two under up us use vast very vibrant view vintage vivid walking wall warm was watching water wave waves we
wearing weather were west wet what wheel when where which white who wide wild wind window wings winter with without
wolf woman wood wooden world would yellow yet you young your""".split()


def general_text(rng, count):
    """Sentences of common words with the punctuation of prompts."""
    for _ in range(count):
        words = [rng.choice(WORDS) for _ in range(rng.randrange(4, 14))]
        if rng.random() < 0.3:
            words[0] = words[0].capitalize()
        for i in range(len(words) - 1):
            if rng.random() < 0.15:
                words[i] += rng.choice([",", ",", ".", ";", ":", " -", "'s"])
        yield " ".join(words) + rng.choice(["", "", ".", "!", "?", f" {rng.randrange(2000)}", "\n"])


def corpus():
    """What the tokenizer is trained on."""
    rng = random.Random(1)
    texts = [qwen.TEMPLATE_WORDS] * 3000
    for _ in range(6000):
        scene = world.sample(rng)
        texts += [typed(rng, world.short_caption(rng, scene)), world.long_caption(rng, scene)]
    texts += (OTHER_INSTRUCTIONS + REQUESTS) * 40
    texts += list(general_text(rng, 4000))
    texts += list(qwen.captions(rng, 1000))
    texts += list(qwen.invented_words(rng, 6000))
    return texts


def write_tokenizer(folder):
    """Trains the tokenizer and writes its four files."""
    qwen.write_tokenizer(qwen.train(corpus(), VOCABULARY_SIZE), Path(folder))
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    lengths = [len(tokenizer(text)["input_ids"]) for text in (PREFIX, SUFFIX)]
    assert lengths == [34, 5], lengths
    return tokenizer


# Model


def configuration(tokenizer):
    """The model's configuration; the embedding has a few rows more than there are tokens."""
    token = tokenizer.convert_tokens_to_ids
    return Qwen3VLConfig(
        text_config={
            **TEXT,
            "vocab_size": (len(tokenizer) + 15) // 8 * 8,
            "rope_parameters": ROPE,
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
        },
        vision_config=VISION,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def build(tokenizer):
    """The model with starting weights: matrices by their inputs, smaller where they add to the stream."""
    model = Qwen3VLForConditionalGeneration(configuration(tokenizer))
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            continue
        deviation = 0.5 / parameter[0].numel() ** 0.5
        if "embed_tokens" in name or "pos_embed" in name:
            deviation = 0.05
        elif any(part in name for part in ("o_proj", "down_proj", "attn.proj", "mlp.linear_fc2")):
            deviation /= (2 * TEXT["num_hidden_layers"]) ** 0.5
        parameter.data.normal_(0, deviation)
    token = tokenizer.convert_tokens_to_ids
    model.generation_config.bos_token_id = token("<|endoftext|>")
    model.generation_config.pad_token_id = token("<|endoftext|>")
    model.generation_config.eos_token_id = [token("<|im_end|>"), token("<|endoftext|>")]
    return model


def patches(picture):
    """Patches of uint8 [height, width, 3] as the processor orders them: float32 [patches, 1536].

    By merge block, row by row of blocks and inside a block; a patch is channel, time, row, column,
    and both time slots hold the same picture.
    """
    height, width, _ = picture.shape
    x = picture.astype(np.float32) / 127.5 - 1
    x = x.reshape(height // CELL, 2, 16, width // CELL, 2, 16, 3).transpose(0, 3, 1, 4, 6, 2, 5)
    x = np.broadcast_to(x[:, :, :, :, :, None], x.shape[:5] + (2, 16, 16))
    return np.ascontiguousarray(x).reshape(-1, 3 * 2 * 16 * 16)


# Examples


@dataclasses.dataclass
class Example:
    """One turn of the user with its answer; `picture` is an index of the batch's pictures."""

    ids: list
    weights: list
    picture: int | None = None


def typed(rng, text):
    """The text, sometimes with the habits of people who type."""
    if rng.random() < 0.85:
        return text
    habit = rng.randrange(4)
    if habit == 0:
        return f"{rng.choice(OPENINGS)} {text}"
    if habit == 1:
        return text[0].upper() + text[1:] + rng.choice(["", "."])
    if habit == 2:
        for word, other in OTHER_SPELLINGS.items():
            text = text.replace(word, other)
        return text
    return text.replace(", ", rng.choice([" ", ",", " , ", ". "])) + rng.choice(["", ".", "\n", " "])


def two_captions(rng, scene):
    """The short and the long caption of a scene, with the same wording for what both say."""
    seed = rng.random()
    return world.short_caption(random.Random(seed), scene), world.long_caption(random.Random(seed), scene)


class Teacher:
    """Makes examples; `USER_WEIGHT` is what the user's own words count in the loss."""

    USER_WEIGHT = 0.3

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.known = {}
        self.suffix = self.ids(SUFFIX)
        self.vision_start, self.image_pad, self.vision_end, self.end = tokenizer.convert_tokens_to_ids(
            ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|im_end|>"]
        )

    def ids(self, text):
        return self.tokenizer(text)["input_ids"] if text else []

    def opening(self, rng):
        """The tokens that a row's examples share: most often the engine's template."""
        choice = rng.random()
        text = PREFIX
        if choice < 0.08:
            text = "<|im_start|>user\n"
        elif choice < 0.35:
            text = PREFIX.replace(INSTRUCTION, rng.choice(OTHER_INSTRUCTIONS))
        if text not in self.known:
            self.known[text] = self.ids(text)
        return self.known[text]

    def turn(self, before, user, answer, picture=None):
        """An example of tokens before the user's words, the words, and the answer."""
        user, answer = self.ids(user), self.ids(answer)
        ids = before + user + self.suffix + answer + [self.end]
        weights = [0.0] * len(before) + [self.USER_WEIGHT] * len(user)
        weights += [0.0] * len(self.suffix) + [1.0] * (len(answer) + 1)
        weights[0] = 0.0
        return Example(ids, weights, picture)

    def expansion(self, rng):
        """A short caption, or an already long one, and the long one."""
        short, long = two_captions(rng, world.sample(rng))
        if rng.random() < 0.1:
            short = long
        return self.turn([], typed(rng, short), long)

    def captioning(self, rng, scene, cells, picture):
        """A picture of `cells` rows, perhaps with words after it, and the long caption."""
        before = [self.vision_start] + [self.image_pad] * cells + [self.vision_end]
        if rng.random() < 0.1:
            before = self.ids("Picture 1: ") + before
        short, long = two_captions(rng, scene)
        choice = rng.random()
        user = "" if choice < 0.45 else rng.choice(REQUESTS) if choice < 0.75 else typed(rng, short)
        return self.turn(before, user, long, picture)


def positions(ids, image_pad, grid, start):
    """Time, row and column of each token, [3, tokens]: a picture spans its cells, text counts up."""
    result = np.zeros((3, len(ids)), np.int64)
    at, i = start, 0
    while i < len(ids):
        if ids[i] == image_pad:
            rows, columns = grid
            n = rows * columns
            result[0, i : i + n] = at
            result[1, i : i + n] = at + np.repeat(np.arange(rows), columns)
            result[2, i : i + n] = at + np.tile(np.arange(columns), rows)
            at, i = at + max(rows, columns), i + n
        else:
            result[:, i] = at
            at, i = at + 1, i + 1
    return result


@dataclasses.dataclass
class Batch:
    """Rows of packed examples as arrays; pictures are listed in the order of their tokens."""

    ids: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    positions: np.ndarray
    documents: np.ndarray
    image_at: np.ndarray
    pictures: list


def pack(rng, teacher, make, rows, length, grid=None):
    """Fills `rows` rows of `length` tokens with examples from `make(number of the example)`."""
    ids = np.zeros((rows, length), np.int64)
    weights = np.zeros((rows, length), np.float32)
    documents = np.full((rows, length), -1, np.int64)
    places = np.zeros((3, rows, length), np.int64)
    pictures, count, waiting = [], 0, None
    for row in range(rows):
        opening = teacher.opening(rng)
        start = end = len(opening)
        ids[row, :start], documents[row, :start], places[:, row, :start] = opening, 0, np.arange(start)
        while True:
            example = waiting or make(count)
            count += waiting is None
            waiting = example
            if end + len(example.ids) > length:
                break
            part = slice(end, end + len(example.ids))
            ids[row, part], weights[row, part] = example.ids, example.weights
            documents[row, part] = count
            places[:, row, part] = positions(example.ids, teacher.image_pad, grid, start)
            if example.picture is not None:
                pictures.append(example.picture)
            end, waiting = part.stop, None
    image_at = np.flatnonzero((ids == teacher.image_pad) & (documents > 0))
    # Token i predicts token i + 1.
    targets, shifted = np.roll(ids, -1, axis=1), np.roll(weights, -1, axis=1)
    shifted[:, -1] = 0
    return Batch(ids, targets, shifted, places, documents, image_at, pictures)
