"""Judges of pictures of the mini world: a small detector, and statistics of pixels.

The detector looks at a picture whose shorter side is 128 pixels and says for each cell of 8 pixels
how likely a thing's centre is there, and of which kind and colour that thing would be; and for the
whole picture its style. `train_judges.py` trains it on drawn pictures. The statistics need no
training: they measure what the words of intensity, complexity and movement change.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import world

SHORT, CELL = 128, 8
FILE = Path(__file__).parent / "judges.safetensors"
COLOUR_NAMES = list(world.COLOURS)
# Heat above which a cell counts as a thing, and the reach in cells within which the hottest wins.
THRESHOLD, REACH = 0.35, 2
STEM, WIDTH, DILATIONS = (24, 48), 72, (1, 2, 4, 1)


def prepared(picture):
    """Pixels [height, width, 3] of 0 to 255 as [1, 3, h, w] in -1 ... 1, the shorter side 128."""
    height, width = picture.shape[:2]
    scale = SHORT / min(height, width)
    sides = [max(SHORT, round(side * scale / CELL) * CELL) for side in (height, width)]
    x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    return F.interpolate(x, sides, mode="bilinear", align_corners=False, antialias=True)


class Unit(torch.nn.Module):
    """Two convolutions added to their input."""

    def __init__(self, width, dilation):
        super().__init__()
        self.one = torch.nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm_one = torch.nn.BatchNorm2d(width)
        self.two = torch.nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm_two = torch.nn.BatchNorm2d(width)

    def forward(self, x):
        # In bfloat16, oneDNN's gradient of dilated kernels is not finite for some widths.
        with torch.autocast("cpu", enabled=False):
            h = self.one(x.float())
        h = F.relu(self.norm_one(h))
        return F.relu(x + self.norm_two(self.two(h)))


class Judges(torch.nn.Module):
    """The detector."""

    def __init__(self):
        super().__init__()
        layers, inputs = [], 3
        for outputs in (*STEM, WIDTH):
            layers += [
                torch.nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False),
                torch.nn.BatchNorm2d(outputs),
                torch.nn.ReLU(),
            ]
            inputs = outputs
        layers += [Unit(WIDTH, dilation) for dilation in DILATIONS]
        self.body = torch.nn.Sequential(*layers)
        cells = 1 + 2 + len(world.KINDS) + len(COLOUR_NAMES)
        self.cells = torch.nn.Conv2d(WIDTH, cells, 1)
        self.style = torch.nn.Linear(WIDTH, len(world.STYLES))
        # Trained afterwards, when the rest stays as it is.
        self.all_styles = torch.nn.Linear(WIDTH, len(world.ALL_STYLES))

    def forward(self, x):
        """Logits: cells [n, 1 + 2 + kinds + colours, h / 8, w / 8], and styles [n, styles].

        Of a cell, the first is the heat, the next two the centre's place in cells from its middle.
        """
        features = self.body(x)
        return self.cells(features), self.style(features.mean((2, 3)))


@dataclasses.dataclass(frozen=True)
class Seen:
    """A thing that the detector sees; x and y are shares of the picture's sides."""

    kind: str
    colour: str
    x: float
    y: float
    heat: float


def loaded(file=FILE):
    """The trained detector."""
    from safetensors.torch import load_file

    model = Judges()
    model.load_state_dict(load_file(file), strict=False)
    return model.float().eval()


def read(cells):
    """Things in one picture's cells, the hottest first; at least one."""
    heat = torch.sigmoid(cells[0])
    rows, columns = heat.shape
    best = F.max_pool2d(heat[None, None], 2 * REACH + 1, 1, REACH)[0, 0]
    tops = ((heat == best) & (heat > THRESHOLD)).nonzero().tolist()
    if not tops:
        tops = [divmod(int(heat.argmax()), columns)]
    tops.sort(key=lambda top: -heat[top[0], top[1]].item())
    # The cells around a centre have learnt to name the thing, too: all vote, by their heat.
    votes = F.avg_pool2d((cells[3:] * heat)[None], 3, 1, 1)[0]
    kinds = len(world.KINDS)
    return [
        Seen(
            world.KINDS[int(votes[:kinds, row, column].argmax())],
            COLOUR_NAMES[int(votes[kinds:, row, column].argmax())],
            (column + 0.5 + cells[1, row, column].item()) / columns,
            (row + 0.5 + cells[2, row, column].item()) / rows,
            heat[row, column].item(),
        )
        for row, column in tops
    ]


def look(model, picture):
    """What a picture shows: things, the hottest first, and the style."""
    with torch.no_grad():
        cells, style = model(prepared(picture))
    return read(cells[0]), world.STYLES[int(style[0].argmax())]


def style_of(model, picture):
    """The style of a picture among all, those of LoRAs too."""
    with torch.no_grad():
        logits = model.all_styles(model.body(prepared(picture)).mean((2, 3)))
    return world.ALL_STYLES[int(logits[0].argmax())]


def position_of(seen):
    """The name of the position whose place is nearest."""
    return min(
        world.POSITIONS,
        key=lambda name: (world.POSITIONS[name][0] - seen.x) ** 2
        + (world.POSITIONS[name][1] - seen.y) ** 2,
    )


# Statistics of pixels


def parts_of(picture):
    """Luminance [h, w] and colours [3, h, w] from 0 to 1, the shorter side 128."""
    x = (prepared(picture)[0] + 1) / 2
    return (0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]).numpy(), x.numpy()


def intensity(picture):
    """Saturation and contrast: deviation from grey, and of grey from its mean, in hundredths."""
    grey, x = parts_of(picture)
    return 100 * float(np.sqrt(((x - grey) ** 2).mean()) + grey.std())


def smoothed(x, sigma):
    """A Gaussian blur along both axes, the borders repeated."""
    reach = int(3 * sigma + 1)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        padding = [(reach, reach) if i == axis else (0, 0) for i in (0, 1)]
        wide = np.pad(x, padding, mode="edge")
        x = sum(w * np.take(wide, range(i, i + x.shape[axis]), axis) for i, w in enumerate(weights))
    return x


def complexity(picture):
    """Number of small round elements in a square of the shorter side.

    They are peaks and pits of a band of frequencies that fits their size.
    """
    grey = parts_of(picture)[0]
    band = torch.from_numpy(smoothed(grey, 1.8) - smoothed(grey, 3.2))[None, None].abs()
    top = F.max_pool2d(band, 5, 1, 2)
    # Lines and edges have a ridge, dots a top: four pixels from it the band is low on all sides.
    shifts = ((0, 4), (0, -4), (4, 0), (-4, 0))
    around = torch.stack([torch.roll(band, shift, (2, 3)) for shift in shifts]).amax(0)
    count = ((band == top) & (band > 0.02) & (around < 0.5 * band)).sum().item()
    return count * SHORT**2 / grey.size


def movement(picture):
    """How much gentler the edges of things are on the side of their trails, in hundredths.

    It is the skewness of differences from left to right in the distance from the background, which
    is the median of a row.
    """
    x = parts_of(picture)[1]
    distance = np.sqrt(((x - np.median(x, axis=2, keepdims=True)) ** 2).sum(0))
    steps = np.diff(smoothed(distance, 1.5), axis=1)
    return -100 * float((steps**3).mean() / ((steps**2).mean() ** 1.5 + 1e-12))


STATISTICS = {"intensity": intensity, "complexity": complexity, "movement": movement}
