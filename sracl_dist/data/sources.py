"""Where the log comes from: the user's own files, or a public set found on this machine or fetched."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from sracl_dist import packaged
from sracl_dist.config.sections import Config, DataConfig
from sracl_dist.data.files import DataFile, find_files
from sracl_dist.data.public_sets import Form, PublicSet, public_set
from sracl_dist.errors import ConfigError, InputError, SetupError
from sracl_dist.fetch import fetch
from sracl_dist.observe import say
from sracl_dist.secrets import masked

FILES = "files"


@dataclass(frozen=True, kw_only=True)
class Source(Form):
    """The files to read, and how they are written."""

    log_files: list[DataFile]
    text_files: list[DataFile]


def resolve(config: Config) -> Source:
    """Find the files to read, fetching a public set that is nowhere on this machine.

    Raises:
        ConfigError: the source is unknown, or settings contradict it.
        InputError: files are missing, cannot be fetched, or have names that are not UTF-8.
    """
    data = config.data
    if data.source == FILES:
        source = Source(
            log_files=find_files(data.interactions, "data.interactions"),
            text_files=find_files(data.item_texts, "data.item_texts"),
            columns=data.columns,
            item_columns=data.item_columns,
            separator=data.category_separator,
            has_clock=data.columns.time is not None,
            format=data.format,
            item_format=data.item_format,
        )
    else:
        public = public_set(data.source)
        _refuse_ignored_settings(data)
        source = _in_folder(public, _local_folder(public, data) or _cached(public))
    _require_columns(data, source)
    return source


def file_facts(config: Config) -> dict[str, str]:
    """What tells whether the log has changed: size and time of local files, or the version of a cached public set.

    A public set that is still to be fetched has the same facts as after it was; a missing file has none.

    Raises:
        ConfigError: the source is unknown.
    """
    data = config.data
    if data.source != FILES:
        public = public_set(data.source)
        folder = _local_folder(public, data)
        if folder is None:
            return {public.name: public.version}
        names = {name for layout in public.layouts for name in layout.names}
        paths = [path for name in sorted(names) if (path := _find(name, folder)) is not None]
    else:
        return facts_of({"data.interactions": data.interactions, "data.item_texts": data.item_texts})
    return {masked(str(path)): f"{path.stat().st_size}/{path.stat().st_mtime_ns}" for path in paths if path.exists()}


def facts_of(patterns: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Size and time of the files that the patterns of each setting stand for; none where one is missing."""
    try:
        files = [file for setting, several in patterns.items() for file in find_files(several, setting)]
    except InputError:
        return {}
    return {masked(file.location): file.fact for file in files}


def _refuse_ignored_settings(data: DataConfig) -> None:
    defaults = DataConfig()
    for name in ("item_texts", "columns", "item_columns", "format", "item_format", "category_separator"):
        if getattr(data, name) != getattr(defaults, name):
            raise ConfigError(
                f"data.{name} is set but data.source={data.source} knows its own files and columns; remove it or set "
                f"data.source=files."
            )


def _require_columns(data: DataConfig, source: Source) -> None:
    if data.min_rating is not None and source.columns.rating is None:
        raise ConfigError(f"data.min_rating is {data.min_rating} but this log has no ratings; set it to null.")
    if data.events and source.columns.event is None:
        raise ConfigError(f"data.events is {data.events} but this log has one kind of event; set it to [].")
    unknown = [event for event in data.events if source.events and event not in source.events]
    if unknown:
        raise ConfigError(f"data.events names {unknown[0]!r} but this log has {', '.join(source.events)}; use these.")
    if data.split == "global_time" and not source.has_clock:
        raise ConfigError(
            "data.split is global_time but this log has no times, only an order; set data.split=leave_last_out."
        )


def _local_folder(public: PublicSet, data: DataConfig) -> Path | None:
    """The folder named by data.path, else one in $SRACL_DATA."""
    if data.path is not None:
        return Path(data.path).expanduser()
    base = os.environ.get("SRACL_DATA")
    folders = [Path(base).expanduser() / name for name in (public.folder, *public.short_folders)] if base else []
    return next((folder for folder in folders if folder.is_dir()), None)


def _cached(public: PublicSet) -> Path:
    """The folder in the cache, filled first if it is not there."""
    destination = packaged.cache_dir() / "data" / public.folder
    if destination.is_dir():
        return destination
    if public.wheel is not None:
        try:
            return packaged.unpack(public.wheel, destination, suffixes=(".inter", ".item"))
        except SetupError as error:
            say(f"{error} Trying {public.base_url} instead.")
    if not public.downloads:
        raise InputError(
            f"{public.name} cannot be fetched without an account; {public.by_hand}, then set data.path to the folder "
            f"or put it into $SRACL_DATA/{public.folder}."
        )
    return fetch(public.name, public.base_url, public.downloads, destination)


def _in_folder(public: PublicSet, folder: Path) -> Source:
    if not folder.is_dir():
        raise InputError(f"data.path {folder} is not a folder; name the one that holds {public.name}.")
    for layout in public.layouts:
        found = find_files([str(path) for name in layout.names if (path := _find(name, folder))], "data.path")
        if len(found) == len(layout.names):
            form = {own.name: getattr(layout, own.name) for own in fields(Form)}
            return Source(log_files=found[:1], text_files=found[1:], **form)
    needed = [" and ".join(Path(name).name for name in layout.names) for layout in public.layouts]
    expected = " or ".join(dict.fromkeys(needed))
    raise InputError(f"{folder} does not hold {public.name}: it needs {expected}; put them there or change data.path.")


def _find(name: str, folder: Path) -> Path | None:
    """The file in the folder itself or where the publisher's archive has it, plain or packed; None if it is missing."""
    places = [folder / Path(name).name, folder / name]
    candidates = [place.with_name(place.name + ending) for place in places for ending in ("", ".gz")]
    return next((path for path in candidates if path.is_file()), None)
