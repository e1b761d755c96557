"""Draw the sample pictures in assets/samples: `python tools/draw_samples.py [FOLDER]`. Needs Pillow only.

Four scenes of 640x480, drawn at twice the size and scaled down: a ferry at its berth, a slope of boulders, an office
corridor, a kitchen. Every random number comes from a fixed seed, so a rerun draws the same pictures. Points are given on
a canvas of 640x480; rooms are given in metres and projected through a pinhole camera that looks along +z.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIZE = (640, 480)
SCALE = 2
FULL = (SIZE[0] * SCALE, SIZE[1] * SCALE)

Colour = tuple[int, int, int]
Point = tuple[float, float]
Point3 = tuple[float, float, float]


# --- textures ---


def noise(size: tuple[int, int], cell: tuple[float, float], seed: int, octaves: int = 4) -> Image.Image:
    """Smooth noise around 128 as a grey picture. `cell` is the width and height of the coarsest blotches, in pixels."""
    rng = random.Random(seed)
    total = Image.new("L", size, 128)
    for octave in range(octaves):
        cols = max(2, round(size[0] / cell[0] * 2**octave))
        rows = max(2, round(size[1] / cell[1] * 2**octave))
        layer = Image.frombytes("L", (cols, rows), rng.randbytes(cols * rows)).resize(size, Image.Resampling.BICUBIC)
        total = layer if octave == 0 else Image.blend(total, layer, 0.45 / (octave + 1) ** 0.6)
    return total


def contrast(picture: Image.Image, amount: float) -> Image.Image:
    """Grey noise squeezed (below 1) or stretched (above 1) around 128."""
    return picture.point([min(255, max(0, round(128 + (v - 128) * amount))) for v in range(256)])


def gradient(size: tuple[int, int], stops: Sequence[tuple[float, Colour]]) -> Image.Image:
    """A vertical gradient through `stops` of (share of the height, colour)."""
    column = Image.new("RGB", (1, size[1]))
    for y in range(size[1]):
        share = y / max(1, size[1] - 1)
        low = max((s for s in stops if s[0] <= share), key=lambda s: s[0], default=stops[0])
        high = min((s for s in stops if s[0] >= share), key=lambda s: s[0], default=stops[-1])
        t = 0.0 if high[0] == low[0] else (share - low[0]) / (high[0] - low[0])
        column.putpixel((0, y), mix(low[1], high[1], t))
    return column.resize(size)


def mix(a: Colour, b: Colour, t: float) -> Colour:
    """`a` at 0, `b` at 1."""
    return (round(a[0] + (b[0] - a[0]) * t), round(a[1] + (b[1] - a[1]) * t), round(a[2] + (b[2] - a[2]) * t))


def lit(colour: Colour, factor: float) -> Colour:
    """`colour` times `factor`, clipped."""
    r, g, b = (min(255, max(0, round(c * factor))) for c in colour)
    return (r, g, b)


def perspective(texture: Image.Image, corners: Sequence[Point]) -> Image.Image:
    """`texture` laid on the quadrilateral `corners` (top left, top right, bottom right, bottom left; full-size pixels)."""
    w, h = texture.size
    rows: list[list[float]] = []
    for (x, y), (u, v) in zip(corners, ((0, 0), (w, 0), (w, h), (0, h)), strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y, u])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y, v])
    for i in range(8):  # Gauss-Jordan with pivoting: eight equations for the eight coefficients
        pivot = max(range(i, 8), key=lambda r: abs(rows[r][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for r in range(8):
            if r != i:
                rows[r] = [a - rows[r][i] * b for a, b in zip(rows[r], rows[i], strict=True)]
    return texture.transform(FULL, Image.Transform.PERSPECTIVE, [row[8] for row in rows], Image.Resampling.BICUBIC)


# --- a canvas ---


class Canvas:
    """A picture at full size that is painted from back to front."""

    def __init__(self, seed: int) -> None:
        self.image = Image.new("RGB", FULL)
        self.grain = contrast(noise(FULL, (30, 30), seed, 5), 0.7)
        self.rng = random.Random(seed)

    def mask(self, points: Sequence[Point], blur: float = 0.0) -> Image.Image:
        """The polygon `points` as a mask, with soft edges where `blur` says so."""
        mask = Image.new("L", FULL)
        ImageDraw.Draw(mask).polygon([(x * SCALE, y * SCALE) for x, y in points], fill=255)
        return mask.filter(ImageFilter.GaussianBlur(blur * SCALE)) if blur else mask

    def paint(self, points: Sequence[Point], colour: Colour, *, far: Colour | None = None, across: bool = False, rough: float = 0.15) -> None:
        """Fill a polygon; `far` is the colour at its other end (bottom, or right with `across`), `rough` the strength of the grain."""
        xs, ys = [x * SCALE for x, _ in points], [y * SCALE for _, y in points]
        box = (max(0, math.floor(min(xs))), max(0, math.floor(min(ys))), min(FULL[0], math.ceil(max(xs)) + 1), min(FULL[1], math.ceil(max(ys)) + 1))
        size = (box[2] - box[0], box[3] - box[1])
        if size[0] <= 0 or size[1] <= 0:
            return
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).polygon([(x - box[0], y - box[1]) for x, y in zip(xs, ys, strict=True)], fill=255)
        if far is None:
            fill = Image.new("RGB", size, colour)
        elif across:
            fill = gradient((1, size[0]), [(0, colour), (1, far)]).transpose(Image.Transpose.TRANSPOSE).resize(size)
        else:
            fill = gradient(size, [(0, colour), (1, far)])
        if rough:
            fill = grained(fill, self.grain.crop(box), rough)
        self.image.paste(fill, box[:2], mask)

    def shade(self, points: Sequence[Point], amount: float, blur: float = 6.0) -> None:
        """A soft shadow (`amount` above 0) or a soft light (below 0)."""
        mask = self.mask(points, blur).point([round(v * abs(amount)) for v in range(256)])
        self.image.paste(Image.new("RGB", FULL, (12, 14, 18) if amount > 0 else (255, 252, 240)), (0, 0), mask)

    def line(self, points: Sequence[Point], colour: Colour, width: float = 1.0) -> None:
        """A line of `width` canvas units."""
        ImageDraw.Draw(self.image).line([(x * SCALE, y * SCALE) for x, y in points], fill=colour, width=max(1, round(width * SCALE)), joint="curve")

    def lay(self, texture: Image.Image, corners: Sequence[Point]) -> None:
        """A texture in perspective."""
        full = [(x * SCALE, y * SCALE) for x, y in corners]
        self.image.paste(perspective(texture, full), (0, 0), self.mask(corners))

    def finish(self, seed: int) -> Image.Image:
        """What a camera adds: scaled down, darker corners, sensor noise."""
        small = self.image.filter(ImageFilter.GaussianBlur(0.8)).resize(SIZE, Image.Resampling.LANCZOS)
        vignette = Image.radial_gradient("L").resize(SIZE).point([255 - round(max(0, v - 100) * 0.36) for v in range(256)])
        small = ImageChops.multiply(small, Image.merge("RGB", [vignette] * 3))
        rng = random.Random(seed)
        speckle = Image.frombytes("L", SIZE, rng.randbytes(SIZE[0] * SIZE[1])).filter(ImageFilter.GaussianBlur(0.6))
        return grained(small, speckle, 0.035)


def grained(fill: Image.Image, grain: Image.Image, amount: float) -> Image.Image:
    """`fill` made lighter and darker by `grain`, which is grey around 128."""
    squeezed = contrast(grain, amount)
    lighter = squeezed.point([max(0, v - 128) * 2 for v in range(256)])
    darker = squeezed.point([255 - max(0, 128 - v) * 2 for v in range(256)])
    return ImageChops.screen(ImageChops.multiply(fill, Image.merge("RGB", [darker] * 3)), Image.merge("RGB", [lighter] * 3))


def tinted(grey: Image.Image, dark: Colour, light: Colour) -> Image.Image:
    """A grey picture as a range of colours."""
    return Image.merge("RGB", [grey.point([round(d + (b - d) * v / 255) for v in range(256)]) for d, b in zip(dark, light, strict=True)])


def along(a: Point, b: Point, t: float) -> Point:
    """The point at share `t` of the way."""
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t)


def sky(canvas: Canvas, horizon: float, stops: Sequence[tuple[float, Colour]], cloud: Colour, seed: int, strength: float) -> None:
    """A sky with clouds that flatten towards the horizon."""
    height = round(horizon * SCALE)
    picture = gradient((FULL[0], height), stops)
    cover = contrast(noise((FULL[0], height * 2), (520, 260), seed, 3), 1.9).resize((FULL[0], height))
    picture.paste(Image.new("RGB", picture.size, cloud), (0, 0), cover.point([round(max(0, v - 70) * strength) for v in range(256)]))
    canvas.image.paste(picture, (0, 0))


# --- the scenes ---


def ferry_berth() -> Image.Image:
    """A ferry's hull beside a quay wall, seen just above the water."""
    canvas = Canvas(11)
    horizon = 196
    sky(canvas, horizon + 4, [(0, (118, 150, 182)), (0.7, (186, 202, 214)), (1, (214, 220, 222))], (236, 238, 240), 12, 0.8)
    canvas.paint([(0, 186), (70, 176), (150, 183), (240, 178), (330, 186), (330, 200), (0, 200)], (128, 144, 152), far=(148, 160, 164), rough=0.1)

    waves = Image.blend(noise((900, 1400), (120, 34), 13, 4), noise((900, 1400), (44, 12), 14, 3), 0.5)
    water = tinted(contrast(waves, 2.6), (10, 36, 46), (136, 164, 170))
    canvas.lay(water, [(150, horizon), (490, horizon), (1900, 480), (-1260, 480)])
    haze = gradient((FULL[0], round((480 - horizon) * SCALE)), [(0, (186, 200, 206)), (1, (20, 46, 54))])
    canvas.image.paste(haze, (0, horizon * SCALE), gradient(haze.size, [(0, (205, 205, 205)), (0.25, (90, 90, 90)), (1, (24, 24, 24))]).convert("L"))

    # The hull: bow to the left and far, stern out of the picture to the right and near.
    bow_top, bow_foot, near_top, near_foot = (196.0, 122.0), (236.0, 236.0), (640.0, 62.0), (640.0, 322.0)
    mirror = [bow_foot, near_foot, (640, 480), (420, 480), (262, 300)]
    canvas.image.paste(
        Image.new("RGB", FULL, (14, 26, 44)),
        (0, 0),
        ImageChops.multiply(canvas.mask(mirror, 9), contrast(noise(FULL, (190, 16), 16, 4), 1.6).point([min(255, v + 40) for v in range(256)])),
    )
    red_mirror = [bow_foot, near_foot, (640, 372), (246, 256)]
    canvas.image.paste(
        Image.new("RGB", FULL, (104, 34, 30)),
        (0, 0),
        ImageChops.multiply(canvas.mask(red_mirror, 4), contrast(noise(FULL, (120, 9), 17, 4), 2.6).point([round(v * 0.8) for v in range(256)])),
    )

    def side(t: float, height: float) -> Point:
        """A point of the hull's side: t from bow to stern, height from water line (0) to deck (1). The bow flares outwards."""
        foot, top = along(bow_foot, near_foot, t), along(bow_top, near_top, t)
        return along(foot, top, height)

    def strip(low: float, high: float, start: float = 0.0, end: float = 1.0) -> list[Point]:
        steps = [start + (end - start) * i / 24 for i in range(25)]
        return [side(t, high) for t in steps] + [side(t, low) for t in reversed(steps)]

    # Superstructure, set back from the deck's edge.
    house = [(282, 110), (298, 66), (350, 52), (640, -44), (640, 66), (282, 116)]
    canvas.paint(house, (206, 212, 216), far=(238, 240, 240), across=True, rough=0.06)
    for deck, (left, low) in enumerate(((300, 100.0), (322, 76.0), (366, 50.0))):
        for n in range(17):
            x0 = left + n * 21 * (1 + n * 0.035)
            x1 = x0 + 13 + n * 0.9
            if x1 > 645:
                break
            y0, tall = low - (x0 - left) * (0.15 + 0.085 * deck), 7 + (x0 - left) * 0.022
            slope = (x1 - x0) * (0.15 + 0.085 * deck)
            canvas.paint([(x0, y0 - tall), (x1, y0 - tall - slope), (x1, y0 - slope), (x0, y0)], (44, 62, 78), far=(96, 122, 140), rough=0.1)
        canvas.line([(left - 12, low + 6), (640, low + 6 - (652 - left) * (0.155 + 0.085 * deck))], (168, 176, 182), 1.4)
    canvas.paint([(300, 66), (350, 51), (352, 60), (302, 75)], (30, 44, 56), rough=0.05)
    canvas.paint([(420, 30), (430, -20), (500, -40), (500, 8)], (196, 70, 42), far=(150, 46, 30), across=True)
    canvas.line([(322, 62), (322, 12)], (210, 214, 216), 1.8)
    canvas.line([(312, 30), (334, 26)], (210, 214, 216), 1.4)

    canvas.paint(strip(0.0, 1.0), (28, 58, 104), far=(40, 84, 142), across=True, rough=0.12)
    canvas.paint(strip(0.93, 1.0), (226, 228, 226), rough=0.05)
    canvas.paint(strip(0.60, 0.635), (224, 226, 224), rough=0.08)
    canvas.paint(strip(0.0, 0.14), (122, 34, 30), far=(150, 44, 36), across=True, rough=0.25)
    canvas.paint(strip(0.0, 0.035), (44, 50, 40), rough=0.3)
    canvas.shade(strip(0.12, 0.4), 0.3, 14)
    canvas.shade(strip(0.66, 0.9, 0.35), -0.14, 14)
    for t in (0.12, 0.25, 0.39, 0.54, 0.7, 0.87):  # plates of the hull, and rust that runs from them
        canvas.line([side(t, 0.03), side(t, 0.92)], (24, 50, 92), 0.8)
        canvas.shade([side(t, 0.56), side(t + 0.012, 0.56), side(t + 0.008, 0.2)], 0.2, 2)
    for n in range(9):
        x, y = side(0.18 + n * 0.092, 0.78)
        r = 2.2 + n * 0.55
        ImageDraw.Draw(canvas.image).ellipse(
            [(x - r) * SCALE, (y - r) * SCALE, (x + r) * SCALE, (y + r) * SCALE], fill=(18, 26, 36), outline=(180, 188, 194), width=3
        )
    for n in range(26):  # the railing
        t = n / 25
        x, y = side(t, 1.0)
        canvas.line([(x, y), (x, y - 6 - 10 * t)], (214, 218, 220), 0.9)
    for height in (0.55, 1.0):
        canvas.line([(side(n / 25, 1.0)[0], side(n / 25, 1.0)[1] - height * (6 + 10 * n / 25)) for n in range(26)], (220, 224, 226), 0.9)

    # The quay to the left: wall of weathered concrete, lit top, tyres, a ladder, mooring line.
    wall = [(0, 150), (196, 190), (200, 224), (0, 368)]
    canvas.lay(tinted(contrast(noise((700, 300), (120, 90), 19, 6), 1.5), (74, 72, 66), (164, 160, 148)), [(0, 150), (196, 190), (200, 224), (0, 368)])
    canvas.shade([(0, 268), (198, 211), (200, 226), (0, 372)], 0.55, 7)
    canvas.shade([(0, 300), (199, 216), (200, 226), (0, 372)], 0.5, 4)
    canvas.paint([(0, 128), (182, 186), (196, 190), (0, 152)], (196, 192, 180), far=(170, 166, 156), rough=0.2)
    canvas.line([(0, 151), (196, 190)], (92, 90, 84), 1.6)
    for t in (0.16, 0.36, 0.55, 0.72, 0.86):
        top, foot = along(wall[0], wall[1], t), along(wall[3], wall[2], t)
        canvas.line([top, foot], (84, 82, 76), 1.2)
    for t in (0.08, 0.3, 0.5, 0.66, 0.8):
        top, foot = along(wall[0], wall[1], t), along(wall[3], wall[2], t)
        x, y = along(top, foot, 0.42)
        rx, ry = 17 * (1 - t) + 2, 27 * (1 - t) + 3
        canvas.shade([(x - rx, y), (x, y - ry), (x + rx * 1.4, y), (x, y + ry * 1.4)], 0.4, 3)
        draw = ImageDraw.Draw(canvas.image)
        draw.ellipse([(x - rx) * SCALE, (y - ry) * SCALE, (x + rx) * SCALE, (y + ry) * SCALE], fill=(30, 30, 32), outline=(58, 58, 60), width=4)
        draw.ellipse([(x - rx * 0.45) * SCALE, (y - ry * 0.5) * SCALE, (x + rx * 0.45) * SCALE, (y + ry * 0.5) * SCALE], fill=(70, 68, 64))
    for t in (0.215, 0.255):
        canvas.line([along(wall[0], wall[1], t), along(wall[3], wall[2], t)], (58, 46, 38), 1.8)
    for n in range(13):
        a = along(along(wall[0], wall[1], 0.215), along(wall[3], wall[2], 0.215), n / 13)
        b = along(along(wall[0], wall[1], 0.255), along(wall[3], wall[2], 0.255), n / 13)
        canvas.line([a, b], (64, 50, 40), 1.4)
    canvas.paint([(112, 160), (126, 160), (128, 173), (110, 171)], (40, 42, 46), far=(70, 72, 76))
    canvas.paint([(106, 156), (132, 156), (130, 161), (108, 161)], (56, 58, 62))
    rope = [(120 + 104 * n / 20, 163 - 30 * n / 20 + 26 * math.sin(math.pi * n / 20)) for n in range(21)]
    canvas.line(rope, (206, 192, 150), 1.5)
    canvas.shade([(0, 366), (200, 224), (214, 250), (120, 360), (0, 470)], 0.42, 14)
    canvas.shade([(232, 234), (640, 318), (640, 336), (240, 244)], 0.55, 4)
    foam = contrast(noise(FULL, (26, 7), 20, 3), 4.0).point([max(0, v - 170) * 2 for v in range(256)])
    for band in ([(228, 234), (640, 318), (640, 328), (236, 240)], [(0, 364), (200, 223), (203, 227), (0, 376)]):
        canvas.image.paste(Image.new("RGB", FULL, (206, 216, 216)), (0, 0), ImageChops.multiply(canvas.mask(band, 2), foam))
    return canvas.finish(21)


def boulder(canvas: Canvas, x: float, y: float, r: float, tone: Colour) -> None:
    """One boulder standing at (x, y): facets lit from the upper left, a shadow to the lower right."""
    rng = canvas.rng
    count = 11
    rim = []
    for n in range(count):
        angle = 2 * math.pi * n / count + rng.uniform(-0.16, 0.16)
        reach = r * rng.uniform(0.84, 1.12)
        rim.append((x + math.cos(angle) * reach * 1.15, y - r * 0.5 + math.sin(angle) * reach * 0.78))
    canvas.shade([(x - r * 0.9, y + r * 0.12), (x + r * 1.1, y - r * 0.1), (x + r * 1.75, y + r * 0.3), (x + r * 0.3, y + r * 0.5)], 0.62, r * 0.16)
    canvas.paint(rim, lit(tone, 0.8), far=lit(tone, 0.42), rough=0.5)
    crest = (x - r * rng.uniform(0.1, 0.4), y - r * rng.uniform(0.75, 0.95))
    knee = (x + r * rng.uniform(0.05, 0.3), y - r * rng.uniform(0.3, 0.45))
    for n in range(count):
        a, b = rim[n], rim[(n + 1) % count]
        angle = math.atan2((a[1] + b[1]) / 2 - (y - r * 0.5), (a[0] + b[0]) / 2 - x)
        light = 0.86 - 0.46 * math.cos(angle - math.radians(55)) + rng.uniform(-0.05, 0.05)
        centre = crest if math.sin(angle) < 0.1 else knee
        canvas.paint([a, b, centre], lit(tone, light), far=lit(tone, light * 0.8), rough=0.55)
    canvas.paint([crest, knee, along(knee, rim[0], 0.5), along(crest, rim[-2], 0.4)], lit(tone, 0.95), far=lit(tone, 0.7), rough=0.55)
    if r > 16:
        a = along(crest, rim[rng.randrange(count)], 0.7)
        canvas.line([crest, (a[0] + r * 0.1, a[1]), along(a, knee, 0.6)], lit(tone, 0.4), 0.8)


def boulder_slope() -> Image.Image:
    """A mountainside of loose boulders that climbs to the right."""
    canvas = Canvas(31)
    sky(canvas, 260, [(0, (84, 132, 186)), (0.8, (176, 202, 222)), (1, (204, 216, 224))], (240, 242, 244), 32, 0.7)
    ridges = ((150, 44, (132, 152, 176), 33), (186, 34, (104, 122, 138), 34))
    for base, rise, colour, seed in ridges:
        rng = random.Random(seed)
        top = [
            (x * 16.0, base - rise * abs(math.sin(x * 0.33 + seed)) - rise * 0.5 * abs(math.sin(x * 0.9 + seed)) + rng.uniform(-6, 6)) for x in range(-1, 43)
        ]
        canvas.paint([*top, (680, 400), (-20, 400)], colour, far=mix(colour, (186, 196, 200), 0.6), rough=0.35)
        for before, peak, after in zip(top, top[1:], top[2:], strict=False):
            if peak[1] < min(before[1], after[1]):  # the side of a peak that turns from the sun
                canvas.shade([peak, (after[0] + 10, after[1] + 14), (peak[0] + 16, base + 30), (peak[0] + 2, peak[1] + 40)], 0.3, 3)

    def ground(x: float) -> float:
        """The slope's upper edge."""
        return 286 - 0.36 * x + 7 * math.sin(x * 0.021) + 3 * math.sin(x * 0.083)

    edge = [(x, ground(x)) for x in range(-10, 661, 10)]
    soil = tinted(contrast(noise(FULL, (90, 44), 35, 6), 1.8), (70, 66, 48), (158, 150, 118))
    canvas.image.paste(soil, (0, 0), canvas.mask([*edge, (660, 490), (-10, 490)]))
    scree = contrast(noise(FULL, (12, 7), 36, 3), 3.2)
    canvas.image.paste(
        tinted(scree, (82, 80, 74), (182, 178, 168)),
        (0, 0),
        ImageChops.multiply(canvas.mask([*edge, (660, 490), (-10, 490)]), scree.point([255 if v > 120 else 60 for v in range(256)])),
    )
    canvas.shade([(0, 290), (640, 60), (640, 120), (0, 340)], -0.22, 24)

    stones = []
    for _ in range(560):
        x = canvas.rng.uniform(-20, 660)
        depth = canvas.rng.random() ** 1.5
        y = ground(x) + 4 + depth * (500 - ground(x))
        stones.append((y - ground(x), x, y, (2.5 + 0.082 * (y - ground(x))) * canvas.rng.uniform(0.5, 1.5)))
    stones += [(290, 118, 436, 62), (250, 470, 372, 66), (300, 330, 462, 54), (190, 270, 346, 38), (330, 590, 468, 70), (150, 592, 250, 34)]
    for _, x, y, r in sorted(stones, key=lambda s: s[2]):
        tone = mix((168, 162, 152), (148, 152, 156), canvas.rng.random())
        tone = mix(tone, (170, 146, 118), 0.45 * canvas.rng.random())
        boulder(canvas, x, y, r, lit(mix(tone, (188, 198, 206), max(0.0, 0.35 - r * 0.02)), canvas.rng.uniform(0.88, 1.12)))
        if canvas.rng.random() < 0.22:
            for blade in range(9):
                gx = x + r + blade * 1.1 - 5
                canvas.line(
                    [(gx, y + r * 0.3), (gx + canvas.rng.uniform(-3, 3), y + r * 0.3 - canvas.rng.uniform(3, 6 + r * 0.2))],
                    mix((92, 104, 52), (150, 146, 84), canvas.rng.random()),
                    0.7,
                )
    return canvas.finish(37)


class Room:
    """A camera in a room: metres to canvas points. x to the right, y up from the floor, z away from the camera."""

    def __init__(self, canvas: Canvas, *, eye: Point3, focal: float, centre: Point, fade: tuple[Colour, float] = ((0, 0, 0), 0.0)) -> None:
        self.canvas, self.eye, self.focal, self.centre, self.fade = canvas, eye, focal, centre, fade

    def at(self, p: Point3) -> Point:
        """Where `p` is seen."""
        z = max(0.05, p[2] - self.eye[2])
        return (self.centre[0] + self.focal * (p[0] - self.eye[0]) / z, self.centre[1] - self.focal * (p[1] - self.eye[1]) / z)

    def face(self, points: Sequence[Point3], colour: Colour, light: float = 1.0, rough: float = 0.1, far: float | None = None, across: bool = False) -> None:
        """A flat face; `far` is the light at its other end."""
        depth = sum(p[2] - self.eye[2] for p in points) / len(points)
        colour = mix(colour, self.fade[0], min(0.6, self.fade[1] * depth))
        self.canvas.paint([self.at(p) for p in points], lit(colour, light), far=None if far is None else lit(colour, far), across=across, rough=rough)

    def box(self, low: Point3, high: Point3, colour: Colour, *, light: float = 1.0, rough: float = 0.1) -> None:
        """A box: the faces that the camera can see, the top brightest."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        if self.eye[0] < x0:
            self.face([(x0, y1, z1), (x0, y1, z0), (x0, y0, z0), (x0, y0, z1)], colour, 0.7 * light, rough, 0.55 * light)
        if self.eye[0] > x1:
            self.face([(x1, y1, z0), (x1, y1, z1), (x1, y0, z1), (x1, y0, z0)], colour, 0.7 * light, rough, 0.55 * light)
        if self.eye[1] > y1:
            self.face([(x0, y1, z1), (x1, y1, z1), (x1, y1, z0), (x0, y1, z0)], colour, 1.12 * light, rough)
        if self.eye[1] < y0:
            self.face([(x0, y0, z1), (x1, y0, z1), (x1, y0, z0), (x0, y0, z0)], colour, 0.5 * light, rough)
        self.face([(x0, y1, z0), (x1, y1, z0), (x1, y0, z0), (x0, y0, z0)], colour, 0.95 * light, rough, 0.82 * light)

    def shadow(self, points: Sequence[Point3], amount: float, blur: float) -> None:
        """A soft shadow (or light, below 0) on the face `points`."""
        self.canvas.shade([self.at(p) for p in points], amount, blur)

    def edge(self, a: Point3, b: Point3, colour: Colour, width: float) -> None:
        """A line between two points."""
        self.canvas.line([self.at(a), self.at(b)], colour, width)


def office_corridor() -> Image.Image:
    """A corridor with a flat, polished floor, doors on the left and shelves on the right."""
    canvas = Canvas(51)
    room = Room(canvas, eye=(0.1, 1.45, 0.0), focal=430, centre=(312, 206), fade=((214, 212, 204), 0.012))
    left, right, top, near, end = -1.5, 1.7, 2.7, 0.9, 17.0
    floor = tinted(contrast(noise((500, 1600), (60, 60), 52, 6), 0.5), (88, 94, 100), (178, 182, 184))
    draw = ImageDraw.Draw(floor)
    for column in range(0, 501, 125):
        draw.line([(column, 0), (column, 1600)], fill=(112, 116, 120), width=3)
    for row in range(0, 1601, 60):
        draw.line([(0, row), (500, row)], fill=(112, 116, 120), width=3)
    canvas.lay(floor, [room.at(p) for p in ((left, 0, end), (right, 0, end), (right, 0, near), (left, 0, near))])
    room.face([(left, top, near), (right, top, near), (right, top, end), (left, top, end)], (206, 206, 202), 0.92, 0.05, 1.05)
    for metre in range(1, 18):
        room.edge((left, top, metre), (right, top, metre), (178, 178, 174), 0.8)
    for x in (-0.7, 0.1, 0.9):
        room.edge((x, top, near), (x, top, end), (178, 178, 174), 0.8)
    room.face([(left, top, near), (left, top, end), (left, 0, end), (left, 0, near)], (222, 214, 196), 0.84, 0.06, 1.0, across=True)
    room.face([(right, top, end), (right, top, near), (right, 0, near), (right, 0, end)], (222, 216, 204), 1.0, 0.06, 0.84, across=True)
    room.face([(left, top, end), (right, top, end), (right, 0, end), (left, 0, end)], (226, 222, 210), 1.0, 0.05, 0.9)
    room.face([(-0.75, 2.1, end), (0.85, 2.1, end), (0.85, 0, end), (-0.75, 0, end)], (96, 110, 124), 1.0, 0.1)
    for x0, x1 in ((-0.68, 0.02), (0.08, 0.78)):
        room.face([(x0, 2.0, end), (x1, 2.0, end), (x1, 0.1, end), (x0, 0.1, end)], (206, 222, 230), 1.1, 0.1, 0.8)
    room.face([(-0.3, 2.5, end), (0.4, 2.5, end), (0.4, 2.22, end), (-0.3, 2.22, end)], (46, 156, 92), 1.1, 0.05)

    for z in (2.3, 5.0, 7.7, 10.4, 13.1):  # lamps in the ceiling and what the floor mirrors of them
        canvas.shade([room.at(p) for p in ((-0.9, top, z - 0.3), (1.1, top, z - 0.3), (1.1, top, z + 1.5), (-0.9, top, z + 1.5))], -0.5, 14 / z + 2)
        room.face([(-0.5, top, z), (0.7, top, z), (0.7, top, z + 1.2), (-0.5, top, z + 1.2)], (255, 253, 244), 1.0, 0.0)
        room.shadow([(-0.55, 0, z - 0.1), (0.75, 0, z - 0.1), (0.7, 0, z + 1.3), (-0.5, 0, z + 1.3)], -0.46, 22 / z + 3)
    room.shadow([(-0.75, 0, end), (0.85, 0, end), (0.8, 0, 8), (-0.7, 0, 8)], -0.35, 7)

    for z in (13.4, 10.2, 7.2, 4.4, 1.9):  # doors on the left
        wide = 0.95
        room.face([(left, 2.16, z - 0.08), (left, 2.16, z + wide + 0.08), (left, 0, z + wide + 0.08), (left, 0, z - 0.08)], (112, 92, 72), 0.9, 0.1)
        room.face([(left, 2.08, z), (left, 2.08, z + wide), (left, 0, z + wide), (left, 0, z)], (168, 118, 74), 0.95, 0.35, 0.76)
        room.face([(left, 1.9, z + 0.3), (left, 1.9, z + 0.64), (left, 1.1, z + 0.64), (left, 1.1, z + 0.3)], (74, 92, 104), 1.1, 0.1, 1.5)
        room.face(
            [(left + 0.05, 1.02, z + 0.8), (left + 0.05, 1.02, z + 0.93), (left + 0.05, 0.97, z + 0.93), (left + 0.05, 0.97, z + 0.8)],
            (210, 212, 214),
            1.0,
            0.0,
        )
        room.face(
            [(left, 1.75, z + wide + 0.2), (left, 1.75, z + wide + 0.5), (left, 1.55, z + wide + 0.5), (left, 1.55, z + wide + 0.2)], (52, 84, 128), 1.0, 0.05
        )
        room.shadow([(left, 0, z), (left, 0, z + wide), (left + 0.5, 0, z + wide), (left + 0.5, 0, z)], 0.25, 16 / z + 2)
    room.face([(left + 0.01, 0.12, near), (left + 0.01, 0.12, end), (left + 0.01, 0, end), (left + 0.01, 0, near)], (92, 88, 82), 1.0, 0.05)

    rng = random.Random(53)
    binders = [(176, 58, 48), (42, 88, 142), (52, 122, 84), (212, 168, 62), (222, 220, 212), (62, 62, 70), (130, 84, 142), (196, 112, 56)]
    front = 1.28
    for z in (12.6, 9.8, 7.0, 4.2, 1.35):  # shelves on the right, two metres long each
        z1 = z + 2.2
        room.face([(front, 2.0, z1), (front, 2.0, z), (front, 0, z), (front, 0, z1)], (92, 76, 60), 0.62, 0.1)
        room.face([(front, 2.0, z), (right, 2.0, z), (right, 0, z), (front, 0, z)], (176, 146, 108), 0.8, 0.2, 0.66)
        for level in range(5):
            y0 = 0.1 + level * 0.38
            at = z1 - 0.04
            while at > z + 0.08:
                thick = rng.choice((0.05, 0.07, 0.09, 0.3))
                if rng.random() < 0.14:
                    at -= rng.uniform(0.08, 0.25)
                    continue
                if at - thick < z + 0.03:
                    break
                colour = (178, 146, 104) if thick == 0.3 else rng.choice(binders)
                tall = rng.uniform(0.24, 0.31)
                room.face([(front, y0 + tall, at), (front, y0 + tall, at - thick), (front, y0, at - thick), (front, y0, at)], colour, 0.98, 0.2, 0.72)
                if thick == 0.09:
                    room.face(
                        [
                            (front, y0 + tall * 0.75, at - 0.02),
                            (front, y0 + tall * 0.75, at - 0.07),
                            (front, y0 + tall * 0.4, at - 0.07),
                            (front, y0 + tall * 0.4, at - 0.02),
                        ],
                        (236, 234, 226),
                        0.95,
                        0.05,
                    )
                at -= thick + 0.006
        for level in range(6):
            y = 0.06 + level * 0.38
            room.face([(front - 0.01, y + 0.04, z1), (front - 0.01, y + 0.04, z), (front - 0.01, y, z), (front - 0.01, y, z1)], (190, 158, 116), 0.95, 0.2)
        for edge_z in (z, z1 - 0.05):
            room.face(
                [(front - 0.01, 2.0, edge_z + 0.05), (front - 0.01, 2.0, edge_z), (front - 0.01, 0, edge_z), (front - 0.01, 0, edge_z + 0.05)],
                (182, 150, 110),
                0.95,
                0.2,
            )
        room.shadow([(front, 0, z), (front, 0, z1), (front - 0.55, 0, z1), (front - 0.55, 0, z)], 0.34, 18 / z + 2)
    for line in ([(left, 0, near), (left, 0, end)], [(right, 0, near), (right, 0, end)]):
        a, b = line
        room.shadow([a, b, (b[0] * 0.97, 0, b[2]), (a[0] * 0.88, 0, a[2])], 0.3, 4)
    room.shadow([(left, top, near), (left, top, end), (left, top - 0.25, end), (left, top - 0.25, near)], 0.18, 6)
    return canvas.finish(54)


def kitchen() -> Image.Image:
    """A home kitchen: counter, stove, sink under a window, cupboards, refrigerator, a table with mugs."""
    canvas = Canvas(71)
    room = Room(canvas, eye=(0.0, 1.55, 0.0), focal=420, centre=(320, 196))
    left, right, top, near, back = -2.3, 2.3, 2.65, 0.7, 4.6
    tiles = tinted(contrast(noise((800, 800), (90, 90), 72, 6), 0.5), (150, 116, 84), (226, 196, 160))
    draw = ImageDraw.Draw(tiles)
    for n in range(0, 801, 80):
        draw.line([(n, 0), (n, 800)], fill=(150, 126, 100), width=4)
        draw.line([(0, n), (800, n)], fill=(150, 126, 100), width=4)
    canvas.lay(tiles, [room.at(p) for p in ((left, 0, back), (right, 0, back), (right, 0, near), (left, 0, near))])
    room.face([(left, top, near), (right, top, near), (right, top, back), (left, top, back)], (238, 234, 224), 0.86, 0.03, 1.0)
    room.face([(left, top, near), (left, top, back), (left, 0, back), (left, 0, near)], (232, 216, 182), 0.78, 0.05, 0.96, across=True)
    room.face([(right, top, back), (right, top, near), (right, 0, near), (right, 0, back)], (232, 216, 182), 0.98, 0.05, 0.78, across=True)
    room.face([(left, top, back), (right, top, back), (right, 0, back), (left, 0, back)], (238, 224, 192), 1.0, 0.05, 0.9)
    for row in range(5):  # wall tiles over the counter
        for column in range(34):
            x, y = left + column * 0.14, 0.92 + row * 0.12
            room.face(
                [(x + 0.006, y + 0.114, back), (x + 0.134, y + 0.114, back), (x + 0.134, y + 0.006, back), (x + 0.006, y + 0.006, back)],
                (226, 234, 232),
                canvas.rng.uniform(0.93, 1.03),
                0.05,
            )

    # The window, with a garden behind it.
    wx0, wx1, wy0, wy1 = -0.55, 0.6, 1.12, 2.2
    room.face(
        [(wx0 - 0.07, wy1 + 0.07, back), (wx1 + 0.07, wy1 + 0.07, back), (wx1 + 0.07, wy0 - 0.07, back), (wx0 - 0.07, wy0 - 0.07, back)],
        (250, 248, 242),
        1.0,
        0.03,
    )
    room.face([(wx0, wy1, back), (wx1, wy1, back), (wx1, wy0, back), (wx0, wy0, back)], (178, 212, 240), 1.0, 0.1, 1.22)
    room.face(
        [(wx0, 1.5, back), (-0.2, 1.62, back), (0.1, 1.5, back), (0.35, 1.66, back), (wx1, 1.55, back), (wx1, wy0, back), (wx0, wy0, back)],
        (112, 156, 78),
        1.0,
        0.5,
        0.8,
    )
    room.box((0.0, wy0, back - 0.02), (0.05, wy1, back - 0.01), (250, 248, 242))
    room.box((wx0, 1.64, back - 0.02), (wx1, 1.69, back - 0.01), (250, 248, 242))
    room.shadow([(wx0 - 0.3, wy1 + 0.2, back), (wx1 + 0.3, wy1 + 0.2, back), (wx1 + 0.3, wy0 - 0.2, back), (wx0 - 0.3, wy0 - 0.2, back)], -0.22, 16)

    wood = (206, 158, 104)
    depth: float = back - 0.62
    for x0, x1 in ((-2.3, -1.48), (-1.46, -0.72), (0.78, 1.4)):  # wall cupboards
        room.box((x0, 1.6, back - 0.36), (x1, 2.36, back), wood, rough=0.25)
        middle = (x0 + x1) / 2
        for a, b in ((x0 + 0.03, middle - 0.015), (middle + 0.015, x1 - 0.03)):
            z = back - 0.365
            room.face([(a, 2.33, z), (b, 2.33, z), (b, 1.63, z), (a, 1.63, z)], wood, 1.04, 0.3, 0.9)
            room.face([(a + 0.05, 2.27, z), (b - 0.05, 2.27, z), (b - 0.05, 1.69, z), (a + 0.05, 1.69, z)], wood, 0.9, 0.3, 0.97)
        for x in (middle - 0.05, middle + 0.03):
            room.face([(x, 1.8, back - 0.37), (x + 0.02, 1.8, back - 0.37), (x + 0.02, 1.68, back - 0.37), (x, 1.68, back - 0.37)], (112, 112, 114), 1.2, 0.0)
        room.shadow([(x0, 1.6, back), (x1, 1.6, back), (x1, 1.35, back), (x0, 1.35, back)], 0.32, 5)
    room.box((-2.3, 0.0, depth + 0.05), (1.42, 0.1, back), (60, 52, 46))
    room.box((-2.3, 0.1, depth), (1.42, 0.88, back), wood, rough=0.25)
    for n in range(6):  # doors and drawers under the counter
        a, b = -2.28 + n * 0.62, -2.28 + n * 0.62 + 0.58
        z = depth - 0.005
        if n == 1:
            continue
        room.face([(a, 0.84, z), (b, 0.84, z), (b, 0.68, z), (a, 0.68, z)], wood, 1.02, 0.3, 0.96)
        room.face([(a, 0.65, z), (b, 0.65, z), (b, 0.13, z), (a, 0.13, z)], wood, 1.0, 0.3, 0.84)
        room.face([(a + 0.06, 0.59, z), (b - 0.06, 0.59, z), (b - 0.06, 0.19, z), (a + 0.06, 0.19, z)], wood, 0.88, 0.3, 0.92)
        for y in (0.77, 0.62):
            room.face(
                [(a + 0.2, y, z - 0.02), (b - 0.2, y, z - 0.02), (b - 0.2, y - 0.025, z - 0.02), (a + 0.2, y - 0.025, z - 0.02)], (120, 120, 122), 1.2, 0.0
            )
    room.box((-2.3, 0.88, depth - 0.04), (1.42, 0.93, back), (92, 96, 100), rough=0.35)
    room.shadow([(-2.3, 0.86, depth), (1.42, 0.86, depth), (1.42, 0.74, depth), (-2.3, 0.74, depth)], 0.3, 3)

    # Stove with oven, a pot on it, the hood over it.
    sx0, sx1 = -1.67, -1.06
    room.box((sx0, 0.02, depth - 0.02), (sx1, 0.94, back - 0.05), (196, 198, 200), rough=0.08)
    room.face(
        [(sx0 + 0.06, 0.66, depth - 0.025), (sx1 - 0.06, 0.66, depth - 0.025), (sx1 - 0.06, 0.22, depth - 0.025), (sx0 + 0.06, 0.22, depth - 0.025)],
        (30, 32, 36),
        1.0,
        0.1,
        1.9,
    )
    room.face(
        [(sx0 + 0.06, 0.74, depth - 0.05), (sx1 - 0.06, 0.74, depth - 0.05), (sx1 - 0.06, 0.71, depth - 0.05), (sx0 + 0.06, 0.71, depth - 0.05)],
        (230, 232, 234),
        1.0,
        0.0,
    )
    for n in range(5):
        x, y = room.at((sx0 + 0.1 + n * 0.105, 0.83, depth - 0.03))
        ImageDraw.Draw(canvas.image).ellipse([(x - 3) * SCALE, (y - 3) * SCALE, (x + 3) * SCALE, (y + 3) * SCALE], fill=(40, 42, 46))
    room.face(
        [(sx0 + 0.03, 0.945, back - 0.1), (sx1 - 0.03, 0.945, back - 0.1), (sx1 - 0.03, 0.945, depth), (sx0 + 0.03, 0.945, depth)], (34, 36, 40), 1.0, 0.1
    )

    def tin(x: float, y: float, z: float, radius: float, height: float, colour: Colour, inside: Colour) -> None:
        """A round vessel that stands at (x, y, z)."""
        a, b = room.at((x - radius, y + height, z)), room.at((x + radius, y, z))
        flat = (b[0] - a[0]) * 0.16
        draw = ImageDraw.Draw(canvas.image)
        canvas.shade([(a[0], b[1] + 1), (b[0] + 6, b[1] + 1), (b[0] + 12, b[1] + flat), (a[0] + 4, b[1] + flat)], 0.45, 3)
        draw.ellipse([a[0] * SCALE, (b[1] - flat) * SCALE, b[0] * SCALE, (b[1] + flat) * SCALE], fill=lit(colour, 0.72))
        middle = a[0] + (b[0] - a[0]) * 0.35
        canvas.paint([a, (middle, a[1]), (middle, b[1] + flat * 0.9), (a[0], b[1])], lit(colour, 0.8), far=lit(colour, 1.15), across=True, rough=0.0)
        canvas.paint([(middle, a[1]), (b[0], a[1]), b, (middle, b[1] + flat * 0.9)], lit(colour, 1.15), far=lit(colour, 0.6), across=True, rough=0.0)
        ImageDraw.Draw(canvas.image).ellipse(
            [a[0] * SCALE, (a[1] - flat) * SCALE, b[0] * SCALE, (a[1] + flat) * SCALE], fill=inside, outline=lit(colour, 1.1), width=3
        )

    tin(-1.5, 0.945, back - 0.4, 0.13, 0.17, (178, 62, 48), (96, 30, 26))
    tin(-1.22, 0.945, back - 0.38, 0.11, 0.1, (150, 154, 158), (70, 72, 76))
    canvas.line([room.at((-1.12, 1.02, back - 0.4)), room.at((-0.9, 1.05, back - 0.55))], (40, 40, 42), 3)

    # Sink and tap under the window; things on the counter.
    room.face(
        [(-0.3, 0.935, back - 0.12), (0.36, 0.935, back - 0.12), (0.36, 0.935, depth + 0.08), (-0.3, 0.935, depth + 0.08)], (196, 202, 206), 0.8, 0.1, 1.05
    )
    room.face(
        [(-0.25, 0.932, back - 0.16), (0.31, 0.932, back - 0.16), (0.31, 0.932, depth + 0.13), (-0.25, 0.932, depth + 0.13)], (120, 128, 134), 0.75, 0.1, 1.1
    )
    tap = [
        room.at(p) for p in ((0.03, 0.93, back - 0.1), (0.03, 1.16, back - 0.1), (0.03, 1.2, back - 0.15), (0.03, 1.2, back - 0.3), (0.03, 1.12, back - 0.34))
    ]
    canvas.line(tap, (140, 146, 150), 4)
    canvas.line([(x - 0.8, y) for x, y in tap], (232, 236, 238), 1.2)
    for x, colour in ((-0.62, (206, 74, 52)), (-0.46, (226, 178, 72))):
        tin(x, 0.93, back - 0.25, 0.06, 0.18, colour, (240, 236, 226))
    tin(0.62, 0.93, back - 0.28, 0.08, 0.14, (236, 234, 228), (190, 160, 120))
    for n in range(5):
        x, y = room.at((0.62 + (n - 2) * 0.03, 1.07, back - 0.28))
        canvas.line([(x, y), (x + (n - 2) * 3, y - 20 - n % 2 * 6)], (168, 120, 70), 1.6)
    room.box((0.95, 0.93, back - 0.42), (1.3, 1.14, back - 0.16), (64, 66, 72), rough=0.1)
    room.face([(1.0, 1.12, back - 0.425), (1.25, 1.12, back - 0.425), (1.25, 0.96, back - 0.425), (1.0, 0.96, back - 0.425)], (96, 100, 108), 1.0, 0.05, 1.3)

    # Refrigerator on the right.
    room.box((1.46, 0.03, depth - 0.12), (2.28, 1.95, back), (226, 230, 232), rough=0.05)
    z = depth - 0.125
    room.face([(1.48, 1.31, z), (2.26, 1.31, z), (2.26, 1.28, z), (1.48, 1.28, z)], (110, 114, 118), 1.0, 0.0)
    for y0, y1 in ((1.36, 1.7), (0.75, 1.22)):
        room.box((1.53, y0, z - 0.05), (1.56, y1, z - 0.02), (150, 154, 158))
    for x, y, colour in ((1.8, 1.7, (250, 226, 110)), (1.98, 1.62, (164, 210, 232)), (1.86, 1.05, (240, 160, 150))):
        room.face([(x, y, z), (x + 0.13, y + 0.01, z), (x + 0.12, y - 0.13, z), (x - 0.01, y - 0.13, z)], colour, 1.0, 0.05)
    room.shadow([(1.3, 0, depth - 0.1), (2.3, 0, depth - 0.1), (2.3, 0, depth - 0.6), (1.1, 0, depth - 0.5)], 0.4, 8)
    room.shadow([(-2.3, 0, depth), (1.4, 0, depth), (1.4, 0, depth - 0.4), (-2.3, 0, depth - 0.4)], 0.42, 8)

    # A lamp over the table, the table, mugs and a plate.
    room.shadow([(-1.35, 0, 1.75), (0.9, 0, 1.75), (1.1, 0, 2.75), (-1.2, 0, 2.75)], 0.5, 14)
    for x, z in ((-1.0, 2.55), (0.72, 2.55), (-1.0, 1.85), (0.72, 1.85)):
        room.box((x - 0.04, 0, z - 0.04), (x + 0.04, 0.72, z + 0.04), (146, 100, 62), rough=0.3)
    room.box((-1.12, 0.7, 1.75), (0.84, 0.76, 2.65), (182, 128, 82), rough=0.4)
    room.shadow([(-0.7, 0.76, 2.5), (0.5, 0.76, 2.5), (0.4, 0.76, 2.1), (-0.6, 0.76, 2.1)], -0.25, 14)
    x, y = room.at((-0.1, 0.765, 2.15))
    draw = ImageDraw.Draw(canvas.image)
    for r, colour in ((44, (238, 238, 234)), (30, (218, 220, 218)), (27, (230, 230, 226))):
        draw.ellipse([(x - r) * SCALE, (y - r * 0.3) * SCALE, (x + r) * SCALE, (y + r * 0.3) * SCALE], fill=colour)
    for dx, dy, r, colour in ((-9, -5, 11, (196, 44, 38)), (10, -4, 11, (222, 160, 48)), (1, 2, 11, (132, 172, 62))):
        for step in range(8):
            k = r * (1 - step / 9)
            cx, cy = x + dx - step * 0.5, y + dy - 6 - step * 0.5
            draw.ellipse([(cx - k) * SCALE, (cy - k) * SCALE, (cx + k) * SCALE, (cy + k) * SCALE], fill=lit(colour, 0.72 + step * 0.06))
    tin(-0.75, 0.76, 2.2, 0.055, 0.12, (66, 112, 158), (70, 44, 30))
    tin(0.5, 0.76, 2.3, 0.055, 0.12, (222, 222, 216), (70, 44, 30))
    cord = room.at((-0.1, 1.98, 2.3))
    canvas.line([(cord[0], 0), cord], (50, 46, 42), 1.4)
    canvas.paint(
        [(cord[0] - 9, cord[1]), (cord[0] + 9, cord[1]), (cord[0] + 38, cord[1] + 26), (cord[0] - 38, cord[1] + 26)],
        (96, 40, 34),
        far=(186, 82, 60),
        across=True,
        rough=0.05,
    )
    canvas.shade([(cord[0] - 40, cord[1] + 24), (cord[0] + 40, cord[1] + 24), (cord[0] + 44, cord[1] + 36), (cord[0] - 44, cord[1] + 36)], -0.7, 5)
    room.shadow([(left, top, back), (right, top, back), (right, top - 0.3, back), (left, top - 0.3, back)], 0.16, 8)
    return canvas.finish(74)


SCENES = {"ferry_berth": ferry_berth, "boulder_slope": boulder_slope, "office_corridor": office_corridor, "kitchen": kitchen}


def main() -> None:
    """Draw every scene, or those that are named after the folder."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "assets" / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or SCENES:
        SCENES[name]().save(folder / f"{name}.jpg", quality=90, subsampling=0)
        print(folder / f"{name}.jpg")


if __name__ == "__main__":
    main()
