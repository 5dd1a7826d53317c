"""From a YAML file and KEY=VALUE overrides to a validated `Config`, and back to flat keys."""

import difflib
import io
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sracl_dist.config.schema import Key, all_keys, all_sections, in_words
from sracl_dist.config.sections import Config
from sracl_dist.errors import ConfigError
from sracl_dist.secrets import masked


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read the YAML file at `path`, apply overrides such as `train.epochs=3`, and validate.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, or a value is wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"The configuration {path} cannot be read ({error.strerror}); name a readable file."
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"The configuration {path} is not UTF-8 text; save it as UTF-8.") from None
    try:
        # OmegaConf's reader, unlike yaml's own, refuses a key that is written twice.
        values = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    except yaml.YAMLError as error:
        where, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        line = f" in line {where.line + 1}" if where else ""
        reason = f" ({problem})" if problem else ""
        raise ConfigError(f"The configuration {path} is not valid YAML{line}{reason}; mend its syntax.") from None
    except (OSError, OmegaConfBaseException):
        values = None
    if not isinstance(values, dict):
        raise ConfigError(f"The configuration {path} is not a mapping of sections; see docs/configuration.md.")
    return parse_config(cast(dict[str, Any], values), overrides)


def parse_config(values: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Validate plain values plus overrides; see `load_config`."""
    known = all_keys()
    refuse_unknown(_leaves(values, known), known)
    layers = [values, *(_parse_override(override, known) for override in overrides)]
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), *layers)
        if missing := OmegaConf.missing_keys(merged):
            raise ConfigError(f"{min(missing)} has no value; set it in the file, or as an override KEY=VALUE.")
        config = cast(Config, OmegaConf.to_object(merged))
    except (OmegaConfBaseException, TypeError) as error:
        raise ConfigError(_explain(layers, known) or f"The configuration cannot be used ({error}).") from None
    try:
        _check(config)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    return config


def flatten(
    config: Config, sections: Sequence[str] = (), *, with_neutral: bool = True, with_secrets: bool = False
) -> dict[str, Any]:
    """Values by dotted key, to be shown, compared or kept.

    Args:
        config: settings.
        sections: sections or keys; all by default.
        with_neutral: whether the fields that cannot change a result are among them.
        with_secrets: whether the values are for use; secrets of the environment are masked otherwise.
    """
    fit = (lambda value: value) if with_secrets else masked
    return {
        key.name: fit(attrgetter(key.name)(config))
        for key in all_keys()
        if (with_neutral or not key.is_neutral)
        and (not sections or any(key.name == name or key.name.startswith(name + ".") for name in sections))
    }


def with_values(config: Config, values: dict[str, Any]) -> Config:
    """A copy in which some keys, by their dotted names, have other values; see `load_config`."""
    return parse_config(nested(flatten(config, with_secrets=True) | values))


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Values by dotted key as sections within sections."""
    sections: dict[str, Any] = {}
    for key, value in values.items():
        *path, name = key.split(".")
        section = sections
        for part in path:
            section = section.setdefault(part, {})
        section[name] = value
    return sections


def _check(section: Any) -> None:
    for member in fields(section):
        if is_dataclass(getattr(section, member.name)):
            _check(getattr(section, member.name))
    if hasattr(section, "check"):
        section.check()


def _parse_override(override: str, known: Sequence[Key]) -> dict[str, Any]:
    name, equals, _ = override.partition("=")
    if not name or not equals:
        raise ConfigError(f"The override {override!r} is not KEY=VALUE; write for example train.epochs=3.")
    refuse_unknown({name: None}, known)
    try:
        values = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist([override])))
    except (yaml.YAMLError, OmegaConfBaseException):
        raise ConfigError(f"The override {override!r} is not valid YAML behind the '='; quote its value.") from None
    refuse_unknown(_leaves(values, known), known)
    return values


def _leaves(values: dict[Any, Any], known: Sequence[Key], prefix: str = "") -> dict[str, Any]:
    mappings = [key.name for key in known if key.is_mapping]
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        is_section = isinstance(value, dict) and value and key not in mappings
        leaves |= _leaves(value, known, key + ".") if is_section else {key: value}
    return leaves


def refuse_unknown(leaves: Iterable[str], known: Sequence[Key]) -> None:
    """Raise ConfigError that names the nearest valid key for the first that is neither a key nor a section."""
    names = [*(key.name for key in known), *all_sections(known)]
    for name in leaves:
        if name in names:
            continue
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        mend = f"did you mean {nearest[0]}?" if nearest else "see docs/configuration.md."
        raise ConfigError(f"The key {name} is unknown; {mend}")


def _explain(layers: Sequence[dict[str, Any]], known: Sequence[Key]) -> str | None:
    """Find the first value that its key cannot hold, and say what the key takes."""
    for layer in layers:
        for name, value in _leaves(layer, known).items():
            inside = [key.name for key in known if key.name.startswith(name + ".")]
            if inside and value != {}:
                return f"{name} is {value!r}; it is a section, so set its keys, for example {inside[0]}."
            for key in known:
                if key.name == name and not _fits(name, value):
                    mend = "refer to another key" if "${" in str(value) else f"use {in_words(key.hint)}"
                    return f"{name} is {value!r}; {mend}."
    return None


def _fits(name: str, value: Any) -> bool:
    config = OmegaConf.structured(Config)
    try:
        OmegaConf.update(config, name, value)
        OmegaConf.to_container(OmegaConf.select(config, name.split(".")[0]), resolve=True)
    except (OmegaConfBaseException, TypeError):
        return False
    return True
