"""A cable's cross-section as plain data (`Part`), drawn by lot, and its eight defects as edits of that data.

Lengths are in half image widths (the picture spans -1 .. 1, y downwards), colours are RGB in 0 .. 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

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
Pair = tuple[float, float]

INSULATION = ((0.19, 0.46, 0.28), (0.17, 0.34, 0.60), (0.50, 0.41, 0.36))  # green, blue, grey-brown: clockwise from top
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


def trail(x: float, y: float, turns: NDArray[np.float64], length: float) -> Floats:
    """A polyline from (x, y) of equal steps in the given directions: float32 (len(turns) + 1, 2)."""
    steps = np.stack([np.cos(turns), np.sin(turns)], axis=1) * (length / len(turns))
    return np.cumsum(np.concatenate([[(x, y)], steps]), axis=0, dtype=np.float32)


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
