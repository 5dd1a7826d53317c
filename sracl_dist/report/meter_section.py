"""What the texts are worth: the table that the stage embed measured on a sample."""

from typing import Any

from sracl_dist.meter.wording import in_words, shown_number
from sracl_dist.meter.worth import MEASURES
from sracl_dist.report.elements import Column, Group, Section, Table, count
from sracl_dist.report.lookups import Source


def meter_section(source: Source) -> Section:
    """The nearest by raw text, by profile and by both, next to chance, and the text that was taken."""
    manifest = source.run.stage("embed").manifest()
    measured: dict[str, Any] = (manifest.details if manifest else {}).get("meter", {})
    groups = [_group(kind, measured) for kind in MEASURES if kind in measured.get("table", {})]
    if not groups:
        why = measured.get("why", "Nothing was measured; embed.meter_rows is the number of rows to measure.")
        groups = [Group(notes=[str(why)])]
    elif source.config.embed.text == "auto":
        groups[0].notes.insert(0, f"Chosen: {measured['why']}.")
    return Section(
        anchor="meter",
        title="What the texts are worth",
        introduction="A sample of items and users, encoded in every way. What a vector is good for shows in the ten "
        "nearest: whether somebody chose them together in training, where the texts do not show that. Chance is what a "
        "random ranking gets; what is no better says nothing, and profiles that are no better than the raw text are "
        "not worth their price.",
        groups=groups,
    )


def _group(kind: str, measured: dict[str, Any]) -> Group:
    table: dict[str, dict[str, float]] = measured["table"][kind]
    ways = [way for way in next(iter(table.values())) if way != "chance"]
    columns = [Column(title=""), Column(title="chance", numeric=True)]
    columns += [Column(title=in_words(way), numeric=True) for way in ways]
    rows = [
        [MEASURES[kind][name], *(shown_number(name, row.get(way)) for way in ("chance", *ways))]
        for name, row in table.items()
        if name in MEASURES[kind]
    ]
    num, with_profile = measured["num_rows"][kind], measured["num_with_profile"][kind]
    note = (
        f"{count(num)} {kind}, {count(with_profile)} of them with a profile, the others by their raw text. Choices are "
        f"compared for the {count(measured['num_left'][kind])} with any that no text shows."
    )
    return Group(title=kind.capitalize(), notes=[note], tables=[Table(columns=columns, rows=rows)])
