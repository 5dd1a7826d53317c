"""What the page is made of: tables, notes and figures, with numbers and untrusted text made fit to print."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from sracl_dist.secrets import masked
from sracl_dist.visible import INVISIBLE

TITLE_CHARS = 110
TEXT_CHARS = 1200
MAX_TABLE_ROWS = 200
_YEAR_1980, _YEAR_2100 = 315_532_800, 4_102_444_800
NOTHING = "\u2013"
"""Stands in a cell that has no value."""


def clipped(text: object, limit: int = TEXT_CHARS) -> str:
    """Text from logs or models on one line of at most `limit` characters, without secrets, control or reordering marks.

    The template escapes it; see `write_report`.
    """
    whole = masked(str(text))
    start = whole[: 4 * limit]
    visible = "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs") else char for char in start)
    line = " ".join(INVISIBLE.sub("", visible).split())
    return line if len(line) <= limit and len(start) == len(whole) else line[: limit - 1].rstrip() + "\u2026"


def count(value: float | None) -> str:
    """A whole number with separators."""
    return NOTHING if value is None else f"{value:,.0f}"


def metric(value: float | None) -> str:
    """A share between 0 and 1, to four places as the literature prints it."""
    return NOTHING if value is None else f"{value:.4f}"


def decimal(value: float | None) -> str:
    """A measured number to about three significant places."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def percent(part: float, whole: float) -> str:
    """A share in percent."""
    return f"{100 * part / whole:.1f} %" if whole else NOTHING


def words(name: str) -> str:
    """An identifier as words: `num_failed` becomes `failed`, `generate_s` `generate (s)`, and `hr@20` `HR@20`."""
    if re.fullmatch(r"(hr|ndcg)@\d+|mrr", name):
        return name.upper()
    text = re.sub("_s$", " (s)", name.removeprefix("num_")).replace("_", " ")
    return clipped(text, TITLE_CHARS)


@dataclass(kw_only=True)
class Column:
    """Heading of a column; numbers are aligned right."""

    title: str
    numeric: bool = False


@dataclass(kw_only=True)
class Table:
    """Rows of texts that are ready to print."""

    columns: list[Column]
    rows: list[list[str]]
    caption: str = ""
    strong_rows: set[int] = field(default_factory=set)
    """Rows to stand out, such as settings that differ from their default."""

    @property
    def shown(self) -> list[list[str]]:
        """The rows that are printed."""
        return self.rows[:MAX_TABLE_ROWS]

    @property
    def num_hidden(self) -> int:
        """Rows left out so that the page stays small."""
        return len(self.rows) - len(self.shown)


@dataclass(kw_only=True)
class Figure:
    """A plot with its caption."""

    svg: Markup
    caption: str


@dataclass(kw_only=True)
class Line:
    """A title within a sample, with what belongs to it."""

    text: str
    aside: str = ""
    """A number or remark, such as the cosine."""
    detail: str = ""
    mark: str = ""
    """Why this line stands out."""


@dataclass(kw_only=True)
class Card:
    """One sample: what it is, what was made of it."""

    title: str
    subtitle: str = ""
    before: list[Line] = field(default_factory=list)
    before_title: str = ""
    text: str = ""
    lines: list[Line] = field(default_factory=list)
    lines_title: str = ""
    note: str = ""


@dataclass(kw_only=True)
class Group:
    """Cards or tables or figures below one small heading."""

    title: str = ""
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)


@dataclass(kw_only=True)
class Section:
    """A chapter of the page."""

    anchor: str
    title: str
    introduction: str = ""
    groups: list[Group] = field(default_factory=list)


def facts_table(facts: Iterable[tuple[str, str]], caption: str = "") -> Table:
    """Two columns: what, and how much."""
    columns = [Column(title=""), Column(title="", numeric=True)]
    return Table(columns=columns, rows=[list(fact) for fact in facts], caption=caption)


def records_table(records: Sequence[dict[str, object]], caption: str = "") -> Table:
    """A table from records with the same keys."""
    names = list(dict.fromkeys(name for record in records for name in record))
    numeric = {name for name in names if all(isinstance(record.get(name), int | float) for record in records)}
    columns = [Column(title=words(name), numeric=name in numeric) for name in names]
    return Table(
        columns=columns, rows=[[_cell(record.get(name)) for name in names] for record in records], caption=caption
    )


def _cell(value: object) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    return decimal(value) if isinstance(value, float) else clipped(value, TITLE_CHARS)


def details_table(details: dict[str, Any], caption: str = "") -> Table:
    """Whatever a stage noted in its manifest, inner keys behind outer ones."""
    return facts_table(_leaves(details), caption)


def _leaves(details: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    for name, value in details.items():
        label = f"{prefix}{words(str(name))}"
        facts += _leaves(value, f"{label}: ") if isinstance(value, dict) else [(label, _cell(value))]
    return facts


def moment(time: int) -> str:
    """A time of a log: the date too, where it reads like seconds or milliseconds since 1970."""
    for divisor in (1, 1000):
        if _YEAR_1980 <= time / divisor < _YEAR_2100:
            date = datetime.fromtimestamp(time / divisor, UTC).strftime("%Y-%m-%d %H:%M")
            return f"{date} UTC ({time})"
    return str(time)
