"""A picture of how time and memory grow, from what the benches of prepare and of large catalogues have printed.

python jobs/bench.py prepare num_events=[1000000,10000000,100000000] | tail -n 1 > prepare.json
python jobs/bench.py train_catalogue | tail -n 1 > catalogue.json
python -m sracl_dist.bench.curves prepare.json catalogue.json docs/scale.png
"""

import json
import re
import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Curve = list[tuple[int, float]]
"""Size and value, by rising size."""


def curve(figures: dict[str, float], name: str) -> Curve:
    """The figures `name_SIZE`.

    >>> curve({"wall_s_10": 2.0, "wall_s_5": 1.0, "growth": 3.0}, "wall_s")
    [(5, 1.0), (10, 2.0)]
    """
    found = [(re.fullmatch(rf"{name}_(\d+)", key), value) for key, value in figures.items()]
    return sorted((int(match[1]), value) for match, value in found if match)


def draw(prepare: dict[str, float], catalogue: dict[str, float]) -> Figure:
    """Time and memory of prepare over events, and of a training step over items."""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    axes = figure.subplots(2, 2)
    _draw(axes[0, 0], curve(prepare, "wall_s"), "events", "prepare: seconds", is_log=True)
    _draw(axes[0, 1], curve(prepare, "peak_rss_gb"), "events", "prepare: memory of all processes, GB")
    _draw(axes[1, 0], curve(catalogue, "step_ms"), "items", "training step, sampled softmax: ms")
    _draw(axes[1, 1], curve(catalogue, "peak_rss_gb"), "items", "training: memory, GB")
    return figure


def _draw(axes: Axes, points: Curve, unit: str, title: str, *, is_log: bool = False) -> None:
    sizes, values = zip(*points, strict=True)
    axes.plot(sizes, values, "o-", color="#336699", label="measured")
    axes.set_xscale("log")
    if is_log:
        axes.set_yscale("log")
        axes.plot(sizes, [values[0] * size / sizes[0] for size in sizes], ":", color="#888888", label="in proportion")
        axes.legend(frameon=False)
    else:
        axes.set_ylim(0, 1.15 * max(values))
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(unit)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    both = [json.loads(Path(name).read_text(encoding="utf-8"))["figures"] for name in sys.argv[1:3]]
    draw(*both).savefig(sys.argv[3], dpi=110)
