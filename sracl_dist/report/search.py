"""The search for settings, where the run has one: what was tried, what it brought, and what mattered."""

from collections.abc import Mapping
from typing import Any

from sracl_dist.report.elements import NOTHING, Column, Group, Section, Table, clipped, count, metric, words
from sracl_dist.report.lookups import Source
from sracl_dist.report.plots import drawn
from sracl_dist.report.results import PROTOCOLS
from sracl_dist.run_folder.locations import shown_location
from sracl_dist.tune.outputs import BEST_CONFIG, shown_value
from sracl_dist.tune.plots import drawings
from sracl_dist.tune.records import FOLDER, SEARCH, SPACE, Records
from sracl_dist.tune.space import Space, read_space


def search_sections(source: Source) -> list[Section]:
    """The section about the search, or none."""
    folder = source.run.stage(FOLDER)
    folder.require_whole(folder.manifest())
    records = Records(folder)
    if not folder.exists(SEARCH) or not records.trials:
        return []
    search: Mapping[str, Any] = folder.read_json(SEARCH)
    space = read_space({key.removeprefix(SPACE): entry for key, entry in search.items() if key.startswith(SPACE)})
    name = search["train.metric"]
    states = [f"{count(records.count(status))} {status}" for status in ("finished", "stopped", "failed", "running")]
    place = shown_location(folder.path(BEST_CONFIG))
    introduction = (
        f"Trials: {', '.join(states)}. They are compared by validation {words(name)} "
        f"({PROTOCOLS[search['train.protocol']]}); the test items played no part. The best one can be trained again "
        f"with {clipped(place)}."
    )
    figures = [drawn(plot.draw, plot.caption) for plot in drawings(name, space, records)]
    groups = [Group(figures=figures), Group(title="Trials", tables=[_table(name, space, records)])]
    return [Section(anchor="search", title="Search for settings", introduction=introduction, groups=groups)]


def _table(name: str, space: Space, records: Records) -> Table:
    """Trials from the best to the worst."""
    keys = [parameter.key for parameter in space.parameters]
    columns = [Column(title="trial"), Column(title="state"), Column(title=words(name), numeric=True)]
    columns += [Column(title="best epoch", numeric=True), Column(title="epochs", numeric=True)]
    columns += [Column(title=clipped(key)) for key in keys]
    ordered = sorted(records, key=lambda trial: -max(trial.curve, default=-1.0))
    rows = [
        [
            trial.id,
            trial.status,
            metric(trial.best_value),
            count(trial.best_epoch),
            count(len(trial.curve)),
            *(clipped(shown_value(trial.values[key])) if key in trial.values else NOTHING for key in keys),
        ]
        for trial in ordered
    ]
    return Table(columns=columns, rows=rows, strong_rows={0})
