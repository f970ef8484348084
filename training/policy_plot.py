"""Policies as points: false alarms, defects found, energy as size and colour; labels that do not overlap."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WIDTH, _HEIGHT = 5.4, 4.6  # inches of a panel
_MOST_COLUMNS = 2
_SMALL, _LARGE = 50.0, 330.0  # points^2 of the cheapest and of the dearest
_DISTANCES = range(6, 150, 8)  # points from a marker's edge to its label
_DIRECTIONS = 16
_MARGIN = 0.12  # of the range, around the points
_LEAST = 0.1  # range of an axis
_INK, _FAINT = "#1b1f24", "#d5dae0"


@dataclass(frozen=True, slots=True)
class Point:
    """One policy, or several that do the same."""

    name: str
    false_alarms: float  # share of good parts
    recall: float  # share of defects
    energy_mj: float | None  # an image; None: not known, drawn small and hollow


@dataclass(frozen=True, slots=True)
class Panel:
    """One inspector."""

    title: str
    points: Sequence[Point]


def draw(panels: Sequence[Panel], files: Iterable[Path]) -> None:
    """Writes the figure, a panel an inspector, on white so that it reads on any page.

    Args:
        panels: at least one, each with at least one point.
        files: the suffix says the format.
    """
    figure = plot(panels)
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "policies"}):  # the same figures give the same file
        for file in files:
            figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None)


def plot(panels: Sequence[Panel]) -> Any:
    """The matplotlib figure, labels placed."""
    from matplotlib.figure import Figure

    columns = min(_MOST_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(_WIDTH * columns, _HEIGHT * rows), layout="constrained", facecolor="white")
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    used, spare = grid[: len(panels)], grid[len(panels) :]
    markers = [_panel(axes, panel, figure) for axes, panel in zip(used, panels, strict=True)]
    for axes in spare:
        axes.set_visible(False)
    figure.draw_without_rendering()  # the layout is known from here on
    figure.set_layout_engine("none")
    for axes, panel, sizes in zip(used, panels, markers, strict=True):
        _label(figure, axes, panel, sizes)
    return figure


def _panel(axes: Any, panel: Panel, figure: Any) -> list[float]:
    """Points and axes; returns the area of each marker in points^2."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

    known = [point.energy_mj for point in panel.points if point.energy_mj is not None]
    least, most = (min(known), max(known)) if known else (0.0, 1.0)
    sizes = [_size(point.energy_mj, least, most) for point in panel.points]
    shades = LinearSegmentedColormap.from_list("energy", ("#3b9b5b", "#d9a72b", "#c8485a"))
    xs, ys = [point.false_alarms for point in panel.points], [point.recall for point in panel.points]
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])  # small ones in front
    of_known = [i for i in order if panel.points[i].energy_mj is not None]
    if of_known:
        shown = axes.scatter(
            [xs[i] for i in of_known],
            [ys[i] for i in of_known],
            s=[sizes[i] for i in of_known],
            c=[panel.points[i].energy_mj for i in of_known],
            cmap=shades,
            vmin=least,
            vmax=most if most > least else least + 1,
            edgecolors="white",
            linewidths=0.9,
            zorder=3,
            clip_on=False,
        )
        bar = figure.colorbar(shown, ax=axes, fraction=0.05, pad=0.02)
        bar.set_label("mJ an image (estimated)", fontsize=9, color=_INK)
        bar.ax.tick_params(labelsize=8, colors=_INK)
        bar.outline.set_edgecolor(_FAINT)
    for i in set(order) - set(of_known):
        axes.scatter(xs[i], ys[i], s=sizes[i], facecolors="none", edgecolors=_INK, zorder=3, clip_on=False)
    for values, limits, axis in ((xs, axes.set_xlim, axes.xaxis), (ys, axes.set_ylim, axes.yaxis)):
        low, high = _range(values)
        limits(low - _MARGIN * (high - low), high + _MARGIN * (high - low))
        axis.set_major_locator(
            FixedLocator(
                [tick for tick in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high) if 0 <= tick <= 1]
            )
        )
        axis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("false alarms (share of good parts)", fontsize=9.5, color=_INK)
    axes.set_ylabel("defects found, or in review (share)", fontsize=9.5, color=_INK)
    axes.set_title(panel.title, fontsize=10.5, color=_INK, loc="left")
    axes.grid(color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, labelsize=8.5)
    for spine in axes.spines.values():
        spine.set_color(_FAINT)
    return sizes


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Of shares: where they lie, at least `_LEAST` wide, within 0 and 1."""
    low, high = min(values), max(values)
    more = max(0.0, _LEAST - (high - low)) / 2
    low, high = low - more, high + more
    if high > 1:
        low, high = low - (high - 1), 1.0
    return (0.0, high - low) if low < 0 else (low, high)


def _size(energy: float | None, low: float, high: float) -> float:
    if energy is None or high <= low:
        return _SMALL
    return _SMALL + (_LARGE - _SMALL) * (energy - low) / (high - low)


def _label(figure: Any, axes: Any, panel: Panel, sizes: Sequence[float]) -> None:
    """Each name at the nearest free place; a thin line leads to it from its marker."""
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    pixel = figure.dpi / 72  # of a point
    within = axes.get_window_extent()
    centres = [tuple(axes.transData.transform((p.false_alarms, p.recall))) for p in panel.points]
    radii = [math.sqrt(size / math.pi) * pixel for size in sizes]
    taken = [Bbox.from_extents(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, radii, strict=True)]
    labels: list[Any] = []
    dots: list[tuple[float, float]] = []  # on the lines so far
    for i, name in _names(panel, sizes).items():
        point = panel.points[i]
        text = axes.annotate(
            name,
            (point.false_alarms, point.recall),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=8.5,
            color=_INK,
            ha="center",
            va="center",
            zorder=4,
            linespacing=1.1,
            arrowprops={
                "arrowstyle": "-",
                "color": "#8a8f98",
                "linewidth": 0.7,
                "shrinkA": 0,
                "shrinkB": radii[i] / pixel,
            },
            annotation_clip=False,
            path_effects=[withStroke(linewidth=2.2, foreground="white")],  # over the grid
        )
        box = Text.get_window_extent(text)  # an annotation's own would include the line
        wide, high = box.width / 2 + 2 * pixel, box.height / 2 + 1 * pixel
        best: tuple[float, float, float, Any] | None = None
        for far, turn in itertools.product(_DISTANCES, range(_DIRECTIONS)):
            angle = 2 * math.pi * turn / _DIRECTIONS
            across, up = math.cos(angle), math.sin(angle)
            reach = radii[i] + far * pixel + min(wide / max(abs(across), 1e-9), high / max(abs(up), 1e-9))
            x, y = centres[i][0] + reach * across, centres[i][1] + reach * up
            place = Bbox.from_extents(x - wide, y - high, x + wide, y + high)
            covered = sum(_common(place, other) for other in taken)
            outside = place.width * place.height - _common(place, within)
            crossed = sum(
                10 * _crosses(centres[i], (x, y), centre, radius)
                for j, (centre, radius) in enumerate(zip(centres, radii, strict=True))
                if j != i
            )
            line = _along(centres[i], (x, y))
            crossed += sum(box.contains(*dot) for box in labels for dot in line)
            crossed += sum(place.contains(*dot) for dot in dots)
            rank = (covered + outside) * 1e3 + crossed * 1e3 + far
            if best is None or rank < best[0]:
                best = rank, x, y, place
            if covered + outside + crossed == 0:
                break
        assert best is not None
        _, x, y, place = best
        taken.append(place)
        labels.append(place)
        dots += _along(centres[i], (x, y))
        text.set_position(((x - centres[i][0]) / pixel, (y - centres[i][1]) / pixel))


def _common(one: Any, other: Any) -> float:
    """Square pixels that two boxes share."""
    across = min(one.x1, other.x1) - max(one.x0, other.x0)
    up = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(across * up) if across > 0 and up > 0 else 0.0


def _crosses(start: tuple[float, float], end: tuple[float, float], centre: tuple[float, float], radius: float) -> bool:
    """Whether a line passes through a marker that it does not start in."""
    if math.dist(start, centre) < radius:
        return False
    along = (end[0] - start[0], end[1] - start[1])
    length = math.hypot(*along)
    share = ((centre[0] - start[0]) * along[0] + (centre[1] - start[1]) * along[1]) / length**2
    nearest = min(max(share, 0.0), 1.0)
    return math.dist((start[0] + nearest * along[0], start[1] + nearest * along[1]), centre) < radius


def _along(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """Places on the line between them."""
    shares = [i / 24 for i in range(1, 24)]
    return [(start[0] + s * (end[0] - start[0]), start[1] + s * (end[1] - start[1])) for s in shares]


def _names(panel: Panel, sizes: Sequence[float]) -> dict[int, str]:
    """By the largest marker of a place, what stands there: with the energy of each where several do."""
    places: dict[tuple[float, float], list[int]] = {}
    for i, point in enumerate(panel.points):
        places.setdefault((point.false_alarms, point.recall), []).append(i)
    found = {}
    for there in places.values():
        lines = [panel.points[i].name.replace(", ", ",\n") for i in there]
        if len(there) > 1:
            lines = [
                panel.points[i].name
                + (": not known" if panel.points[i].energy_mj is None else f": {panel.points[i].energy_mj:.0f} mJ")
                for i in there
            ]
        found[max(there, key=lambda i: sizes[i])] = "\n".join(lines)
    return found
