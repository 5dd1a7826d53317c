"""What a search looks like: the best metric as trials came, which parameters mattered, and all trials at once."""

import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sracl_dist.config import Config
from sracl_dist.run_folder import StageFolder
from sracl_dist.tune.proposals import importances
from sracl_dist.tune.records import Records, Trial, best_of
from sracl_dist.tune.space import Parameter, Space

COLOURS = ("#3b6ea8", "#c05a2b", "#9aa4b2")
"""Of ordinary marks, of what stands out, and of what stands back; for the files, the page has its own."""
SIZE = (7.0, 3.6)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One plot, to be drawn on any axes."""

    name: str
    """Stem of its files."""
    caption: str
    draw: Callable[[Axes, Sequence[str]], None]
    """Takes axes and three colours: ordinary, outstanding, receding."""


def drawings(metric: str, space: Space, records: Records) -> list[Drawing]:
    """The plots that the trials so far allow."""
    measured = [trial for trial in records if trial.curve]
    if not measured:
        return []
    metric = metric.upper()
    plots = [
        Drawing(
            name="best",
            caption=f"Best validation {metric} so far, by trial; points are single trials",
            draw=lambda axes, colours: _draw_best(axes, colours, measured),
        ),
        Drawing(
            name="parallel",
            caption=f"Every trial across its parameters; the best third by {metric} is strong, the best stands out",
            draw=lambda axes, colours: _draw_parallel(axes, colours, space, measured, metric),
        ),
    ]
    shares = importances(space, records)
    if shares:
        plots.append(
            Drawing(
                name="importance",
                caption=f"Share of each parameter in how the best trials differ from the rest, by {metric} (PED-ANOVA)",
                draw=lambda axes, colours: _draw_importance(axes, colours, shares),
            )
        )
    return plots


def write_plots(config: Config, folder: StageFolder, space: Space, records: Records) -> None:
    """Write every plot as PNG and SVG."""
    for drawing in drawings(config.train.metric, space, records):
        canvas = Figure(figsize=SIZE, layout="constrained")
        axes = canvas.add_subplot()
        drawing.draw(axes, COLOURS)
        axes.set_title(drawing.caption, fontsize=8)
        for kind in ("png", "svg"):
            stream = io.BytesIO()
            canvas.savefig(stream, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
            folder.write_bytes(f"{drawing.name}.{kind}", stream.getvalue())


def _draw_best(axes: Axes, colours: Sequence[str], trials: Sequence[Trial]) -> None:
    numbers = [trial.number for trial in trials]
    values = [max(trial.curve) for trial in trials]
    axes.scatter(numbers, values, s=12, color=colours[2])
    axes.step(numbers, np.maximum.accumulate(values), where="post", color=colours[0], linewidth=1.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial")


def _draw_importance(axes: Axes, colours: Sequence[str], shares: dict[str, float]) -> None:
    keys = list(shares)[::-1]
    axes.barh([_short(key) for key in keys], [shares[key] for key in keys], color=colours[0], height=0.6)
    axes.set_xlabel("share")
    axes.tick_params(axis="y", labelsize=8)


def _draw_parallel(axes: Axes, colours: Sequence[str], space: Space, trials: Sequence[Trial], metric: str) -> None:
    """One upright scale per parameter and one for the metric; a trial is a line, dotted past what is absent."""
    best = best_of(trials)
    ordered = sorted(trials, key=lambda trial: max(trial.curve))
    values = [max(trial.curve) for trial in ordered]
    low, high = values[0], values[-1]
    cut = values[-math.ceil(len(values) / 3)]
    places = range(len(space.parameters) + 1)
    for trial, value in zip(ordered, values, strict=True):
        heights = [
            _height(parameter, trial.values[parameter.key]) if parameter.key in trial.values else math.nan
            for parameter in space.parameters
        ]
        heights.append((value - low) / (high - low) if high > low else 0.5)
        colour = colours[1] if trial is best else colours[0] if value >= cut else colours[2]
        width = 1.8 if trial is best else 0.9
        there = [(place, height) for place, height in zip(places, heights, strict=True) if not math.isnan(height)]
        axes.plot(*zip(*there, strict=True), ":", color=colour, linewidth=width)  # bridges what is absent
        axes.plot(places, heights, color=colour, linewidth=width, marker="o", markersize=2)
    for place, parameter in enumerate(space.parameters):
        _draw_scale(axes, place, [(_height(parameter, value), _text(value)) for value in parameter.values])
    _draw_scale(axes, len(space.parameters), [(0.0, f"{low:.4f}"), (1.0, f"{high:.4f}")])
    axes.set_xticks(list(places), [*(_short(parameter.key) for parameter in space.parameters), metric], fontsize=7)
    axes.set_yticks([])
    axes.set_xlim(-0.2, len(space.parameters) + 0.6)


def _draw_scale(axes: Axes, place: int, ticks: Sequence[tuple[float, str]]) -> None:
    axes.axvline(place, linewidth=0.6, color=axes.spines["bottom"].get_edgecolor())
    for height, label in ticks:
        axes.annotate(label, (place, height), xytext=(3, 2), textcoords="offset points", fontsize=6)


def _height(parameter: Parameter, value: Any) -> float:
    """Place of a value on the scale of its parameter, from 0 to 1."""
    if parameter.kind == "choice":
        texts = [json.dumps(each) for each in parameter.values]
        return (texts.index(json.dumps(value)) + 0.5) / len(texts)
    low, high = parameter.values
    if parameter.kind == "log_uniform":
        low, high, value = math.log(low), math.log(high), math.log(value)
    return float((value - low) / (high - low))


def _short(key: str) -> str:
    """A key on two lines, without what its place tells."""
    section, _, name = key.removeprefix("objectives.").rpartition(".")
    return f"{section}\n{name}"


def _text(value: Any) -> str:
    """A value for a scale."""
    if isinstance(value, list):
        text = "+".join(map(str, value))
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 24 else text[:23] + "\u2026"
