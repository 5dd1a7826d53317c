"""What came out: curves of training, metrics under both protocols, and slices."""

import json
from typing import Any

from sracl_dist.evaluate.metrics import METRICS
from sracl_dist.report.elements import (
    Column,
    Figure,
    Group,
    Section,
    Table,
    clipped,
    count,
    details_table,
    metric,
    words,
)
from sracl_dist.report.lookups import CURVE_FILE, Source
from sracl_dist.report.plots import Curve, line_chart
from sracl_dist.run_folder import StageFolder

PROTOCOLS = {"seen_kept": "seen items kept", "seen_removed": "seen items removed"}
TOTAL = "total"
BEST = "best_validation"
SLICE_METRICS = ("hr@20", "ndcg@20")
SLICES = {
    "num_training_items": "By the number of training items of the user",
    "target_popularity": "By the popularity of the test item in training: head, middle and tail hold a third of all "
    "training interactions each",
}


def training_section(source: Source) -> Section:
    """Loss terms and validation metrics by epoch."""
    folder = source.run.stage("train")
    epochs = read_epochs(folder)
    section = Section(anchor="training", title="Training")
    manifest = folder.manifest()
    if not epochs:
        section.groups.append(Group(notes=["No curve was recorded while training."]))
    else:
        best = max((epoch["epoch"] for epoch in epochs if epoch.get("is_best")), default=None)
        figures = [*_loss_charts(epochs), *_validation_charts(epochs, best)]
        if not any("validation" in epoch for epoch in epochs):
            section.groups.append(Group(notes=["No validation metric was recorded while training."]))
        if best is not None:
            section.introduction = f"The dotted line marks the selected epoch, {best} of {epochs[-1]['epoch']}."
        section.groups.append(Group(figures=figures))
    if manifest and manifest.details:
        plain = {name: value for name, value in manifest.details.items() if name != BEST}
        tables = [details_table(plain)]
        if BEST in manifest.details:
            tables.append(_metrics_table(manifest.details[BEST], "Validation metrics of the selected epoch"))
        section.groups.append(Group(title="Fitting", tables=tables))
    return section


def read_epochs(folder: StageFolder) -> list[dict[str, Any]]:
    """Lines of the curve, one per epoch, without any that is damaged."""
    if not folder.exists(CURVE_FILE):
        return []
    epochs: dict[int, dict[str, Any]] = {}
    for line in folder.read_bytes(CURVE_FILE).decode(errors="replace").splitlines():
        try:
            record = json.loads(line)
            epochs[int(record["epoch"])] = record
        except (ValueError, TypeError, KeyError):
            continue
    return [epochs[epoch] for epoch in sorted(epochs)]


def _loss_charts(epochs: list[dict[str, Any]]) -> list[Figure]:
    """One chart for the sum and the next item, one for the contrastive terms, whose size differs."""
    names = list(dict.fromkeys(name for epoch in epochs for name in epoch.get("loss", {})))
    main = [name for name in (TOTAL, "next_item") if name in names]
    others = [name for name in names if name not in main]
    charts = []
    for chosen, caption in ((main, "Loss: total and next item"), (others, "Loss: contrastive terms, before weighting")):
        curves = [
            _curve(words(name), [(epoch["epoch"], epoch.get("loss", {}).get(name)) for epoch in epochs])
            for name in chosen
        ]
        if curves:
            charts.append(line_chart(curves, caption, x_label="epoch"))
    return charts


def _validation_charts(epochs: list[dict[str, Any]], best: int | None) -> list[Figure]:
    charts = []
    for name in SLICE_METRICS:
        curves = []
        for protocol, label in PROTOCOLS.items():
            points = [(epoch["epoch"], epoch.get("validation", {}).get(protocol, {}).get(name)) for epoch in epochs]
            if any(value is not None for _, value in points):
                curves.append(_curve(label, points))
        if curves:
            charts.append(line_chart(curves, f"Validation {words(name)}", x_label="epoch", mark_x=best))
    return charts


def _curve(label: str, points: list[tuple[int, float | None]]) -> Curve:
    present = [(x, y) for x, y in points if y is not None]
    return label, [x for x, _ in present], [y for _, y in present]


def metrics_section(source: Source, metrics: dict[str, Any]) -> Section:
    """The metrics under both protocols, with what they mean in words."""
    num_items = count(source.sequences.num_items)
    rules = (
        f"Every user's test item is ranked among all {num_items} items, without sampling. A tie counts against us: the "
        "rank is 1 plus the number of other items that score at least as high. With seen items kept, items of the "
        "user's history remain candidates (the protocol of SRA-CL, DuoRec and MCLRec); with seen items removed, they "
        "do not (ICSRec, TV-Rec, WEARec, eSASRec). Numbers of different protocols cannot be compared."
    )
    section = Section(anchor="metrics", title="Test metrics", introduction=rules)
    if not metrics:
        section.groups.append(Group(notes=["The test metrics are missing."]))
        return section
    notes = [f"Means over {count(metrics.get('num_users'))} users with a test item."]
    left_out = {clipped(reason): num for reason, num in metrics.get("not_evaluated", {}).items() if num}
    notes += [f"Users without a rank because there is {reason}: {count(num)}." for reason, num in left_out.items()]
    section.groups.append(Group(notes=notes, tables=[_metrics_table(metrics)]))
    return section


def _metrics_table(metrics: dict[str, Any], caption: str = "") -> Table:
    columns = [Column(title="metric")] + [Column(title=label, numeric=True) for label in PROTOCOLS.values()]
    rows = [[words(name), *(metric(metrics.get(key, {}).get(name)) for key in PROTOCOLS)] for name in METRICS]
    return Table(columns=columns, rows=rows, caption=caption)


def slices_section(metrics: dict[str, Any]) -> Section:
    """The same for groups of users."""
    tables = [_slice_table(SLICES.get(name, words(name)), groups) for name, groups in metrics.get("slices", {}).items()]
    notes = [] if tables else ["There are no slices."]
    return Section(anchor="slices", title="Slices", groups=[Group(notes=notes, tables=tables)])


def _slice_table(caption: str, groups: list[dict[str, Any]]) -> Table:
    columns = [Column(title="group"), Column(title="users", numeric=True)]
    for name in SLICE_METRICS:
        columns += [Column(title=f"{words(name)}, {label}", numeric=True) for label in PROTOCOLS.values()]
    rows = []
    for group in groups:
        cells = [
            metric(group.get(key, {}).get(name)) if group["num_users"] else metric(None)
            for name in SLICE_METRICS
            for key in PROTOCOLS
        ]
        rows.append([clipped(group["name"]), count(group["num_users"]), *cells])
    return Table(columns=columns, rows=rows, caption=caption)
