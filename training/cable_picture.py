"""A `Part` seen by a camera: everything is drawn from signed distances, nothing comes from a photograph.

The good twin and the defective part are drawn over the same `Scene` (bench, sheath, texture, dust, light, noise).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from training.cable_part import SHEATH, BentWire, Conductor, Floats, Opening, Outline, Pair, Part, tint, trail

COPPER = np.array((0.94, 0.60, 0.41), np.float32)
GLINT = np.array((1.00, 0.87, 0.72), np.float32)
PIT = np.array((0.085, 0.055, 0.042), np.float32)  # what is seen between the strands


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


def along(path: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Distance to a polyline, signed offset across it, and how far along it (0 .. segments)."""
    far = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf, np.float32)
    across, done = np.zeros_like(far), np.zeros_like(far)
    for i, (start, step) in enumerate(zip(path[:-1], np.diff(path, axis=0), strict=True)):
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
