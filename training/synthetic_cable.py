"""Seeded, photo-like cable cross-sections with exact defect masks, in the layout of MVTec AD's `cable` category.

Every pixel is drawn here from signed distances; nothing comes from a photograph. A part is plain data (`Part`), a
defect is an edit of that data, and both are drawn over the same `Scene` (bench, sheath, texture, dust, light, noise).
So the good twin and the defective part differ by the defect alone: the mask is read off their noise-free difference.

Lengths are in half image widths (the picture spans -1 .. 1, y downwards), colours are RGB in 0 .. 1.
"""

import argparse
import hashlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from anomaly.errors import DataError, VigieError

__all__ = ["DEFECTS", "render", "write_dataset"]

DEFECTS: tuple[str, ...] = (
    "bent_wire",
    "cable_swap",
    "combined",
    "cut_inner_insulation",
    "cut_outer_insulation",
    "missing_cable",
    "missing_wire",
    "poke_insulation",
)

Floats = NDArray[Any]  # float32; numpy types a product of float32 arrays and scalars too loosely to say so
Bytes = NDArray[np.uint8]
Pair = tuple[float, float]

INSULATION = ((0.19, 0.46, 0.28), (0.17, 0.34, 0.60), (0.50, 0.41, 0.36))  # green, blue, grey-brown: clockwise from top
COPPER = np.array((0.94, 0.60, 0.41), np.float32)
GLINT = np.array((1.00, 0.87, 0.72), np.float32)
PIT = np.array((0.085, 0.055, 0.042), np.float32)  # what is seen between the strands
SHEATH = -1  # `Opening.ring` when it is not a conductor
LOOKS = ("x", "y", "radius", "squash", "axis", "ridge", "tone", "tilt_x", "tilt_y", "glint", "red")
STRAND = np.dtype([(name, np.float32) for name in LOOKS])


@dataclass(frozen=True, slots=True)
class Outline:
    """A nearly round curve: a circle with the harmonics 2, 3, ... as complex amplitudes."""

    x: float
    y: float
    radius: float
    harmonics: tuple[complex, ...]


@dataclass(frozen=True, slots=True)
class Conductor:
    outline: Outline
    core: float  # radius of the copper
    colour: Floats  # (3,)
    strands: NDArray[Any]  # (n,) of STRAND; x and y from the conductor's centre
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Opening:
    """A gap in one ring of plastic: a cut that starts at (x, y), or a needle's hole around it."""

    ring: int
    x: float
    y: float
    angle: float  # where the blade went, or the hole's long axis
    length: float
    half_width: float
    taper: float = 0.0  # of a cut; 0: parallel flanks, 1: a wedge
    wave: float = 0.0  # phase of a cut's jagged flanks
    hole: bool = False


@dataclass(frozen=True, slots=True)
class BentWire:
    path: Floats  # (points, 2)
    radius: float
    tone: float


@dataclass(frozen=True, slots=True)
class Part:
    sheath: Outline
    bore: Outline  # inner wall of the sheath
    sheath_colour: Floats  # (3,)
    filler_colour: Floats  # (3,)
    light: Pair  # unit vector towards the lamp
    conductors: tuple[Conductor, ...]
    marks: tuple[Opening | BentWire, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """All that no defect changes; float32 maps of (size, size) or, in colour, (size, size, 3)."""

    base: Floats  # colour: bench, sheath and filler
    mottle: Floats
    streaks: Floats  # left by the saw
    grain: Floats
    dust: Floats  # opacity
    lighting: Floats  # colour
    noise: Floats  # colour
    blur_px: float


def render(defect: str | None, *, seed: int, size: int = 256) -> tuple[Bytes, Bytes]:
    """Draws one part.

    Args:
        defect: One of `DEFECTS`, or None for the good twin of the same seed.
        seed: Non-negative; with the defect and the size it decides every pixel.
        size: Side in pixels, at least 64.

    Returns:
        image: uint8 (size, size, 3), RGB.
        mask: uint8 (size, size), 255 where the defect moved a channel by one grey level or more before the noise
            (pinholes up to 4 px closed, hairs below 3 px dropped), else 0; never empty where there is a defect.
            Outside it the image equals its good twin bit for bit.

    Raises:
        DataError: Unknown defect, negative seed or size below 64.
    """
    if defect is not None and defect not in DEFECTS:
        raise DataError(f"unknown defect {defect!r}; expected None or one of {list(DEFECTS)}")
    if seed < 0 or size < 64:
        raise DataError(f"seed {seed} and size {size} cannot be drawn; expected a seed >= 0 and a size >= 64 px")
    part = make_part(np.random.default_rng((seed, 0)))
    scene = make_scene(np.random.default_rng((seed, 1)), part, size)
    image = expose(part, scene)
    mask = np.zeros((size, size), np.bool_)
    if defect is not None:
        spoiled = expose(spoil(part, defect, np.random.default_rng((seed, 2, DEFECTS.index(defect)))), scene)
        mask = tidy(np.abs(spoiled - image).max(axis=2) >= 1 / 255)
        image = np.where(mask[..., None], spoiled, image)
    pixels = np.clip(np.rint((image + scene.noise) * 255), 0, 255).astype(np.uint8)
    return pixels, mask.astype(np.uint8) * 255


def tidy(changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Closes pinholes up to 4 px and drops hairs below 3 px: a lone pixel would weigh as much as a defect in AU-PRO."""
    closed = ~grow(~grow(changed, 2), 2)
    opened = grow(~grow(~closed, 1), 1)
    return opened if opened.any() else closed  # in a small picture a slit is nothing but a hair


def grow(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    rows, columns = mask.shape
    padded = np.pad(mask, reach, mode="edge")
    wide = np.logical_or.reduce([padded[:, i : i + columns] for i in range(2 * reach + 1)])
    tall: NDArray[np.bool_] = np.logical_or.reduce([wide[i : i + rows] for i in range(2 * reach + 1)])
    return tall


# The part ------------------------------------------------------------------------------------------------------------


def make_part(rng: Generator) -> Part:
    x, y = rng.uniform(-0.03, 0.03, 2)
    scale = rng.uniform(0.95, 1.02)
    sheath = make_outline(rng, x, y, 0.88 * scale, 0.006)
    bore = make_outline(rng, x + rng.normal(0, 0.006), y + rng.normal(0, 0.006), 0.748 * scale, 0.007)
    turn = math.radians(rng.uniform(-18, 18)) - math.pi / 2
    conductors = []
    for i, pigment in enumerate(INSULATION):
        angle = turn + 2 * math.pi * i / 3 + rng.normal(0, 0.015)
        reach = scale * rng.normal(0.399, 0.003)
        centre = bore.x + reach * math.cos(angle), bore.y + reach * math.sin(angle)
        outline = make_outline(rng, *centre, scale * rng.uniform(0.326, 0.340), 0.008)
        core = outline.radius * rng.uniform(0.62, 0.67)
        strands = lay_strands(rng, core, scale * rng.uniform(0.0265, 0.0295))
        conductors.append(Conductor(outline, core, tint(rng, pigment, 0.10), strands))
    lamp = rng.uniform(0, 2 * math.pi)
    sheath_colour, filler_colour = tint(rng, (0.66, 0.65, 0.63), 0.08), tint(rng, (0.52, 0.50, 0.46), 0.10)
    return Part(sheath, bore, sheath_colour, filler_colour, (math.cos(lamp), math.sin(lamp)), tuple(conductors))


def make_outline(rng: Generator, x: float, y: float, radius: float, roughness: float) -> Outline:
    waves = rng.normal(0, roughness, (5, 2)) / np.arange(1, 6)[:, None]
    return Outline(float(x), float(y), float(radius), tuple(complex(*wave) for wave in waves))


def tint(rng: Generator, colour: tuple[float, ...], spread: float) -> Floats:
    """Another batch of the same pigment: mostly lighter or darker, a little off in hue."""
    return (np.array(colour) * np.exp(rng.normal(0, spread) + rng.normal(0, 0.2 * spread, 3))).astype(np.float32)


def lay_strands(rng: Generator, core: float, radius: float) -> NDArray[Any]:
    """Hexagonal packing with jitter, pushed apart until the wires fill the round core."""
    i, j = (grid.ravel() for grid in np.meshgrid(np.arange(-12, 13), np.arange(-12, 13)))
    lattice = (i + j / 2 + 1j * j * math.sqrt(3) / 2) * 2 * radius * np.exp(1j * rng.uniform(0, math.pi / 3))
    lattice += complex(*rng.uniform(-radius, radius, 2))
    count = round(0.84 * (core / radius) ** 2)
    spots = lattice[np.argsort(np.abs(lattice))[:count]] + rng.normal(0, 0.13 * radius, (count, 2)) @ (1, 1j)
    for _ in range(16):
        apart = spots[:, None] - spots
        distance = np.abs(apart) + 1e-6
        spots = spots + 0.4 * (apart * np.clip(2 * radius / distance - 1, 0, None)).sum(axis=1)
        spots *= np.minimum(1, (core - 0.8 * radius) / np.maximum(np.abs(spots), 1e-6))
    strands = np.zeros(count, STRAND)
    strands["x"], strands["y"] = spots.real, spots.imag
    strands["radius"] = radius * rng.uniform(0.95, 1.06, count)
    strands["squash"] = 1 + np.abs(rng.normal(0, 0.08, count))
    strands["axis"] = rng.uniform(0, math.pi) + rng.normal(0, 0.5, count)  # one blade cut them all
    strands["ridge"] = rng.normal(0, 0.45, count)
    strands["tone"] = np.exp(rng.normal(0, 0.17, count))
    strands["tilt_x"], strands["tilt_y"] = rng.normal(0, 0.42, (2, count))
    strands["glint"] = np.clip(rng.normal(0.25, 0.4, count), 0, 1)
    strands["red"] = rng.normal(0, 0.06, count)
    return strands


# The defects ---------------------------------------------------------------------------------------------------------


def spoil(part: Part, defect: str, rng: Generator) -> Part:
    """The same part with one defect; for `combined` with two or three kinds, each on conductors of its own."""
    kinds = [defect]
    while defect == "combined" and (len(kinds) == 1 or sum(EDITS[kind][1] for kind in kinds) > 3):
        kinds = [str(kind) for kind in rng.choice(sorted(EDITS), rng.integers(2, 4), replace=False)]
    free = [int(i) for i in rng.permutation(3)]
    for kind in kinds:
        edit, needed = EDITS[kind]
        part = edit(part, rng, *[free.pop() for _ in range(needed)])
    return part


def change(part: Part, index: int, **changes: Any) -> Part:
    conductors = list(part.conductors)
    conductors[index] = replace(conductors[index], **changes)
    return replace(part, conductors=tuple(conductors))


def cable_swap(part: Part, rng: Generator, first: int, second: int) -> Part:
    """Insulation and copper change places; the outlines stay, so the mask is the two discs."""
    a, b = part.conductors[first], part.conductors[second]
    part = change(part, first, colour=b.colour, core=b.core, strands=b.strands)
    return change(part, second, colour=a.colour, core=a.core, strands=a.strands)


def missing_cable(part: Part, rng: Generator, index: int) -> Part:
    return change(part, index, missing=True)


def missing_wire(part: Part, rng: Generator, index: int) -> Part:
    """One to six neighbouring strands are gone; never at the rim, where a good core has gaps too."""
    strands = part.conductors[index].strands
    inner = np.flatnonzero(np.hypot(strands["x"], strands["y"]) < 0.75 * part.conductors[index].core)
    first = strands[rng.choice(inner)]
    by_distance = np.argsort(np.hypot(strands["x"] - first["x"], strands["y"] - first["y"]))
    gone = int(rng.choice([1, 2, 3, 4, 6], p=[0.2, 0.25, 0.25, 0.2, 0.1]))
    return change(part, index, strands=strands[np.sort(by_distance[gone:])])


def bent_wire(part: Part, rng: Generator, index: int) -> Part:
    """An outer strand leaves its place and lies across the insulation, sometimes as far as the sheath."""
    conductor = part.conductors[index]
    strands = conductor.strands
    outer = np.flatnonzero(np.hypot(strands["x"], strands["y"]) > conductor.core - 2.6 * strands["radius"].max())
    chosen = int(rng.choice(outer))
    x, y, radius = (float(strands[chosen][name]) for name in ("x", "y", "radius"))
    turns = math.atan2(y, x) + rng.normal(0, 0.45) + rng.normal(0, 0.9) * np.linspace(0, 1, 9)
    path = trail(conductor.outline.x + x, conductor.outline.y + y, turns, rng.uniform(0.09, 0.32))
    part = change(part, index, strands=np.delete(strands, chosen))
    return replace(part, marks=(*part.marks, BentWire(path, 0.9 * radius, rng.uniform(0.85, 1.2))))


def cut_inner_insulation(part: Part, rng: Generator, index: int) -> Part:
    conductor = part.conductors[index]
    return cut(part, rng, index, conductor.outline, conductor.outline.radius - conductor.core)


def cut_outer_insulation(part: Part, rng: Generator) -> Part:
    return cut(part, rng, SHEATH, part.sheath, part.sheath.radius - part.bore.radius)


def cut(part: Part, rng: Generator, ring: int, outline: Outline, wall: float) -> Part:
    """From a knife's slit to a chip out of the edge: what is wide is a wedge."""
    around = rng.uniform(0, 2 * math.pi)
    half_width = 0.008 * 8 ** rng.uniform()
    taper = min(1.0, max(0.2, half_width / 0.03 + rng.uniform(-0.3, 0.3)))
    x, y = (c + 1.02 * outline.radius * f(around) for c, f in ((outline.x, math.cos), (outline.y, math.sin)))
    inwards, length = around + math.pi + rng.normal(0, 0.4), wall * rng.uniform(0.6, 1.2)
    opening = Opening(ring, x, y, inwards, length, half_width, taper, wave=rng.uniform(0, 2 * math.pi))
    return replace(part, marks=(*part.marks, opening))


def poke_insulation(part: Part, rng: Generator, index: int) -> Part:
    """A needle's hole, mostly in a conductor's insulation, sometimes in the sheath."""
    ring, outline, inner = index, part.conductors[index].outline, part.conductors[index].core
    if rng.uniform() < 0.25:
        ring, outline, inner = SHEATH, part.sheath, part.bore.radius
    around, reach = rng.uniform(0, 2 * math.pi), inner + (outline.radius - inner) * rng.uniform(0.35, 0.65)
    x, y = outline.x + reach * math.cos(around), outline.y + reach * math.sin(around)
    radius, squash = 0.013 * 2.6 ** rng.uniform(), rng.uniform(1, 1.35)
    hole = Opening(ring, x, y, rng.uniform(0, math.pi), radius * squash, radius / squash, hole=True)
    return replace(part, marks=(*part.marks, hole))


# what makes each defect, and how many conductors it takes
EDITS: dict[str, tuple[Callable[..., Part], int]] = {
    "bent_wire": (bent_wire, 1),
    "cable_swap": (cable_swap, 2),
    "cut_inner_insulation": (cut_inner_insulation, 1),
    "cut_outer_insulation": (cut_outer_insulation, 0),
    "missing_cable": (missing_cable, 1),
    "missing_wire": (missing_wire, 1),
    "poke_insulation": (poke_insulation, 1),
}


# The picture ---------------------------------------------------------------------------------------------------------


def make_scene(rng: Generator, part: Part, size: int) -> Scene:
    x, y = axes(size)
    mottle, grain = noise(rng, size, 14), noise(rng, size, 190)
    streaks = ruled(rng, x, y, 260, waver=0.012 * noise(rng, size, 5)) * (0.6 + 0.4 * noise(rng, size, 7))
    bench = 1 + 0.10 * noise(rng, size, 4) + 0.09 * noise(rng, size, 40) + 0.09 * grain + 0.12 * ruled(rng, x, y, 420)
    base = (rng.uniform(0.17, 0.29) * bench)[..., None] * tint(rng, (0.94, 1.0, 1.06), 0.06)
    paint_sheath(base, part, mottle, streaks, grain, 0.6 * grain + 0.5 * noise(rng, size, 75))
    dust = np.zeros((size, size), np.float32)
    for _ in range(rng.integers(4, 10)):
        turns = rng.uniform(0, 2 * math.pi) + rng.normal(0, 0.8) * np.linspace(0, 1, 5)
        length = float(rng.choice([0.004, 0.03, 0.07], p=[0.65, 0.25, 0.1])) * rng.uniform(0.5, 1.3)
        path = trail(rng.uniform(-1, 1), rng.uniform(-1, 1), turns, length)
        here, px, py = window(float(path[0, 0]), float(path[0, 1]), 0.12, size)
        speck = rng.uniform(0.2, 0.55) * cover(along(path, px, py)[0] - rng.uniform(0.002, 0.006), size)
        dust[here] = np.maximum(dust[here], speck)
    slope = rng.uniform(0.04, 0.24) * (x * part.light[0] + y * part.light[1]) + 0.03 * noise(rng, size, 3)
    vignette = rng.uniform(0.06, 0.20) * ((x - rng.normal(0, 0.1)) ** 2 + (y - rng.normal(0, 0.1)) ** 2)
    white = (rng.uniform(0.92, 1.14) * rng.normal(1, 0.018, 3)).astype(np.float32)
    blur_px = rng.uniform(0.45, 0.80) * math.sqrt(size / 256)
    strength = rng.uniform(0.004, 0.010)
    shot = 0.8 * rng.standard_normal((size, size, 1), np.float32) + 0.6 * rng.standard_normal(
        (size, size, 3), np.float32
    )
    lighting = (1 + slope - vignette)[..., None] * white
    return Scene(base, mottle, streaks, grain, dust, lighting, strength * shot, blur_px)


def paint_sheath(base: Floats, part: Part, mottle: Floats, streaks: Floats, grain: Floats, fibres: Floats) -> None:
    """Onto the bench, in place: the cable's shadow, the sheath, and the filler with the conductors' contact shadows."""
    size = len(base)
    x, y = axes(size)
    outer, outer_facing = distance(part.sheath, part.light, x, y)
    inner, inner_facing = distance(part.bore, part.light, x, y)
    cast = np.hypot(x - part.sheath.x + 0.05 * part.light[0], y - part.sheath.y + 0.05 * part.light[1])
    base *= (1 - 0.62 * smooth(0.10, -0.03, cast - part.sheath.radius))[..., None]
    face = 1 + 0.045 * mottle + 0.03 * streaks + 0.02 * grain
    face += 0.26 * outer_facing * smooth(-0.035, 0.0, outer) - 0.14 * smooth(-0.012, 0.0, outer)
    face -= (0.10 + 0.10 * inner_facing) * smooth(0.03, 0.0, inner)
    blend(base, cover(outer, size), face[..., None] * part.sheath_colour)
    filler = 0.80 + 0.06 * mottle + 0.13 * fibres - (0.25 + 0.20 * inner_facing) * smooth(-0.07, 0.0, inner)
    for conductor in part.conductors:
        here, px, py = window(conductor.outline.x, conductor.outline.y, conductor.outline.radius + 0.09, size)
        gap, facing = distance(conductor.outline, part.light, px, py)
        filler[here] *= 1 - (0.42 - 0.25 * facing) * smooth(0.07, 0.0, gap)
    blend(base, cover(inner, size), filler[..., None] * part.filler_colour)


def expose(part: Part, scene: Scene) -> Floats:
    """The part through the lens, before the noise: float32 (size, size, 3), 0 .. 1."""
    image = scene.base.copy()
    for conductor in part.conductors:
        draw_conductor(image, conductor, part.light, scene)
    for mark in part.marks:
        if isinstance(mark, Opening):
            draw_opening(image, mark, part, scene)
        else:
            draw_bent_wire(image, mark, part.light)
    blend(image, scene.dust, np.array((0.68, 0.67, 0.64), np.float32))
    image *= scene.lighting
    image = np.where(image > 0.7, 0.7 + 0.27 * np.tanh((image - 0.7) / 0.27), image) + 0.02  # shoulder, black level
    reach = math.ceil(2.5 * scene.blur_px)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / scene.blur_px) ** 2)
    for axis in (0, 1):
        padded = np.pad(image, [(reach, reach) if i == axis else (0, 0) for i in range(3)], mode="edge")
        shifted = (padded.take(range(i, i + len(image)), axis) for i in range(len(taps)))
        image = np.add.reduce([float(tap) * view for tap, view in zip(taps / taps.sum(), shifted, strict=True)])
    return image


def draw_conductor(image: Floats, conductor: Conductor, light: Pair, scene: Scene) -> None:
    size, outline = len(image), conductor.outline
    here, x, y = window(outline.x, outline.y, outline.radius * 1.06, size)
    mottle, streaks, grain = scene.mottle[here], scene.streaks[here], scene.grain[here]
    far, facing = distance(outline, light, x, y)
    if conductor.missing:
        deep = smooth(0.0, -0.17, far)
        hollow = (0.30 - 0.20 * facing * (1 - deep) - 0.17 * deep) * (1 + 0.10 * grain + 0.10 * mottle)
        blend(image[here], cover(far, size), hollow[..., None] * np.array((0.78, 0.74, 0.68), np.float32))
        return
    rim = np.hypot(x - outline.x, y - outline.y) - conductor.core
    face = 1 + 0.05 * mottle + 0.045 * streaks + 0.025 * grain + 0.16 * smooth(0.022, 0.004, rim) * (0.5 - facing)
    face += 0.30 * facing * smooth(-0.030, 0.0, far) - 0.22 * smooth(-0.012, 0.0, far)
    sheen = np.maximum(0.05 + 0.035 * facing + 0.02 * streaks, 0)
    blend(image[here], cover(far, size), face[..., None] * conductor.colour + sheen[..., None])
    inside, x, y = window(outline.x, outline.y, conductor.core * 1.04, size)
    rim = np.hypot(x - outline.x, y - outline.y) - conductor.core
    copper = draw_strands(conductor.strands, x - outline.x, y - outline.y, light, scene.grain[inside], size)
    blend(image[inside], cover(rim, size), copper)


def draw_strands(strands: NDArray[Any], x: Floats, y: Floats, light: Pair, grain: Floats, size: int) -> Floats:
    """Sheared ends of copper wires, each two facets along a ridge: float32 (rows, columns, 3)."""
    c, s, p, q = np.cos(strands["axis"]), np.sin(strands["axis"]), strands["x"], strands["y"]
    wide, narrow = (strands["radius"] * strands["squash"]) ** -2, (strands["radius"] / strands["squash"]) ** -2
    a, b, d = wide * c**2 + narrow * s**2, (wide - narrow) * c * s, wide * s**2 + narrow * c**2
    # a (x-p)^2 + 2b (x-p)(y-q) + d (y-q)^2 multiplied out: one matrix product gives every strand at every pixel
    terms = np.stack(
        [a, 2 * b, d, -2 * (a * p + b * q), -2 * (d * q + b * p), a * p * p + 2 * b * p * q + d * q * q], 1
    )
    basis = np.stack(np.broadcast_arrays(x * x, x * y, y * y, x, y, np.float32(1)))
    conic = np.tensordot(terms, basis, 1)
    own = strands[conic.argmin(axis=0)]
    reach = np.sqrt(np.maximum(conic.min(axis=0), 0))  # 1 at the strand's edge
    u, v = (x - own["x"]) / own["radius"], (y - own["y"]) / own["radius"]
    lx, ly = light
    normal_x, normal_y = np.cos(own["axis"]), np.sin(own["axis"])
    facet = np.tanh(5 * (u * normal_x + v * normal_y - own["ridge"]))
    tone = 0.78 + 0.36 * (own["tilt_x"] * lx + own["tilt_y"] * ly) + 0.08 * (u * lx + v * ly) + 0.05 * grain
    tone += 0.32 * facet * (normal_x * lx + normal_y * ly)
    tone *= own["tone"] * (1 - 0.50 * smooth(0.78, 1.04, reach))
    spot = np.exp(-((u - 0.4 * lx - 0.5 * own["tilt_x"]) ** 2 + (v - 0.4 * ly - 0.5 * own["tilt_y"]) ** 2) / 0.14)
    copper = np.clip(tone, 0.30, 1.5)[..., None] * COPPER
    copper[..., 0] *= 1 + own["red"]
    copper[..., 2] *= 1 - own["red"]
    copper += (0.9 * own["glint"] * spot * (0.6 + 0.4 * facet))[..., None] * GLINT
    pit = (0.45 + 0.55 * smooth(0.6, 0.0, reach - 1))[..., None] * PIT  # the hole of a pulled strand darkens inwards
    blend(pit, cover((reach - 1) * own["radius"], size), copper)
    return pit


def draw_bent_wire(image: Floats, wire: BentWire, light: Pair) -> None:
    size = len(image)
    middle = wire.path.mean(axis=0)
    here, x, y = window(float(middle[0]), float(middle[1]), 0.30, size)
    cast = along(wire.path - np.float32(0.022) * np.array(light, np.float32), x, y)[0] - wire.radius
    image[here] *= (1 - 0.45 * smooth(0.02, -0.015, cast))[..., None]
    far, across, done = along(wire.path, x, y)
    across = np.clip(across / wire.radius, -1, 1)
    way = wire.path[-1] - wire.path[0]
    side = float(way[0] * light[1] - way[1] * light[0]) / math.hypot(*way)
    lit = wire.tone * (0.40 + 0.45 * np.sqrt(1 - across**2) + 0.28 * across * side)
    shine = 0.5 * np.exp(-(((across - 0.4 * side) / 0.25) ** 2)) * (0.6 + 0.4 * np.sin(1.1 * done + 20 * wire.tone))
    blend(image[here], cover(far - wire.radius, size), lit[..., None] * COPPER + shine[..., None] * GLINT)


def draw_opening(image: Floats, opening: Opening, part: Part, scene: Scene) -> None:
    """Dark inside, the flank away from the lamp lit, a burr around it; clipped to its ring of plastic."""
    size = len(image)
    here, x, y = window(opening.x, opening.y, 0.26, size)
    if opening.ring == SHEATH:
        outline, colour, inner = part.sheath, part.sheath_colour, distance(part.bore, part.light, x, y)[0]
    else:
        conductor = part.conductors[opening.ring]
        outline, colour = conductor.outline, conductor.colour
        inner = np.hypot(x - outline.x, y - outline.y) - conductor.core
    ring = cover(distance(outline, part.light, x, y)[0], size) * (1 - cover(inner, size))
    c, s = math.cos(opening.angle), math.sin(opening.angle)
    dx, dy = x - opening.x, y - opening.y
    u, v = dx * c + dy * s, dy * c - dx * s
    if opening.hole:
        far = (np.hypot(u / opening.length, v / opening.half_width) - 1) * opening.half_width
        shaded = (dx * part.light[0] + dy * part.light[1]) / opening.length
    else:
        done = np.clip(u / opening.length, 0, 1)
        jagged = 1 + 0.18 * np.sin(95 * u + opening.wave) + 0.10 * np.sin(230 * u + 2 * opening.wave)
        v = v - 0.10 * opening.length * np.sin(2.2 * done + opening.wave)
        far = np.maximum(np.abs(v) - opening.half_width * (1 - opening.taper * done) * jagged, u - opening.length)
        shaded = v / opening.half_width * (c * part.light[1] - s * part.light[0])
    shaded = np.clip(shaded, -1, 1)
    burr = smooth(0.022, 0.003, far) * (0.10 + 0.18 * shaded)
    image[here] *= (1 + burr * ring)[..., None]
    floor = (0.24 - 0.20 * shaded) * (1 + 0.12 * scene.grain[here])
    blend(image[here], cover(far, size) * ring, floor[..., None] * (0.75 * colour + 0.06))


# Geometry and texture ------------------------------------------------------------------------------------------------


def axes(size: int) -> tuple[Floats, Floats]:
    """x (1, size) and y (size, 1) of the pixel centres."""
    line = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - np.float32(1)
    return line[None], line[:, None]


def window(x: float, y: float, reach: float, size: int) -> tuple[tuple[slice, slice], Floats, Floats]:
    """Index of the square around (x, y) inside the picture, and x (1, columns) and y (rows, 1) of its pixels."""
    top, bottom, left, right = (
        int(min(max((v + 1) * size / 2, 0), size - 1)) for v in (y - reach, y + reach, x - reach, x + reach)
    )
    rows, columns = slice(top, bottom + 1), slice(left, right + 1)
    all_x, all_y = axes(size)
    return (rows, columns), all_x[:, columns], all_y[rows]


def distance(outline: Outline, light: Pair, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Signed distance (negative inside), and how far the outward normal faces the lamp (-1 .. 1)."""
    z = (x - outline.x) + np.complex64(1j) * (y - outline.y)
    reach = np.maximum(np.abs(z), np.float32(1e-6))
    way = z / reach
    bump, power = np.ones_like(reach), way
    for harmonic in outline.harmonics:
        power = power * way
        bump = bump + harmonic.real * power.real + harmonic.imag * power.imag
    far: Floats = reach - outline.radius * bump
    return far, way.real * light[0] + way.imag * light[1]


def trail(x: float, y: float, turns: NDArray[np.float64], length: float) -> Floats:
    """A polyline from (x, y) of equal steps in the given directions: float32 (len(turns) + 1, 2)."""
    steps = np.stack([np.cos(turns), np.sin(turns)], axis=1) * (length / len(turns))
    return np.cumsum(np.concatenate([[(x, y)], steps]), axis=0, dtype=np.float32)


def along(path: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Distance to a polyline, signed offset across it, and how far along it (0 .. segments)."""
    far = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf, np.float32)
    across, done = np.zeros_like(far), np.zeros_like(far)
    for i, (start, step) in enumerate(zip(path, np.diff(path, axis=0), strict=False)):
        dx, dy, length = x - start[0], y - start[1], np.hypot(*step)
        t = np.clip((dx * step[0] + dy * step[1]) / length**2, 0, 1)
        gap, side = np.hypot(dx - t * step[0], dy - t * step[1]), (dy * step[0] - dx * step[1]) / length
        closer = gap < far
        far, across, done = np.where(closer, gap, far), np.where(closer, side, across), np.where(closer, i + t, done)
    return far, across, done


def cover(far: Floats, size: int) -> Floats:
    """Share of each pixel inside a shape, from its signed distance."""
    return np.clip(0.5 - far * (size / 2), 0, 1)


def smooth(zero: float, one: float, value: Floats) -> Floats:
    t = np.clip((value - zero) / (one - zero), 0, 1)
    return t * t * (3 - 2 * t)


def blend(view: Floats, alpha: Floats, colour: Floats) -> None:
    view += alpha[..., None] * (colour - view)


def noise(rng: Generator, size: int, cells: int) -> Floats:
    """Smooth noise of about unit spread, `cells` lumps across whatever the size: float32 (size, size)."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def ruled(rng: Generator, x: Floats, y: Floats, lines: int, waver: Floats | float = 0.0) -> Floats:
    """Fine and coarse scratches in one direction: float32 (size, size)."""
    angle = rng.uniform(0, math.pi)
    profile = rng.normal(0, 1, lines) + np.repeat(rng.normal(0, 0.5, lines // 4), 4)
    across = x * math.cos(angle) + y * math.sin(angle) + waver
    return np.interp(across, np.linspace(-1.6, 1.6, lines), profile).astype(np.float32)


# The dataset ---------------------------------------------------------------------------------------------------------


def write_dataset(
    out: Path,
    *,
    train_good: int,
    test_good: int,
    test_per_defect: int,
    train_per_defect: int = 0,
    size: int = 256,
    seed: int = 0,
) -> None:
    """Writes OUT/cable like an MVTec AD category; the same arguments give the same bytes on the same machine.

    Each image has its own seed, so more images of one class leave all others as they were. Labelled training defects go
    to train/<defect>, their masks to ground_truth_train/<defect>, where a reader of MVTec AD does not look.

    Raises:
        DataError: OUT/cable is not an empty folder, a count is negative, or `render` refuses the seed or the size.
    """
    root = out / "cable"
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} is not an empty folder; delete it or choose another --out")
    counts: dict[tuple[str, str | None], int] = {("train", None): train_good, ("test", None): test_good}
    counts |= {("test", defect): test_per_defect for defect in DEFECTS}
    counts |= {("train", defect): train_per_defect for defect in DEFECTS}
    if min(counts.values()) < 0:
        raise DataError(f"cannot write {min(counts.values())} images; expected counts of 0 or more")
    masks = {"test": "ground_truth", "train": "ground_truth_train"}
    for (split, defect), count in counts.items():
        name = defect or "good"
        for index in range(count):
            image, mask = render(defect, seed=image_seed(seed, split, name, index), size=size)
            save_png(image, root / split / name / f"{index:03d}.png")
            if defect:
                save_png(mask, root / masks[split] / name / f"{index:03d}_mask.png")


def image_seed(seed: int, split: str, name: str, index: int) -> int:
    """The same on every machine and run, unlike `hash`."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{split}/{name}/{index}".encode()).digest()[:7], "big")


def save_png(pixels: Bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.synthetic_cable", description="Draw a cable dataset.")
    parser.add_argument("--out", type=Path, required=True, help="the folder that gets cable/")
    parser.add_argument("--train-good", type=int, default=200)
    parser.add_argument("--test-good", type=int, default=60)
    parser.add_argument("--test-per-defect", type=int, default=15)
    parser.add_argument("--train-per-defect", type=int, default=0)
    parser.add_argument("--size", type=int, default=256, help="side in pixels")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        write_dataset(**vars(args))
    except (VigieError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    defective = len(DEFECTS) * (args.test_per_defect + args.train_per_defect)
    print(f"wrote {args.train_good + args.test_good} good and {defective} defective images to {args.out / 'cable'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
