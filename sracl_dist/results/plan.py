"""Which runs a table of results needs: every configuration with every seed, on tables that no seed writes again.

A run of seed n lies in <run.dir>/seed-<n>. The tables lie in run.tables, or in run.dir itself where that is null.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sracl_dist.config import Config, flatten, load_config
from sracl_dist.errors import ConfigError
from sracl_dist.run_folder import TABLE_STAGES, RunFolder
from sracl_dist.run_folder.locations import location_below, shown_location
from sracl_dist.secrets import referenced
from sracl_dist.stages import STAGES


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One of the configurations that are compared."""

    name: str
    """Stem of its file."""
    file: str
    overrides: tuple[str, ...]
    config: Config
    """With `run.tables` set."""


@dataclass(frozen=True, kw_only=True)
class SeedRun:
    """One configuration with one seed."""

    variant: Variant
    seed: int
    config: Config

    @property
    def label(self) -> str:
        """Name for messages."""
        return f"{self.variant.name}, seed {self.seed}"

    @property
    def folder(self) -> RunFolder:
        """Where its stages are."""
        return RunFolder(self.config.run.dir, self.config.run.tables)

    @property
    def arguments(self) -> list[str]:
        """What its jobs are started with."""
        run = self.config.run
        places = {"run.dir": run.dir, "run.tables": run.tables}
        # Other people of the machine can read what a process was started with.
        own = [f"{key}={json.dumps(referenced(place), ensure_ascii=False)}" for key, place in places.items()]
        return ["--config", self.variant.file, *self.variant.overrides, *own, f"run.seed={run.seed}"]


def plan_runs(files: Sequence[str], seeds: Sequence[int], overrides: Sequence[str] = ()) -> list[SeedRun]:
    """All runs, seed after seed within a configuration; `overrides` are KEY=VALUE for every one of them.

    Raises:
        ConfigError: a configuration is wrong, two have the same name or folder, a seed comes twice, or two share their
            tables and have other settings for them.
    """
    if any(override.partition("=")[0] == "run.seed" for override in overrides):
        raise ConfigError("run.seed is an override, but every run has its own; name the seeds behind --seeds.")
    _refuse_twice([str(seed) for seed in seeds], "--seeds has {value} {num} times; name every seed once.")
    variants = [_load(file, tuple(overrides)) for file in files]
    _refuse_twice(
        [variant.name for variant in variants],
        "{num} configurations are named {value}; name every file once, or rename.",
    )
    folders = [_path(variant.config.run.dir) for variant in variants]
    _refuse_twice(folders, "{num} configurations have the run.dir {value}; give each its own.")
    _require_same_tables(variants)
    return [_with_seed(variant, seed) for variant in variants for seed in seeds]


def tables_path(run: SeedRun) -> str:
    """Identifies the folder of the tables that a run reads."""
    return _path(run.config.run.tables or run.config.run.dir)


def _path(location: str) -> str:
    """One spelling for each folder."""
    return RunFolder(location).stage("train").path().removesuffix("/train")


def _load(file: str, overrides: tuple[str, ...]) -> Variant:
    config = load_config(file, overrides)
    config.run.tables = config.run.tables or config.run.dir
    return Variant(name=Path(file).stem, file=file, overrides=overrides, config=config)


def _with_seed(variant: Variant, seed: int) -> SeedRun:
    own = location_below(variant.config.run.dir, f"seed-{seed}")
    run = replace(variant.config.run, dir=own, seed=seed)
    try:
        run.check()
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    return SeedRun(variant=variant, seed=seed, config=replace(variant.config, run=run))


def _refuse_twice(values: Sequence[str], sentence: str) -> None:
    for value, num in Counter(values).items():
        if num > 1:
            raise ConfigError(sentence.format(value=value, num=num))


def _require_same_tables(variants: Sequence[Variant]) -> None:
    """Two configurations that write other tables into one folder would undo each other's work for ever."""
    keys = [key for name in TABLE_STAGES for key in STAGES[name].settings]
    first: dict[str, Variant] = {}
    for variant in variants:
        tables = str(variant.config.run.tables)
        other = first.setdefault(_path(tables), variant)
        own_settings = flatten(variant.config, keys, with_neutral=False)
        for key, value in flatten(other.config, keys, with_neutral=False).items():
            if own_settings[key] != value:
                raise ConfigError(
                    f"{other.name} and {variant.name} share the tables in {shown_location(tables)}, but {key} is "
                    f"{value!r} and {own_settings[key]!r}; give each its own run.tables."
                )
