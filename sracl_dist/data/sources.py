"""Where the log comes from: the user's own files, or a public set found on this machine or fetched."""

import os
from dataclasses import dataclass
from pathlib import Path

from sracl_dist import packaged
from sracl_dist.config.sections import Config, DataConfig, ItemColumns, LogColumns
from sracl_dist.data.fetch import fetch
from sracl_dist.data.public_sets import Layout, PublicSet, public_set
from sracl_dist.data.readers import find_files
from sracl_dist.errors import ConfigError, InputError, SetupError
from sracl_dist.observe import say
from sracl_dist.secrets import masked

FILES = "files"


@dataclass(frozen=True, kw_only=True)
class Source:
    """The files to read and what their columns are called."""

    log_files: list[Path]
    text_files: list[Path]
    columns: LogColumns
    item_columns: ItemColumns
    separator: str
    has_clock: bool


def resolve(config: Config) -> Source:
    """Find the files to read, fetching a public set that is nowhere on this machine.

    Raises:
        ConfigError: the source is unknown, or settings contradict it.
        InputError: files are missing or cannot be fetched.
    """
    data = config.data
    if data.source == FILES:
        source = _own_files(data)
    else:
        public = public_set(data.source)
        _refuse_ignored_settings(data)
        folder = _local_folder(public, data) or _cached(public)
        source = _in_folder(public, folder)
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
        paths = [path for layout in public.layouts for path in _paths(layout, folder) if path is not None]
    else:
        try:
            paths = [*find_files(data.interactions, ""), *find_files(data.item_texts, "")]
        except InputError:
            return {}
    return {masked(str(path)): f"{path.stat().st_size}/{path.stat().st_mtime_ns}" for path in paths if path.exists()}


def _own_files(data: DataConfig) -> Source:
    return Source(
        log_files=find_files(data.interactions, "data.interactions"),
        text_files=find_files(data.item_texts, "data.item_texts"),
        columns=data.columns,
        item_columns=data.item_columns,
        separator=data.category_separator,
        has_clock=data.columns.time is not None,
    )


def _refuse_ignored_settings(data: DataConfig) -> None:
    defaults = DataConfig()
    for name in ("item_texts", "columns", "item_columns", "category_separator"):
        if getattr(data, name) != getattr(defaults, name):
            raise ConfigError(
                f"data.{name} is set but data.source={data.source} knows its own files and columns; remove it or set "
                f"data.source=files."
            )


def _require_columns(data: DataConfig, source: Source) -> None:
    if data.min_rating is not None and source.columns.rating is None:
        raise ConfigError(f"data.min_rating is {data.min_rating} but this log has no ratings; set it to null.")
    if data.split == "global_time" and not source.has_clock:
        raise ConfigError(
            "data.split is global_time but this log has no times, only an order; set data.split=leave_last_out."
        )


def _local_folder(public: PublicSet, data: DataConfig) -> Path | None:
    """The folder named by data.path, else one in $SRACL_DATA."""
    if data.path is not None:
        return Path(data.path)
    base = os.environ.get("SRACL_DATA")
    if base:
        for name in public.folders:
            if (Path(base) / name).is_dir():
                return Path(base) / name
    return None


def _cached(public: PublicSet) -> Path:
    """The folder in the cache, filled first if it is not there."""
    destination = packaged.cache_dir() / "data" / public.name.replace(":", "-")
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
            f"or put it into $SRACL_DATA/{public.folders[0]}."
        )
    return fetch(public.name, public.base_url, public.downloads, destination)


def _in_folder(public: PublicSet, folder: Path) -> Source:
    if not folder.is_dir():
        raise InputError(f"data.path {folder} is not a folder; name the one that holds {public.name}.")
    for layout in public.layouts:
        log, texts = _paths(layout, folder)
        if log is not None and texts is not None:
            return Source(
                log_files=[log],
                text_files=[texts],
                columns=layout.columns,
                item_columns=layout.item_columns,
                separator=layout.separator,
                has_clock=layout.has_clock,
            )
    expected = " or ".join(f"{layout.log} and {layout.texts}" for layout in public.layouts)
    raise InputError(f"{folder} does not hold {public.name}: it needs {expected}; put them there or change data.path.")


def _paths(layout: Layout, folder: Path) -> list[Path | None]:
    """Log and texts in the folder; None for a missing one."""
    paths: list[Path | None] = []
    for name in (layout.log, layout.texts):
        there = [folder / file for file in (name, f"{name}.gz") if (folder / file).is_file()]
        paths.append(there[0] if there else None)
    return paths
