"""From a YAML file and KEY=VALUE overrides to a validated `Config`, and back to flat keys."""

import difflib
import os
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, cast, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sracl_dist.config.references import leaves, refuse_growth
from sracl_dist.config.schema import Key, all_keys, all_sections, in_words
from sracl_dist.config.sections import Config
from sracl_dist.config.text import MAX_BYTES, TextError, read_mapping, read_override
from sracl_dist.errors import ConfigError, brief, first_line
from sracl_dist.secrets import masked
from sracl_dist.visible import is_utf8


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read the YAML file at `path`, apply overrides such as `train.epochs=3`, and validate.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, or a value is wrong.
    """
    try:
        with open(os.path.expanduser(path), "rb") as file:
            content = file.read(MAX_BYTES + 1)  # no more, since it may be any file
    except OSError as error:
        raise ConfigError(
            f"The configuration {path} cannot be read ({error.strerror}); name a readable file."
        ) from None
    except ValueError:
        raise ConfigError(f"The configuration {str(path)!r} cannot be read; name a readable file.") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"The configuration {path} is larger than {MAX_BYTES:,} bytes; name a YAML file of settings.")
    try:
        values = read_mapping(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"The configuration {path} is not UTF-8 text; save it as UTF-8.") from None
    except TextError as error:
        raise ConfigError(f"The configuration {path} {error}.") from None
    return parse_config(values, overrides)


def parse_config(values: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Validate plain values plus overrides; see `load_config`."""
    known = all_keys()
    refuse_unknown(_leaves(values, known), known)
    layers = [values, *(_parse_override(override, known) for override in overrides)]
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), *layers)
        refuse_growth(cast(dict[str, Any], OmegaConf.to_container(merged)))
        if missing := OmegaConf.missing_keys(merged):
            raise ConfigError(f"{min(missing)} has no value; set it in the file, or as an override KEY=VALUE.")
        config = cast(Config, OmegaConf.to_object(merged))
    except TextError as error:
        raise ConfigError(f"{error}.") from None
    except (OmegaConfBaseException, TypeError) as error:
        reason = _explain(layers, known) or f"The configuration cannot be used ({first_line(error)}); fix it."
        raise ConfigError(reason) from None
    _refuse_unfit(config, known)
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


def _refuse_unfit(config: Config, known: Sequence[Key]) -> None:
    """What OmegaConf lets pass: containers within a list of texts, and a character that ends every name."""
    for key in known:
        name, value = key.name, attrgetter(key.name)(config)
        if get_origin(key.hint) is list and not all(isinstance(inner, get_args(key.hint)) for inner in value):
            raise ConfigError(f"{name} is {brief(value)}; use {in_words(key.hint)}.")
        if any("\0" in text for _, text in leaves(value, name)):
            raise ConfigError(f"{name} is {brief(value)}; take out the character \\x00, which no file name can hold.")
        if not all(is_utf8(text) for _, text in leaves(value, name)):
            raise ConfigError(f"{name} is {brief(value)}, which is not UTF-8; write it as UTF-8, or rename the file.")


def _check(section: Any) -> None:
    for member in fields(section):
        if is_dataclass(getattr(section, member.name)):
            _check(getattr(section, member.name))
    if hasattr(section, "check"):
        section.check()


def _parse_override(override: str, known: Sequence[Key]) -> dict[str, Any]:
    name, equals, _ = override.partition("=")
    if not name or not equals:
        raise ConfigError(f"The override {brief(override)} is not KEY=VALUE; write for example train.epochs=3.")
    refuse_unknown({name: None}, known)
    try:
        values = read_override(override)
    except TextError as error:
        raise ConfigError(f"The value of the override {brief(override)} {error}, or quote it.") from None
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
    config = OmegaConf.structured(Config)
    for layer in layers:
        # References last: what they refer to must be there.
        for name, value in sorted(_leaves(layer, known).items(), key=lambda leaf: "${" in str(leaf[1])):
            inside = [key.name for key in known if key.name.startswith(name + ".")]
            if inside and value != {}:
                return f"{name} is {brief(value)}; it is a section, so set its keys, for example {inside[0]}."
            for key in known:
                if key.name == name and not _fits(config, name, value):
                    mend = "refer to another key" if "${" in str(value) else f"use {in_words(key.hint)}"
                    return f"{name} is {brief(value)}; {mend}."
    return None


def _fits(config: DictConfig, name: str, value: Any) -> bool:
    """Whether the key takes the value, which is set if so."""
    try:
        OmegaConf.update(config, name, value)
        held = OmegaConf.select(config, name)
        if OmegaConf.is_config(held):
            OmegaConf.to_container(held, resolve=True)
    except (OmegaConfBaseException, TypeError):
        return False
    return True
