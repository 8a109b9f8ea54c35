"""The world of the mini checkpoint: pictures drawn by a program, and their captions.

A `Scene` is everything a picture shows. `draw` turns it into pixels of any size, `captions` into a
short and an expanded text. Lengths are in units of the shorter side, y points down. No texture is
finer than a 64th of the shorter side, so that the small autoencoder can keep it.
"""

import dataclasses
import math
import random

import numpy as np

KINDS = ["fox", "house", "tree", "fish", "star", "heart", "moon", "flower", "boat", "mushroom"]
COLOURS = {
    "red": (214, 40, 40),
    "orange": (244, 140, 30),
    "yellow": (250, 215, 50),
    "green": (60, 170, 70),
    "teal": (20, 170, 175),
    "blue": (50, 90, 220),
    "purple": (130, 60, 190),
    "pink": (250, 130, 180),
    "brown": (125, 75, 40),
    "grey": (128, 130, 135),
}
STYLES = ["flat", "outline", "watercolour", "pixel art", "halftone", "hatching", "neon", "chalk"]
# Colours of the sky and the ground, and where they meet.
PLACES = {
    "snow": ((214, 226, 240), (248, 250, 253), 0.55),
    "night": ((28, 30, 74), (50, 50, 92), 0.75),
    "sunset": ((250, 170, 110), (190, 90, 110), 0.65),
    "meadow": ((170, 215, 245), (130, 195, 100), 0.60),
    "sea": ((180, 222, 240), (70, 140, 200), 0.50),
    "desert": ((250, 232, 190), (228, 190, 125), 0.60),
    "fog": ((200, 204, 206), (178, 184, 188), 0.50),
    "paper": ((247, 242, 230), (247, 242, 230), 0.50),
}
POSITIONS = {
    "centre": (0.5, 0.5),
    "left": (0.25, 0.5),
    "right": (0.75, 0.5),
    "top": (0.5, 0.26),
    "bottom": (0.5, 0.74),
}
SIZES = {"small": 0.14, "medium": 0.20, "big": 0.27}
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


@dataclasses.dataclass(frozen=True)
class Thing:
    """One drawn thing; x and y are shares of the picture's sides, radius of the shorter one."""

    kind: str
    colour: str
    x: float
    y: float
    radius: float


@dataclasses.dataclass(frozen=True)
class Scene:
    """Everything a picture shows; the three attributes go from 0 to 1."""

    things: tuple
    count: int
    position: str | None
    size: str
    relation: str | None
    style: str
    place: str
    intensity: float
    complexity: float
    movement: float
    seed: int


# Choosing scenes


def jitter(rng, amount):
    return rng.uniform(-amount, amount)


def place_things(rng, kinds, colours, count, position, size, relation):
    """Where things stand: one, several of a kind in a row, or two in a relation."""
    radius = SIZES[size] * rng.uniform(0.96, 1.04)
    if relation:
        dx, dy = RELATIONS[relation]
        radius = min(radius, 0.19)
        points = [(0.5 + 0.25 * dx, 0.5 + 0.25 * dy), (0.5 - 0.25 * dx, 0.5 - 0.25 * dy)]
    elif count > 1:
        radius = min(radius, 0.34 / count)
        gap = 0.66 / count
        points = [(0.5 + gap * (i - (count - 1) / 2), 0.5 + jitter(rng, 0.06)) for i in range(count)]
    else:
        points = [POSITIONS[position]]
    spread = 0.012
    return tuple(
        Thing(
            kinds[i % len(kinds)],
            colours[i % len(colours)],
            x + jitter(rng, spread),
            y + jitter(rng, spread),
            radius,
        )
        for i, (x, y) in enumerate(points)
    )


def attribute(rng):
    """A third of the pictures are low, a third high, a third in between."""
    low, high = rng.choice([(0.0, 0.2), (0.35, 0.65), (0.8, 1.0)])
    return rng.uniform(low, high)


def is_held_out(kind, colour, style):
    """Whether a composition is kept for evaluation: one in eleven."""
    index = (KINDS.index(kind) * 10 + list(COLOURS).index(colour)) * 8 + STYLES.index(style)
    return index * 7 % 11 == 3


def sample(rng, held_out=False):
    """A random scene whose compositions are, or are not, among the held-out ones."""
    while True:
        style, place = rng.choice(STYLES), rng.choice(list(PLACES))
        form = rng.random()
        relation = rng.choice(list(RELATIONS)) if form < 0.22 else None
        count = rng.choice([2, 3]) if relation is None and form < 0.40 else 1
        kinds = rng.sample(KINDS, 2 if relation else 1)
        colours = rng.sample(list(COLOURS), 2 if relation else 1)
        if any(is_held_out(k, c, style) != held_out for k, c in zip(kinds, colours)):
            continue
        position = rng.choice(list(POSITIONS)) if relation is None and count == 1 else None
        size = rng.choice(list(SIZES)) if count == 1 and not relation else "medium"
        return Scene(
            place_things(rng, kinds, colours, count, position, size, relation),
            count,
            position,
            size,
            relation,
            style,
            place,
            attribute(rng),
            attribute(rng),
            attribute(rng),
            rng.randrange(1 << 30),
        )


# Shapes: signed distances, negative inside, of points in units of a thing's radius


def circle(x, y, cx, cy, r):
    return np.hypot(x - cx, y - cy) - r


def box(x, y, cx, cy, hx, hy):
    dx, dy = np.abs(x - cx) - hx, np.abs(y - cy) - hy
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)


def polygon(x, y, points):
    distance = np.full(x.shape, np.inf, np.float32)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1]):
        ex, ey = bx - ax, by - ay
        px, py = x - ax, y - ay
        t = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
        distance = np.minimum(distance, (px - ex * t) ** 2 + (py - ey * t) ** 2)
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (px < ex * py / ey)
    return np.where(inside, -1, 1) * np.sqrt(distance)


def mirrored(points):
    """Adds the mirror image of a half outline that runs from top to bottom on the right."""
    return points + [(-px, py) for px, py in reversed(points) if px != 0]


def fox(x, y):
    head = polygon(
        x, y, mirrored([(0, -0.35), (0.35, -0.45), (0.8, -1), (0.95, -0.05), (0.55, 0.45), (0, 1)])
    )
    eyes = np.minimum(circle(x, y, -0.36, 0.0, 0.14), circle(x, y, 0.36, 0.0, 0.14))
    return np.maximum(np.maximum(head, -eyes), -circle(x, y, 0, 0.78, 0.13))


def house(x, y):
    walls = box(x, y, 0, 0.35, 0.7, 0.6)
    roof = polygon(x, y, [(0, -1), (1, -0.15), (-1, -0.15)])
    chimney = box(x, y, 0.55, -0.65, 0.13, 0.3)
    door = box(x, y, -0.25, 0.68, 0.17, 0.3)
    window = box(x, y, 0.3, 0.3, 0.17, 0.17)
    return np.maximum(np.minimum(np.minimum(walls, roof), chimney), -np.minimum(door, window))


def tree(x, y):
    crown = mirrored([(0, -1), (0.42, -0.45), (0.22, -0.45), (0.62, 0.1), (0.34, 0.1), (0.8, 0.62)])
    return np.minimum(polygon(x, y, crown), box(x, y, 0, 0.8, 0.16, 0.2))


def fish(x, y):
    body = np.maximum(circle(x, y, -0.2, 0.62, 1.02), circle(x, y, -0.2, -0.62, 1.02))
    tail = polygon(x, y, [(0.4, 0), (1, -0.5), (0.85, 0), (1, 0.5)])
    return np.maximum(np.minimum(body, tail), -circle(x, y, -0.6, -0.08, 0.11))


def star(x, y):
    points = [
        (r * math.sin(a), -r * math.cos(a))
        for r, a in ((1 if i % 2 == 0 else 0.42, i * math.pi / 5) for i in range(10))
    ]
    return polygon(x, y, points)


def heart(x, y):
    lobes = np.minimum(circle(x, y, -0.45, -0.35, 0.52), circle(x, y, 0.45, -0.35, 0.52))
    tip = polygon(x, y, [(-0.86, -0.02), (0, -0.7), (0.86, -0.02), (0, 0.95)])
    return np.minimum(lobes, tip)


def moon(x, y):
    return np.maximum(circle(x, y, 0, 0, 1), -circle(x, y, 0.45, -0.2, 0.8))


def flower(x, y):
    petals = np.full(x.shape, np.inf, np.float32)
    for i in range(6):
        a = i * math.pi / 3
        petals = np.minimum(petals, circle(x, y, 0.6 * math.cos(a), 0.6 * math.sin(a), 0.36))
    return np.maximum(np.minimum(petals, circle(x, y, 0, 0, 0.5)), -circle(x, y, 0, 0, 0.24))


def boat(x, y):
    hull = polygon(x, y, [(-1, 0.4), (1, 0.4), (0.65, 0.9), (-0.65, 0.9)])
    mast = box(x, y, 0, -0.3, 0.07, 0.7)
    sails = np.minimum(
        polygon(x, y, [(0.16, -0.95), (0.85, 0.25), (0.16, 0.25)]),
        polygon(x, y, [(-0.16, -0.6), (-0.16, 0.25), (-0.65, 0.25)]),
    )
    return np.minimum(np.minimum(hull, mast), sails)


def mushroom(x, y):
    cap = np.maximum(circle(x, y, 0, 0.05, 1), y - 0.1)
    spots = np.minimum(circle(x, y, -0.4, -0.35, 0.17), circle(x, y, 0.3, -0.5, 0.17))
    stem = box(x, y, 0, 0.5, 0.26, 0.45)
    return np.minimum(np.maximum(cap, -spots), stem)


SHAPES = dict(
    fox=fox, house=house, tree=tree, fish=fish, star=star, heart=heart, moon=moon, flower=flower,
    boat=boat, mushroom=mushroom,
)

# Drawing


class Canvas:
    """Coordinates of all pixels, and smooth noise."""

    def __init__(self, width, height, seed):
        self.short = min(width, height)
        self.x = (np.arange(width, dtype=np.float32)[None, :] + 0.5) / self.short
        self.y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / self.short
        self.width, self.height = width / self.short, height / self.short
        self.noise_source = np.random.default_rng(seed)

    def noise(self, cells):
        """Smooth noise from 0 to 1 with `cells` values along the shorter side."""
        columns, rows = (int(side * cells) + 3 for side in (self.width, self.height))
        grid = self.noise_source.random((rows, columns), np.float32)
        gx, gy = self.x[0] * cells, self.y[:, 0] * cells
        ix, iy = gx.astype(int), gy.astype(int)
        tx, ty = gx - ix, gy - iy
        tx, ty = tx * tx * (3 - 2 * tx), ty * ty * (3 - 2 * ty)
        rows = grid[iy] * (1 - ty)[:, None] + grid[iy + 1] * ty[:, None]
        return rows[:, ix] * (1 - tx) + rows[:, ix + 1] * tx


def cover(canvas, distance, softness=0.0):
    """Share of each pixel inside, from the signed distance."""
    return np.clip(0.5 - distance / max(softness, 1 / canvas.short), 0, 1)


def thing_distance(canvas, thing, tilt, shift=0.0):
    """Signed distance in units of the shorter side; far away a bound is enough."""
    cx, cy = thing.x * canvas.width + shift, thing.y * canvas.height
    distance = np.full((canvas.y.size, canvas.x.size), 0.5, np.float32)
    reach = 1.5 * thing.radius + 0.12
    columns = np.flatnonzero(np.abs(canvas.x[0] - cx) < reach)
    rows = np.flatnonzero(np.abs(canvas.y[:, 0] - cy) < reach)
    if columns.size == 0 or rows.size == 0:
        return distance
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    x, y = (canvas.x[:, part[1]] - cx) / thing.radius, (canvas.y[part[0]] - cy) / thing.radius
    x, y = np.broadcast_arrays(x, y)
    c, s = math.cos(tilt), math.sin(tilt)
    distance[part] = SHAPES[thing.kind](c * x + s * y, c * y - s * x) * thing.radius
    return distance


def mix(below, above, share):
    return below + (above - below) * share[..., None]


def saturated(rgb, intensity):
    """Pulls colours towards grey or away from it: saturation and contrast."""
    grey = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    rgb = grey[..., None] + (rgb - grey[..., None]) * (0.45 + 0.75 * intensity)
    return 0.5 + (rgb - 0.5) * (0.72 + 0.36 * intensity)


def background(canvas, scene):
    sky, ground, horizon = PLACES[scene.place]
    sky, ground = (np.array(c, np.float32) / 255 for c in (sky, ground))
    y = canvas.y / canvas.height + 0 * canvas.x
    hill = 0.03 * np.sin(canvas.x / canvas.width * 6 + scene.seed % 7)
    share = np.clip((y - horizon - hill) / 0.05, 0, 1)
    picture = mix(sky * np.ones(y.shape + (1,), np.float32), ground, share)
    return picture * (1 + 0.10 * (0.5 - y))[..., None]


def specks(canvas, scene):
    """Cover of the small round elements that make a picture complex."""
    rng = random.Random(scene.seed)
    total = np.zeros((canvas.y.size, canvas.x.size), np.float32)
    for _ in range(round(26 * scene.complexity * canvas.width * canvas.height)):
        x, y = rng.uniform(0, canvas.width), rng.uniform(0, canvas.height)
        r = rng.uniform(0.016, 0.026)
        columns = np.flatnonzero(np.abs(canvas.x[0] - x) < r + 0.02)
        rows = np.flatnonzero(np.abs(canvas.y[:, 0] - y) < r + 0.02)
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        distance = np.hypot(canvas.x[:, part[1]] - x, canvas.y[part[0]] - y) - r
        total[part] = np.maximum(total[part], cover(canvas, distance))
    return total


INK = np.array([0.13, 0.12, 0.16], np.float32)
PAPER = np.array([0.97, 0.95, 0.91], np.float32)
WHITE = np.ones(3, np.float32)


def stripes(canvas, angle, pitch, share):
    """Cover of parallel stripes that fill `share` of the plane."""
    u = (math.cos(angle) * canvas.x + math.sin(angle) * canvas.y) / pitch
    return cover(canvas, (np.abs(u - np.floor(u) - 0.5) - share / 2) * pitch)


def dots(canvas, pitch, share):
    """Cover of round dots on a diagonal grid whose area is `share` of the plane."""
    u, v = (canvas.x + canvas.y) / pitch / 1.414, (canvas.x - canvas.y) / pitch / 1.414
    distance = np.hypot(u - np.floor(u) - 0.5, v - np.floor(v) - 0.5)
    return cover(canvas, (distance - math.sqrt(share / math.pi)) * pitch)


def paint_flat(canvas, ground, parts, elements):
    for distance, colour, strength in parts:
        ground = mix(ground, colour, strength * cover(canvas, distance))
        # A darker rim, so that orange stands out at sunset.
        rim = cover(canvas, np.abs(distance + 0.008) - 0.008)
        ground = mix(ground, 0.6 * colour, strength * rim)
    return ground


def paint_outline(canvas, ground, parts, elements):
    picture = 0.25 * ground + 0.75 * PAPER
    for distance, colour, strength in parts:
        picture = mix(picture, WHITE, strength * cover(canvas, distance))
        picture = mix(picture, colour * 0.9, strength * cover(canvas, np.abs(distance) - 0.011))
    return picture


def paint_watercolour(canvas, ground, parts, elements):
    wash = canvas.noise(6)
    picture = mix(PAPER * np.ones_like(ground), ground, 0.35 + 0.4 * wash)
    for distance, colour, strength in parts:
        ragged = distance + 0.02 * (canvas.noise(14) - 0.5)
        body = cover(canvas, ragged, 0.02) * (0.5 + 0.4 * canvas.noise(8))
        rim = np.exp(-((ragged + 0.012) / 0.012) ** 2) * 0.45
        picture = mix(picture, colour * 0.95, strength * np.maximum(body, rim))
    return picture


def paint_halftone(canvas, ground, parts, elements):
    pitch = 1 / 16
    picture = mix(PAPER * np.ones_like(ground), ground * 0.9, dots(canvas, pitch, 0.25))
    for distance, colour, strength in parts:
        inside = cover(canvas, distance)
        picture = mix(picture, PAPER, strength * inside)
        picture = mix(picture, colour * 0.95, strength * inside * dots(canvas, pitch, 0.62))
    return picture


def paint_hatching(canvas, ground, parts, elements):
    pitch = 1 / 16
    picture = mix(PAPER * np.ones_like(ground), ground * 0.85, 0.7 * stripes(canvas, -0.8, pitch, 0.3))
    for distance, colour, strength in parts:
        inside = cover(canvas, distance)
        picture = mix(picture, PAPER, strength * inside)
        lines = np.maximum(
            inside * stripes(canvas, 0.8, pitch, 0.5), cover(canvas, np.abs(distance) - 0.010)
        )
        picture = mix(picture, colour * 0.85, strength * lines)
    return picture


def paint_neon(canvas, ground, parts, elements):
    picture = 0.14 * ground
    for distance, colour, strength in parts:
        edge = np.abs(distance)
        glow = np.exp(-edge / 0.03) * 0.8
        picture = picture + (strength * glow)[..., None] * colour
        picture = mix(picture, 0.35 * colour + 0.65, strength * cover(canvas, edge - 0.010))
    return picture


def paint_chalk(canvas, ground, parts, elements):
    board = np.array([0.17, 0.25, 0.22], np.float32)
    picture = (0.88 * board + 0.08 * ground) * (0.9 + 0.2 * canvas.noise(5))[..., None]
    grain = np.clip((canvas.noise(20) - 0.30) * 5, 0, 1)
    for distance, colour, strength in parts:
        body = cover(canvas, distance, 0.01) * 0.85 * grain
        rim = cover(canvas, np.abs(distance) - 0.010) * 0.9
        picture = mix(picture, 0.75 * colour + 0.25, strength * np.maximum(body, rim))
    return picture


PAINTERS = {
    "flat": paint_flat, "outline": paint_outline, "watercolour": paint_watercolour,
    "pixel art": paint_flat, "halftone": paint_halftone, "hatching": paint_hatching,
    "neon": paint_neon, "chalk": paint_chalk,
}


def paint_blueprint(canvas, ground, parts, elements):
    blue = np.array([0.10, 0.26, 0.55], np.float32)
    grid = np.maximum(stripes(canvas, 0, 1 / 8, 0.08), stripes(canvas, math.pi / 2, 1 / 8, 0.08))
    picture = mix(blue * np.ones_like(ground), WHITE, 0.3 * grid)
    for distance, colour, strength in parts:
        picture = mix(picture, blue, strength * cover(canvas, distance))
        picture = mix(picture, WHITE, strength * cover(canvas, np.abs(distance) - 0.009))
    return picture


def paint_sepia(canvas, ground, parts, elements):
    grey = paint_watercolour(canvas, ground, parts, elements) @ np.array([0.3, 0.6, 0.1], np.float32)
    dark, light = np.array([0.23, 0.13, 0.07]), np.array([0.98, 0.91, 0.76])
    return mix(dark * np.ones_like(ground), light.astype(np.float32), grey).astype(np.float32)


# Styles that no caption names; LoRAs learn them.
EXTRA_PAINTERS = {"blueprint": paint_blueprint, "sepia": paint_sepia}
ALL_STYLES = [*STYLES, *EXTRA_PAINTERS]


def parts_of(canvas, scene):
    """Everything painted over the background: (distance, colour, strength), back to front."""
    tilt = tilt_of(scene)
    trail = -0.07
    for thing in scene.things:
        colour = np.array(COLOURS[thing.colour], np.float32) / 255
        for ghost in (3, 2, 1):
            strength = scene.movement * 0.5 / ghost
            if strength > 0.03:
                yield thing_distance(canvas, thing, tilt, ghost * trail), colour, strength
        yield thing_distance(canvas, thing, tilt), colour, 1


def tilt_of(scene):
    """Angle by which moving things lean."""
    return 0.45 * scene.movement


def kind_map(scene, width, height):
    """What covers each point of a picture: uint8 [height, width], 0 or 1 + the index in `KINDS`."""
    canvas = Canvas(width, height, scene.seed)
    kinds = np.zeros((height, width), np.uint8)
    for thing in scene.things:
        kinds[thing_distance(canvas, thing, tilt_of(scene)) < 0] = 1 + KINDS.index(thing.kind)
    return kinds


def own_coordinates(scene, width, height):
    """Where each point lies on the thing that is nearest to it.

    float32 [height, width, 2] in units of the thing's radius, along its own axes, and the distances
    from its middle [height, width].
    """
    canvas = Canvas(width, height, scene.seed)
    c, s = math.cos(tilt_of(scene)), math.sin(tilt_of(scene))
    best = np.full((height, width), np.inf, np.float32)
    result = np.zeros((height, width, 2), np.float32)
    for thing in scene.things:
        x = (canvas.x - thing.x * canvas.width) / thing.radius + 0 * canvas.y
        y = (canvas.y - thing.y * canvas.height) / thing.radius + 0 * canvas.x
        distance = np.hypot(x, y)
        own = np.stack([c * x + s * y, c * y - s * x], -1)
        result = np.where((distance < best)[..., None], own, result)
        best = np.minimum(best, distance)
    return result, best


def draw(scene, width, height):
    """Pixels of a scene: uint8 [height, width, 3]."""
    cells = 32
    is_pixels = scene.style == "pixel art"
    if is_pixels:
        cell = min(width, height) / cells
        canvas = Canvas(round(width / cell), round(height / cell), scene.seed)
    else:
        canvas = Canvas(width, height, scene.seed)
    ground = background(canvas, scene)
    elements = specks(canvas, scene)
    speck = INK if scene.place in ("snow", "paper", "fog", "desert") else WHITE
    if scene.style in ("neon", "chalk"):
        speck = 0.9 * WHITE
    painter = (PAINTERS | EXTRA_PAINTERS)[scene.style]
    picture = painter(canvas, ground, list(parts_of(canvas, scene)), elements)
    picture = saturated(mix(picture, speck, 0.75 * elements), scene.intensity)
    pixels = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    if is_pixels:
        rows = np.minimum((np.arange(height) / cell).astype(int), pixels.shape[0] - 1)
        columns = np.minimum((np.arange(width) / cell).astype(int), pixels.shape[1] - 1)
        pixels = pixels[rows][:, columns]
    return pixels

# Captions

NUMBERS = {1: "a", 2: "two", 3: "three"}
PLURALS = {
    "fox": "foxes", "house": "houses", "tree": "trees", "fish": "fish", "star": "stars",
    "heart": "hearts", "moon": "moons", "flower": "flowers", "boat": "boats",
    "mushroom": "mushrooms",
}
STYLE_PHRASES = {
    "flat": ["flat", "flat colours", "a flat illustration"],
    "outline": ["outline", "outline drawing", "drawn as an outline"],
    "watercolour": ["watercolour", "watercolour painting", "painted in watercolour"],
    "pixel art": ["pixel art", "pixel art style", "as pixel art"],
    "halftone": ["halftone", "halftone print", "printed in halftone"],
    "hatching": ["hatching", "hatching drawing", "drawn with hatching"],
    "neon": ["neon", "neon sign", "glowing neon"],
    "chalk": ["chalk", "chalk drawing", "drawn with chalk"],
}
PLACE_PHRASES = {
    "snow": ["in the snow", "on a snowy field"],
    "night": ["at night", "under a night sky"],
    "sunset": ["at sunset", "in the evening glow"],
    "meadow": ["on a meadow", "on green grass"],
    "sea": ["by the sea", "over the sea"],
    "desert": ["in the desert", "on desert sand"],
    "fog": ["in the fog", "in thick fog"],
    "paper": ["on plain paper", "on a blank page"],
}
POSITION_PHRASES = {
    "centre": ["in the centre", "in the middle"],
    "left": ["on the left", "at the left"],
    "right": ["on the right", "at the right"],
    "top": ["at the top", "near the top"],
    "bottom": ["at the bottom", "near the bottom"],
}
# Words for the low, middle and high third of an attribute; the middle may go unsaid.
INTENSITY = [["muted", "pale"], ["natural"], ["vivid", "intense"]]
COMPLEXITY = [["simple, nothing around", "empty"], ["a few dots"], ["many dots around", "busy with dots"]]
MOVEMENT = [["standing still", "resting"], ["walking", "moving a little"], ["running", "moving fast"]]
# Colours that may go unsaid.
NATURAL = {
    "fox": "orange", "house": "red", "tree": "green", "fish": "blue", "star": "yellow",
    "heart": "red", "moon": "yellow", "flower": "pink", "boat": "brown", "mushroom": "red",
}


def third(value):
    return min(int(value * 3), 2)


def article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def named(thing, words, short):
    """The thing's words with its colour, which a short caption may leave out if it is the usual one."""
    return words if short and thing.colour == NATURAL[thing.kind] else f"{thing.colour} {words}"


def things_text(rng, scene, short=False):
    """What stands there: "a small red fox", "two blue stars", "a red fox left of a teal boat"."""
    first = scene.things[0]
    short = short and rng.random() < 0.5
    if scene.relation:
        second = scene.things[1]
        return (
            f"{article(named(first, first.kind, short))} {scene.relation} "
            f"{article(named(second, second.kind, short))}"
        )
    if scene.count > 1:
        return f"{NUMBERS[scene.count]} {named(first, PLURALS[first.kind], short)}"
    size = f"{scene.size} " if not short and scene.size != "medium" else ""
    return article(size + named(first, first.kind, short))


def phrases(rng, scene):
    """Everything else that can be said, each with one wording."""
    said = {
        "style": rng.choice(STYLE_PHRASES[scene.style]),
        "place": rng.choice(PLACE_PHRASES[scene.place]),
        "intensity": rng.choice(INTENSITY[third(scene.intensity)]) + " colours",
        "complexity": rng.choice(COMPLEXITY[third(scene.complexity)]),
        "movement": rng.choice(MOVEMENT[third(scene.movement)]),
    }
    if scene.position:
        said["position"] = rng.choice(POSITION_PHRASES[scene.position])
    return said


def short_caption(rng, scene, style_share=0.8):
    """A few words as a user would write them; some facts are left out."""
    said = phrases(rng, scene)
    text = things_text(rng, scene, short=True)
    if rng.random() < 0.3:
        text += " " + said.pop("movement")
    for key, share in (("position", 0.75), ("place", 0.6)):
        if key in said and rng.random() < share:
            text += " " + said[key]
    shares = {"style": style_share, "intensity": 0.2, "complexity": 0.2, "movement": 0.1}
    rest = [said[key] for key, share in shares.items() if key in said and rng.random() < share]
    rng.shuffle(rest)
    if rest and rng.random() < 0.25:
        return ", ".join([rest[0], text] + rest[1:])
    return ", ".join([text] + rest)


def long_caption(rng, scene):
    """Everything the picture shows, in a fixed order."""
    said = phrases(rng, scene)
    text = things_text(rng, scene)
    if "position" in said:
        text += " " + said["position"]
    style = STYLE_PHRASES[scene.style][0]
    return (
        f"{article(style)} picture of {text} {said['place']}, {said['intensity']}, "
        f"{said['complexity']}, {said['movement']}"
    )
