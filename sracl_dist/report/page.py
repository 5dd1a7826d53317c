"""The stage report: everything that a run has made, on one page that needs nothing beside itself."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sracl_dist.config import Config
from sracl_dist.report.data_section import data_section
from sracl_dist.report.elements import TITLE_CHARS, Section, clipped, count, metric
from sracl_dist.report.lookups import METRICS_FILE, Source
from sracl_dist.report.meter_section import meter_section
from sracl_dist.report.neighbour_samples import neighbours_section
from sracl_dist.report.profile_samples import profiles_section
from sracl_dist.report.recommendation_samples import recommendations_section
from sracl_dist.report.record import packages_section, settings_section, times_section
from sracl_dist.report.results import PROTOCOLS, metrics_section, slices_section, training_section
from sracl_dist.report.search import search_sections
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import StageResult
from sracl_dist.visible import visible

PAGE = "report.html"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""The page may fetch nothing and run nothing, whatever a log or a model put into it."""


@dataclass(kw_only=True)
class Headline:
    """One number at the top of the page."""

    label: str
    value: str
    remark: str = ""


def write_report(config: Config, run: RunFolder) -> StageResult:
    """Write `report.html`.

    Text from logs and models is data: it is clipped, and the template escapes all that is not a plot.

    Raises:
        StorageError: a table cannot be read, or the page cannot be written.
    """
    folder = run.stage("report")
    page = render(config, run)
    folder.write_bytes(PAGE, page.encode())
    return StageResult(
        rows={"pages": 1}, details={"bytes": len(page.encode())}, summary=[f"the page is {folder.shown(PAGE)}"]
    )


def render(config: Config, run: RunFolder) -> str:
    """The page as text."""
    source = Source.of(config, run)
    metrics = _metrics(run)
    sections = [
        data_section(source),
        profiles_section(source),
        meter_section(source),
        neighbours_section(source),
        training_section(source),
        *search_sections(source),
        metrics_section(source, metrics),
        slices_section(metrics),
        recommendations_section(source),
        times_section(source),
        settings_section(source),
        packages_section(source),
    ]
    return _fill(clipped(config.report.title, TITLE_CHARS), headlines(source, metrics), sections)


def headlines(source: Source, metrics: dict[str, Any]) -> list[Headline]:
    """Test metrics under both protocols, and the size of the data."""
    numbers = [
        Headline(label=f"{name.upper()}", value=metric(metrics.get(protocol, {}).get(name)), remark=label)
        for protocol, label in PROTOCOLS.items()
        for name in ("hr@20", "ndcg@20")
    ]
    sequences = source.sequences
    sizes = (("users", sequences.num_users), ("items", sequences.num_items), ("interactions", len(sequences.items)))
    return numbers + [Headline(label=label, value=count(num)) for label, num in sizes]


def _metrics(run: RunFolder) -> dict[str, Any]:
    folder = run.stage("evaluate")
    metrics: dict[str, Any] = folder.read_json(METRICS_FILE) if folder.exists(METRICS_FILE) else {}
    return metrics


def _fill(title: str, numbers: list[Headline], sections: list[Section]) -> str:
    environment = Environment(
        loader=PackageLoader("sracl_dist.report", package_path="."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup(files("sracl_dist.report").joinpath("report.css").read_text(encoding="utf-8"))  # noqa: S704
    template = environment.get_template("report.html")
    page = template.render(title=title, numbers=numbers, sections=sections, style=style, policy=POLICY)
    return visible(page, lines=True) + "\n"
