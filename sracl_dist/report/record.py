"""How the run was made: time per stage, settings and package versions."""

import json

from sracl_dist.config import flatten
from sracl_dist.config.schema import all_keys
from sracl_dist.observe import duration
from sracl_dist.report.elements import Column, Group, Section, Table, clipped, count
from sracl_dist.report.lookups import Source
from sracl_dist.run_folder.locations import shown_location
from sracl_dist.stages import STAGES


def times_section(source: Source) -> Section:
    """Wall time and written rows of every stage."""
    rows = []
    for name, stage in STAGES.items():
        manifest = source.run.stage(name).manifest()
        if manifest is not None and name != "report":
            written = ", ".join(f"{table} {count(num)}" for table, num in manifest.rows.items())
            rows.append([name, stage.purpose, written, manifest.finished_at, duration(manifest.wall_s)])
    columns = [Column(title=title) for title in ("stage", "purpose", "rows written", "finished (UTC)")]
    table = Table(columns=[*columns, Column(title="time", numeric=True)], rows=rows)
    note = "A stage that was interrupted counts from the time it last went on."
    return Section(anchor="times", title="Time per stage", groups=[Group(tables=[table], notes=[note])])


def settings_section(source: Source) -> Section:
    """Every setting, with those that differ from their default marked."""
    values = flatten(source.config)
    groups: dict[str, Group] = {}
    for key in all_keys():
        section = key.name.split(".")[0]
        table = groups.setdefault(section, Group(title=section, tables=[_settings_table()])).tables[0]
        value = values[key.name]
        if value != key.default:
            table.strong_rows.add(len(table.rows))
        default = "" if value == key.default else _shown(key.default)
        if key.name in ("run.dir", "run.tables") and value is not None:
            value = shown_location(value)  # it may be a URI with a secret in it
        shown = _shown(value)
        table.rows.append([key.name, shown, default])
    return Section(
        anchor="settings",
        title="Settings",
        introduction="Settings that differ from their default stand out and have the default beside them.",
        groups=list(groups.values()),
    )


def _settings_table() -> Table:
    return Table(columns=[Column(title="key"), Column(title="value"), Column(title="default")], rows=[])


def _shown(value: object) -> str:
    if value == "???":
        return "required"
    return clipped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 300)


def packages_section(source: Source) -> Section:
    """Versions of the packages, and which stages ran with others."""
    manifests = {name: manifest for name in STAGES if (manifest := source.run.stage(name).manifest())}
    users: dict[tuple[str, str], list[str]] = {}
    for name, manifest in manifests.items():
        for package, version in manifest.packages.items():
            users.setdefault((package, version), []).append(name)
    rows = [
        [clipped(package), clipped(version), "all" if len(stages) == len(manifests) else ", ".join(stages)]
        for (package, version), stages in sorted(users.items())
    ]
    table = Table(columns=[Column(title="package"), Column(title="version"), Column(title="stages")], rows=rows)
    notes = [] if rows else ["No package versions were recorded."]
    return Section(anchor="packages", title="Packages", groups=[Group(tables=[table] if rows else [], notes=notes)])
