"""The section about the worth of texts shows what embed measured."""

from sracl_dist.config import Config
from sracl_dist.report.lookups import Source
from sracl_dist.report.meter_section import meter_section
from sracl_dist.run_folder import RunFolder


def test_the_tables(config: Config, run: RunFolder) -> None:
    items, users = meter_section(Source.of(config, run)).groups
    titles = [column.title for column in items.tables[0].columns]
    assert titles == ["", "chance", "raw text", "profile", "raw text and profile"]
    rows = {row[0]: row[1:] for row in items.tables[0].rows}
    assert rows["nearest items: chosen together by somebody"] == ["8.6 %", "30.6 %", "27.6 %", "31.7 %"]
    assert rows["finds its own raw text: at rank 1"] == ["2.5 %", "\u2013", "72.4 %", "100.0 %"]
    assert rows["finds its own raw text: median rank"] == ["20.5", "\u2013", "1.0", "1.0"]
    assert rows["cosine of two random texts"][:2] == ["\u2013", "0.34"]
    assert ["nearest users: items in common", "0.01", "0.31", "0.25", "0.29"] in users.tables[0].rows
    (note,) = items.notes
    assert "40 items, 19 of them" in note
    assert "the 31 with" in note


def test_a_kind_with_finished_vectors_has_no_table(config: Config, run: RunFolder) -> None:
    manifest = run.stage("embed").manifest()
    assert manifest is not None
    del manifest.details["meter"]["table"]["items"]
    run.stage("embed").commit(manifest)
    (users,) = meter_section(Source.of(config, run)).groups
    assert users.title == "Users"


def test_the_choice_is_told_where_there_was_one(config: Config, run: RunFolder) -> None:
    config.embed.text = "auto"
    assert "items by raw text" in meter_section(Source.of(config, run)).groups[0].notes[0]


def test_a_run_that_measured_nothing(config: Config, run: RunFolder) -> None:
    manifest = run.stage("embed").manifest()
    assert manifest is not None
    manifest.details = {}
    run.stage("embed").commit(manifest)
    (group,) = meter_section(Source.of(config, run)).groups
    assert "embed.meter_rows" in group.notes[0]
    assert not group.tables
