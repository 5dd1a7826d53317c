"""The search space: what may vary, between which limits, and on what condition.

An entry of tune.space is the key of a setting with one of KINDS, and `when` where it exists on a condition only:

- train.learning_rate: {log_uniform: [0.0005, 0.01]}
- objectives.terms: {choice: [[next_item], [next_item, cross_sequence]]}
- objectives.cross_sequence.weight: {uniform: [0.01, 0.3], when: {objectives.terms: cross_sequence}}
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sracl_dist.config import Config, refuse_unknown, with_values
from sracl_dist.config.schema import Key, all_keys
from sracl_dist.errors import ConfigError
from sracl_dist.run_folder import TABLE_STAGES
from sracl_dist.stages import STAGES

KINDS = ("uniform", "log_uniform", "int", "choice")
WHEN = "when"
FIXED = {
    "run.seed": "a seed is no setting to choose by; compare seeds with jobs/results.py",
    "train.metric": "trials are compared by it",
    "train.protocol": "trials are compared by it",
    "train.epochs": "it is the length of a whole trial",
}
MAX_CHECKED = 128
"""Combinations of the outermost values that are validated before anything starts."""
DIGITS = 5
"""Significant digits of a drawn number, enough for any setting and short enough to read."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One setting that varies."""

    key: str
    kind: str
    """One of KINDS."""
    values: tuple[Any, ...]
    """The choices, or the lowest and the highest value."""
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """It exists only where each of these other settings has, or as a list contains, one of the values."""

    def exists(self, chosen: Mapping[str, Any]) -> bool:
        """Whether it exists beside the values that were chosen for the settings before it."""
        return all(key in chosen and _meets(chosen[key], wanted) for key, wanted in self.when.items())

    def draw(self, random: np.random.Generator) -> Any:
        """A random value."""
        if self.kind == "choice":
            return self.values[int(random.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "int":
            return int(random.integers(low, high + 1))
        if self.kind == "log_uniform":
            return self.rounded(math.exp(random.uniform(math.log(low), math.log(high))))
        return self.rounded(random.uniform(low, high))

    def rounded(self, value: float) -> float:
        """The value with fewer digits, still between the limits."""
        low, high = self.values
        return float(min(max(float(f"{value:.{DIGITS}g}"), low), high))

    @property
    def all_values(self) -> tuple[Any, ...] | None:
        """Every value where they can be listed, or None."""
        if self.kind == "choice":
            return self.values
        return tuple(range(self.values[0], self.values[1] + 1)) if self.kind == "int" else None


@dataclass(frozen=True, kw_only=True)
class Space:
    """Parameters, each behind those on which its existence depends."""

    parameters: tuple[Parameter, ...]

    def draw(self, random: np.random.Generator) -> dict[str, Any]:
        """Random values of the parameters that exist with them."""
        chosen: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.exists(chosen):
                chosen[parameter.key] = parameter.draw(random)
        return chosen

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every combination; all parameters must be `choice` or `int`."""
        return self._combinations([parameter.all_values or () for parameter in self.parameters])

    def extremes(self) -> Iterator[dict[str, Any]]:
        """Every combination of choices and limits."""
        return self._combinations([tuple(dict.fromkeys(map(_Same, each.values))) for each in self.parameters])

    def _combinations(self, values: Sequence[Sequence[Any]], chosen: dict[str, Any] | None = None) -> Iterator[Any]:
        chosen = chosen or {}
        if len(values) == 0:
            yield chosen
            return
        parameter = self.parameters[len(self.parameters) - len(values)]
        if not parameter.exists(chosen):
            yield from self._combinations(values[1:], chosen)
            return
        for value in values[0]:
            plain = value.value if isinstance(value, _Same) else value
            yield from self._combinations(values[1:], {**chosen, parameter.key: plain})


@dataclass(frozen=True)
class _Same:
    """A value that compares by its text, so that lists can be counted and 1 differs from true."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and json.dumps(self.value) == json.dumps(other.value)

    def __hash__(self) -> int:
        return hash(json.dumps(self.value))


def parse_space(config: Config) -> Space:
    """The space of the configuration.

    Raises:
        ConfigError: it is empty, a key is unknown or may not vary, a range or a condition is wrong, or a value is
            impossible for its key, alone or beside the others.
    """
    if not config.tune.space:
        raise ConfigError("tune.space is empty; name the keys to search, as docs/tuning.md shows.")
    _refuse_keys(config.tune.space)
    space = read_space(config.tune.space)
    _check_conditions(space)
    _check_algorithm(config, space)
    _check_values(config, space)
    return space


def read_space(entries: Mapping[str, Any]) -> Space:
    """The space of entries by key, whose values are not held against a configuration.

    Raises:
        ConfigError: an entry or a condition is not well formed.
    """
    return Space(parameters=tuple(_ordered([_parse(key, entry) for key, entry in entries.items()])))


def _refuse_keys(keys: Mapping[str, Any]) -> None:
    known = all_keys()
    refuse_unknown([str(key) for key in keys], known)
    by_name = {key.name: key for key in known}
    for name in keys:
        reason = FIXED.get(name) or _why_not(by_name.get(name), name)
        if reason:
            raise ConfigError(f"tune.space has the key {name}, but {reason}; take it out.")


def _why_not(key: Key | None, name: str) -> str | None:
    """Why a key may not vary between trials, or None."""
    if key is None:
        return "it is a section; search the keys in it"
    stages = [stage.name for stage in STAGES.values() if _belongs(name, stage.settings)]
    tables = [stage for stage in stages if stage in TABLE_STAGES]
    if tables:
        return (
            f"the tables of the stage {tables[0]} are made once and shared by all trials; compare configurations that "
            f"have their own run.tables with jobs/results.py"
        )
    if "train" not in stages or key.is_neutral:
        return "it does not change what training yields"
    return None


def _belongs(name: str, settings: Sequence[str]) -> bool:
    return any(name == setting or name.startswith(setting + ".") for setting in settings)


def _parse(key: str, entry: Any) -> Parameter:
    place = f"tune.space.{key}"
    example = f"write for example {place}: {{uniform: [0.1, 0.5]}}"
    kinds = [kind for kind in KINDS if isinstance(entry, dict) and kind in entry]
    if len(kinds) != 1 or set(entry) - {WHEN} != set(kinds):
        raise ConfigError(f"{place} is {entry!r}; give it one of {', '.join(KINDS)}, and `{WHEN}` at most, {example}.")
    kind, values = kinds[0], entry[kinds[0]]
    if kind == "choice":
        is_right = isinstance(values, list) and 0 < len(values) == len({_Same(value) for value in values})
        mend = "list each value once"
    else:
        is_right, mend = _is_range(kind, values), _RANGES[kind]
    if not is_right:
        raise ConfigError(f"{place} is {entry!r}; {mend}.")
    return Parameter(key=key, kind=kind, values=tuple(values), when=_parse_when(place, entry.get(WHEN, {})))


_RANGES = {
    "uniform": "give the lowest and the highest number",
    "log_uniform": "give the lowest and the highest number, both above 0",
    "int": "give the lowest and the highest whole number",
}


def _is_range(kind: str, values: Any) -> bool:
    kinds = (int,) if kind == "int" else (int, float)
    if not isinstance(values, list) or len(values) != 2 or any(type(value) not in kinds for value in values):
        return False
    low, high = values
    return math.isfinite(low) and math.isfinite(high) and low < high and (kind != "log_uniform" or low > 0)


def _parse_when(place: str, when: Any) -> dict[str, tuple[Any, ...]]:
    if not isinstance(when, dict):
        raise ConfigError(f"{place}.{WHEN} is {when!r}; write {{other.key: value}}, or a list of values.")
    return {str(key): tuple(wanted) if isinstance(wanted, list) else (wanted,) for key, wanted in when.items()}


def _ordered(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Parents first, otherwise as they were written."""
    names = [parameter.key for parameter in parameters]
    for parameter in parameters:
        for key in parameter.when:
            if key not in names or key == parameter.key:
                raise ConfigError(
                    f"tune.space.{parameter.key}.{WHEN} names {key}, which is not another key of the space; use one of "
                    f"{', '.join(name for name in names if name != parameter.key) or 'the keys that you add to it'}."
                )
    ordered: list[Parameter] = []
    left = list(parameters)
    while left:
        done = {parameter.key for parameter in ordered}
        ready = next((parameter for parameter in left if set(parameter.when) <= done), None)
        if ready is None:
            circle = ", ".join(parameter.key for parameter in left)
            raise ConfigError(f"The conditions in tune.space go in a circle ({circle}); take one of them out.")
        ordered.append(ready)
        left.remove(ready)
    return ordered


def _check_conditions(space: Space) -> None:
    by_key = {parameter.key: parameter for parameter in space.parameters}
    for parameter in space.parameters:
        for key, wanted in parameter.when.items():
            possible = by_key[key].all_values
            if possible is None:
                raise ConfigError(
                    f"tune.space.{parameter.key}.{WHEN} depends on {key}, which is a range of numbers; make that one a "
                    f"choice."
                )
            for value in wanted:
                if not any(_meets(each, (value,)) for each in possible):
                    raise ConfigError(
                        f"tune.space.{parameter.key}.{WHEN} waits for {key}={_text(value)}, which never comes; use one "
                        f"of {', '.join(_text(each) for each in possible)}."
                    )


def _check_algorithm(config: Config, space: Space) -> None:
    tune = config.tune
    if tune.algorithm == "grid":
        for parameter in space.parameters:
            if parameter.all_values is None:
                raise ConfigError(
                    f"tune.space.{parameter.key} is a range of numbers, which a grid cannot list; use choice, or "
                    f"tune.algorithm=random."
                )
    if tune.scheduler != "none" and tune.grace_epochs > config.train.epochs:
        raise ConfigError(
            f"tune.grace_epochs is {tune.grace_epochs}; use at most train.epochs={config.train.epochs}, the length of "
            f"a whole trial."
        )


def _check_values(config: Config, space: Space) -> None:
    """Validate combinations of the outermost values: all of them where they are few, else some of each."""
    some = list(itertools.islice(space.extremes(), MAX_CHECKED + 1))
    if len(some) > MAX_CHECKED:
        random = np.random.default_rng(0)
        some = [_at_the_edge(space, random) for _ in range(MAX_CHECKED)]
    for values in some:
        try:
            with_values(config, values)
        except ConfigError as error:
            tried = ", ".join(f"{key}={_text(value)}" for key, value in values.items())
            raise ConfigError(
                f"tune.space can yield what is impossible: {str(error).rstrip('.')} (with {tried}); change the space."
            ) from None


def _at_the_edge(space: Space, random: np.random.Generator) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for parameter in space.parameters:
        if parameter.exists(chosen):
            chosen[parameter.key] = parameter.values[int(random.integers(len(parameter.values)))]
    return chosen


def _meets(value: Any, wanted: Sequence[Any]) -> bool:
    own = [*value, value] if isinstance(value, list) else [value]
    return any(_Same(each) == _Same(one) for each in own for one in wanted)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
