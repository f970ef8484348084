"""Small charts as SVG inside HTML (w3.org/TR/SVG2). Shapes stretch with the page, words are HTML beside them, so they
stay legible on a phone; colours come from app.css, so that light and dark follow it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from anomaly.panels import joined

_WIDTH, _HEIGHT = 100.0, 40.0  # of bars; the unit is nothing in particular
_SIDE = 100.0  # of a square plot


class Bar(NamedTuple):
    """One column: its parts from the bottom up, by class of app.css, and what a pointer shows."""

    parts: tuple[tuple[str, float], ...]
    title: str


class Dot(NamedTuple):
    """One point of a square plot."""

    x: float
    y: float
    text: str  # in the dot
    kind: str = ""  # class of app.css
    title: str = ""


def bars(title: str, columns: Sequence[Bar], *, top: str, ends: tuple[str, str], label: str) -> Markup:
    """Columns over time.

    Args:
        title: above them.
        columns: with parts of 0 or more; the highest column fills the height.
        top: what the height stands for.
        ends: below the first and the last column.
        label: all of it in a sentence, for who cannot see it.
    """
    highest = max((sum(size for _, size in column.parts) for column in columns), default=0.0) or 1.0
    step = _WIDTH / max(1, len(columns))
    drawn = []
    for number, column in enumerate(columns):
        bottom, rects = _HEIGHT, []
        for kind, size in column.parts:
            height = _HEIGHT * size / highest
            bottom -= height
            rects.append(
                Markup('<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"/>').format(
                    kind, number * step + step * 0.08, bottom, step * 0.84, height
                )
            )
        drawn.append(Markup("<g><title>{}</title>{}</g>").format(column.title, joined(rects)))
    return Markup(
        '<figure class="chart"><figcaption>{}<span>{}</span></figcaption>'
        '<svg viewBox="0 0 {:g} {:g}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
        "<p><span>{}</span><span>{}</span></p></figure>"
    ).format(title, top, _WIDTH, _HEIGHT, label, joined(drawn), *ends)


def square(
    title: str,
    *,
    line: Sequence[tuple[float, float]] = (),
    dots: Sequence[Dot] = (),
    x: tuple[str, str, str],
    y: tuple[str, str, str],
    label: str,
    diagonal: bool = False,
) -> Markup:
    """A square plot of points in [0, 1] x [0, 1].

    Args:
        title: above it.
        line: from point to point.
        dots: on top.
        x: what is at 0, what the axis is, what is at 1.
        y: likewise.
        label: all of it in a sentence, for who cannot see it.
        diagonal: draw the line of chance.
    """
    shapes = []
    if diagonal:
        shapes.append(Markup('<path class="chance" d="M0 {0:g}L{0:g} 0"/>').format(_SIDE))
    if line:
        way = " ".join(f"{_SIDE * px:.2f},{_SIDE * (1 - py):.2f}" for px, py in line)
        shapes.append(Markup('<polyline points="{}"/>').format(way))
    spots = joined(
        Markup('<i class="{}" style="left:{:.2f}%;bottom:{:.2f}%" title="{}">{}</i>').format(
            dot.kind, 100 * dot.x, 100 * dot.y, dot.title, dot.text
        )
        for dot in dots
    )
    return Markup(
        '<figure class="chart square"><figcaption>{}</figcaption><p><span>↑ {}, {} – {}</span></p>'
        '<div role="img" aria-label="{}"><svg viewBox="0 0 {:g} {:g}" preserveAspectRatio="none" aria-hidden="true">{}'
        "</svg>{}</div><p><span>{}</span><span>{} →</span><span>{}</span></p></figure>"
    ).format(title, y[1], y[0], y[2], label, _SIDE, _SIDE, joined(shapes), spots, *x)


def roc(good: Sequence[float], defects: Sequence[float]) -> list[tuple[float, float]]:
    """The exact curve: share of good parts and of defects that reach a cut, for every cut there is.

    Args:
        good: scores of good parts, higher = more anomalous; at least one.
        defects: of defects; at least one.

    Returns:
        (false alarms, found) from (0, 0) to (1, 1). Equal scores are one step, so a tie is a slope.
    """
    points = [(0.0, 0.0)]
    for cut in sorted({*good, *defects}, reverse=True):
        alarms = sum(score >= cut for score in good) / len(good)
        found = sum(score >= cut for score in defects) / len(defects)
        points.append((alarms, found))
    return points


def area(curve: Sequence[tuple[float, float]]) -> float:
    """Under a curve, by trapezoids."""
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(curve))


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points no other beats: none has a lower (or the same) x and a higher (or the same) y, one of them strictly.

    Args:
        points: (cost, worth).
    """
    return [not any(x <= px and y >= py and (x, y) != (px, py) for x, y in points) for px, py in points]
