"""Plots as inline SVG that takes its colours from the page's style sheet, and with them its dark scheme."""

import io
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from sracl_dist.report.elements import Figure

SIZE = (5.6, 2.7)
INK, SOFT = "#010203", "#040506"
SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04")
"""Placeholders that `_svg` turns into the style sheet's variables."""
_VARIABLES = {INK: "var(--ink-2)", SOFT: "var(--rule)"} | {
    colour: f"var(--series-{position})" for position, colour in enumerate(SERIES, 1)
}
_SETTINGS: Any = {
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "font.size": 9,
    "grid.color": SOFT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}

Curve = tuple[str, Sequence[float], Sequence[float]]


def line_chart(curves: Sequence[Curve], caption: str, *, x_label: str, mark_x: float | None = None) -> Figure:
    """Curves of (label, x, y); `mark_x` gets a thin upright line."""
    with mpl.rc_context(_SETTINGS):
        canvas, axes = _canvas()
        for position, (label, x, y) in enumerate(curves):
            style = "-" if position < len(SERIES) else "--"
            marker = "o" if len(x) < 30 else ""
            colour = SERIES[position % len(SERIES)]
            axes.plot(x, y, style, color=colour, label=label, linewidth=1.6, marker=marker, markersize=2.8)
        if mark_x is not None:
            axes.axvline(mark_x, color=INK, linewidth=0.8, linestyle=":")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(x_label)
        if len(curves) > 1:
            axes.legend(fontsize=8, loc="best", handlelength=1.4)
        return Figure(svg=_svg(canvas, caption), caption=caption)


def histogram(values: NDArray[np.integer], caption: str, *, x_label: str, y_label: str) -> Figure:
    """How often each size of a long-tailed count occurs, in bins that grow with the size."""
    with mpl.rc_context(_SETTINGS):
        canvas, axes = _canvas()
        edges = _growing_edges(int(values.max(initial=1)))
        counts, _ = np.histogram(values, edges)
        first = int(np.argmax(counts > 0))
        counts, edges = counts[first:], edges[first:]
        axes.bar(np.arange(len(counts)), counts, width=0.86, color=SERIES[0])
        labels = [_range_label(low, high - 1) for low, high in pairwise(edges.tolist())]
        axes.set_xticks(np.arange(len(counts)), labels, rotation=0 if len(labels) < 9 else 40, fontsize=8)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        return Figure(svg=_svg(canvas, caption), caption=caption)


def drawn(draw: Callable[[Axes, Sequence[str]], None], caption: str) -> Figure:
    """Whatever `draw` puts on axes, in three colours: ordinary, outstanding and receding."""
    with mpl.rc_context(_SETTINGS):
        canvas, axes = _canvas()
        draw(axes, (SERIES[0], SERIES[1], SERIES[3]))
        return Figure(svg=_svg(canvas, caption), caption=caption)


def _growing_edges(largest: int) -> NDArray[np.int64]:
    """Bin edges 0, 1, 2, 5, 10, 20, 50, ... that cover the largest value."""
    edges = [0, 1, 2]
    steps = (2.5, 2, 2)
    while edges[-1] <= largest:
        edges.append(round(edges[-1] * steps[len(edges) % 3]))
    return np.array(edges)


def _range_label(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,}\u2013{high:,}"


def _canvas() -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=SIZE, layout="constrained")
    return canvas, canvas.add_subplot()


def _svg(canvas: Canvas, title: str) -> Markup:
    """The drawing without prologue, metadata and idle ids; those left are unlike any other drawing's on the page."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": title, "svg.id": None}):
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    referenced = set(re.findall(r"#([\w.-]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in referenced else "", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    # Generated here from numbers and our own labels, which matplotlib escapes.
    label = Markup('<svg role="img" aria-label="{}" ').format(title)
    return label + Markup(text.removeprefix("<svg "))  # noqa: S704
