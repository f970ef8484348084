"""Plots of a report as SVG that takes the colour of the page's text, so that it can be read on a dark page too."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.datasets import GOOD
from anomaly.detectors import Detector
from anomaly.evaluation import Scored
from anomaly.probability import expected_calibration_error, reliability, why_no_probability

# Mid-tones that stand out from white and from black; a line style beside the colour, for those who see few of them.
COLOURS = ("#2f7fc1", "#d9772b", "#3b9b5b", "#c8485a", "#8c66c8", "#93734f", "#c65fa4", "#708090", "#9a9a2a", "#2aa0a5")
_STYLES = ("-", "--", "-.", ":")
_MARKERS = "osD^vP*X<>h8pd"
_INK = "#010203"  # stands for the colour of the page's text
_FAINT = "#040506"  # and this for its grid
MOST_POINTS = 1000  # of the t-SNE


def roc_and_precision(scored: Scored, thresholds: Mapping[str, float]) -> str:
    """ROC and precision-recall curves of all members, with a dot at each calibrated threshold.

    Args:
        scored: a split with good and defective pictures.
        thresholds: by member.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    figure, (roc, pr) = _figure(1, 2, 9.6, 4.4)
    for i, name in enumerate(scored.inspector.members):
        voted = [(row.sample.is_defect, vote.score) for row in scored.rows if (vote := row.vote(name)) is not None]
        truth, scores = np.array([d for d, _ in voted], bool), np.array([s for _, s in voted])
        if not truth.any() or truth.all():
            continue
        look: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "linestyle": _STYLES[i // len(COLOURS) % 4]}
        fpr, tpr, _ = roc_curve(truth, scores)
        precision, recall, _ = precision_recall_curve(truth, scores)
        roc.plot(fpr, tpr, label=name, linewidth=1.8, **look)
        pr.step(recall, precision, where="post", linewidth=1.8, **look)
        given = scores >= thresholds[name]
        roc.plot([given[~truth].mean()], [given[truth].mean()], "o", markersize=6, color=look["color"])
        if given.any():
            pr.plot([given[truth].mean()], [truth[given].mean()], "o", markersize=6, color=look["color"])
    roc.plot([0, 1], [0, 1], color=_FAINT, linewidth=1)
    roc.set(xlabel="false alarms (share of good parts)", ylabel="defects found (share)", title="ROC")
    pr.set(
        xlabel="defects found (recall)", ylabel="defects among the rejected (precision)", title="Precision and recall"
    )
    for axes in (roc, pr):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    roc.legend(loc="lower right", fontsize=9)
    return _svg(figure, "roc")


def reliability_diagram(scored: Scored) -> str:
    """Probabilities of a defect against the share of defects found, for every member that was calibrated for one.

    Args:
        scored: a split with good and defective pictures.

    Raises:
        ValueError: no member gives a probability.
    """
    voted = {
        name: [(vote.probability, row.sample.is_defect) for row, vote in votes if vote.probability is not None]
        for name in scored.inspector.members
        if (votes := [(row, vote) for row in scored.rows if (vote := row.vote(name)) is not None])
    }
    voted = {name: pairs for name, pairs in voted.items() if pairs}
    if not voted:
        raise ValueError(f"no detector gives a probability of a defect: {why_no_probability(0, 0)}")
    figure, axes = _figure(1, 1, 5.6, 4.4)
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1)
    for i, (name, pairs) in enumerate(voted.items()):
        said, truth = [p for p, _ in pairs], [defect for _, defect in pairs]
        bins = reliability(said, truth)
        label = f"{name}, ECE {expected_calibration_error(said, truth):.3f}"
        axes.plot(
            [b.said for b in bins],
            [b.found for b in bins],
            color=COLOURS[i % len(COLOURS)],
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=5,
            linewidth=1.4,
            label=label,
        )
    axes.set(xlabel="probability of a defect, as said", ylabel="share of defects, as found", title="Reliability")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _svg(figure, "reliability")


def learning_curves(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Training and validation loss of each epoch, a plot for each member; the best epoch is marked.

    Args:
        curves: by member, at least one, none of them empty.
    """
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure, grid = _figure(rows, columns, 3.3 * columns, 2.7 * rows)
    places = list(np.ravel(grid))
    for axes, (name, curve) in zip(places[: len(curves)], curves.items(), strict=True):
        epochs = np.arange(1, len(curve) + 1)
        training, validation = np.array(curve, dtype=float).T
        axes.plot(epochs, training, color=COLOURS[0], label="training")
        if np.isfinite(validation).any():
            axes.plot(epochs, validation, color=COLOURS[1], linestyle="--", label="validation")
            best = int(np.nanargmin(validation))
            axes.plot(epochs[best], validation[best], "o", color=COLOURS[1])
        axes.set(xlabel="epoch", ylabel="loss", title=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in places[len(curves) :]:
        axes.set_visible(False)
    places[0].legend(fontsize=8)
    return _svg(figure, "curves")


def feature_map(points: NDArray[Any], labels: Sequence[str]) -> str:
    """Pictures as points, by label.

    Args:
        points: (N, 2).
        labels: (N,).
    """
    figure, axes = _figure(1, 1, 6.4, 4.6)
    names = sorted(set(labels), key=lambda label: (label != GOOD, label))
    for i, name in enumerate(names):
        chosen = np.array([label == name for label in labels])
        colour = "#8a8f98" if name == GOOD else COLOURS[(i - 1) % len(COLOURS)]
        marker = "." if name == GOOD else _MARKERS[(i - 1) % len(_MARKERS)]
        axes.plot(*points[chosen].T, linestyle="", marker=marker, markersize=6, color=colour, alpha=0.85, label=name)
    axes.set(xticks=[], yticks=[], title="t-SNE of the trunk's features")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _svg(figure, "tsne")


def embedded(detector: Detector, scored: Scored, seed: int = 0) -> tuple[NDArray[Any], list[str]]:
    """t-SNE (van der Maaten and Hinton 2008) of the mean of the trunk's deepest map.

    Args:
        detector: stands on a trunk.
        scored: its pictures; of more than `MOST_POINTS` a random part is taken.
        seed: of the choice and of t-SNE.

    Returns:
        (N, 2) and the N labels.

    Raises:
        ValueError: fewer than five pictures.
    """
    import torch
    from sklearn.manifold import TSNE

    from training.pictures import load

    if len(scored.rows) < 5:
        raise ValueError(f"t-SNE of {len(scored.rows)} pictures says nothing")
    order = np.sort(np.random.default_rng(seed).permutation(len(scored.rows))[:MOST_POINTS])
    rows = [scored.rows[i] for i in order]
    vectors = []
    with torch.no_grad():
        for row in rows:
            maps = detector.inputs(load(row.sample.path))
            vectors.append(maps[max(maps)].mean(dim=(2, 3))[0].cpu().numpy())
    spread = TSNE(init="pca", random_state=seed, perplexity=min(30.0, (len(rows) - 1) / 3))
    return np.asarray(spread.fit_transform(np.array(vectors))), [row.sample.label for row in rows]


def pareto(points: Mapping[str, tuple[float, float]], unit: str) -> str:
    """What a picture costs against how well good and bad are told apart; a line joins those that nobody beats in both.

    Args:
        points: member -> (cost, above 0; image AUROC).
        unit: of the cost, for the axis.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = _figure(1, 1, 6.8, 4.2)
    front = front_of(points)
    axes.plot(*zip(*(points[name] for name in front), strict=True), color=_INK, linewidth=1, linestyle=":", zorder=1)
    for i, (name, (cost, auroc)) in enumerate(points.items()):
        best = name in front
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(cost, auroc, "o", color=colour, markersize=9 if best else 6, markeredgecolor=_INK if best else colour)
        axes.annotate(name, (cost, auroc), xytext=(7, -3 - 10 * (i % 2)), textcoords="offset points", fontsize=9)
    axes.set(xscale="log", xlabel=unit, ylabel="image AUROC", title="Cost and quality (upper left is better)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.25)
    lowest = min(auroc for _, auroc in points.values())
    axes.set_ylim(lowest - 0.1 * (1.05 - lowest), 1.0 + 0.05 * (1.05 - lowest))  # nobody is above 1
    return _svg(figure, "pareto")


def front_of(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The members than which no other is cheaper and at least as good, or better and at most as dear; by cost."""
    front: list[str] = []
    for name in sorted(points, key=lambda n: (points[n][0], -points[n][1])):
        if not front or points[name][1] > points[front[-1]][1]:
            front.append(name)
    return front


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """Of matplotlib, drawn without a display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns)
    for axes in np.ravel(grid):
        axes.set_facecolor("none")
        axes.grid(color=_FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(colors=_INK, labelsize=9)
        for spine in axes.spines.values():
            spine.set_color(_FAINT)
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            text.set_color(_INK)
            text.set_fontsize(10)
    return figure, grid


def _svg(figure: Any, name: str) -> str:
    """The figure as an element of the page; `name` keeps its ids apart from those of other figures."""
    import io

    from matplotlib import rc_context

    for axes in figure.axes:
        if (legend := axes.get_legend()) is not None:
            legend.get_frame().set_alpha(0)
            for text in legend.get_texts():
                text.set_color(_INK)
        for text in axes.texts:
            text.set_color(_INK)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):  # text stays text, ids are the same every time
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]  # an element, not a document
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.replace(_INK, "currentColor").replace(_FAINT, "var(--faint)")
