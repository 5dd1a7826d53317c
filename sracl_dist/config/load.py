"""From a YAML file and KEY=VALUE overrides to a validated `Config`, and back to flat keys."""

import difflib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from sracl_dist.config.sections import NEUTRAL, Config
from sracl_dist.errors import ConfigError


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
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        raise ConfigError(f"The configuration {path} is not valid YAML{line}; mend its syntax.") from None
    if not isinstance(values or {}, dict):
        raise ConfigError(f"The configuration {path} is not a mapping of sections; see docs/configuration.md.")
    return parse_config(values or {}, overrides)


def parse_config(values: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Validate plain values plus overrides; see `load_config`."""
    known = _known_keys()
    _refuse_unknown(_leaf_keys(values), known)
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"The override {override!r} has no '='; write KEY=VALUE, for example train.epochs=3.")
    _refuse_unknown([override.split("=", 1)[0] for override in overrides], known)
    try:
        layers = OmegaConf.create(values), OmegaConf.from_dotlist(list(overrides))
        config = cast(Config, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), *layers)))
    except MissingMandatoryValue as error:
        raise ConfigError(f"The key {error.full_key} has no value; set it in the file or as an override.") from None
    except ConfigKeyError as error:
        raise ConfigError(f"The key {error.full_key} is unknown; see docs/configuration.md.") from None
    except OmegaConfBaseException as error:
        raise ConfigError(_wrong_type(error)) from None
    except yaml.YAMLError:
        raise ConfigError(f"One of the overrides {list(overrides)} is not valid YAML; quote its value.") from None
    try:
        _check(config)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    if config.run.dir == "???":
        raise ConfigError(
            "The key run.dir has no value; set it in the file or as an override, for example run.dir=runs/mine."
        )
    return config


def flatten(config: Config, sections: Sequence[str] = (), *, with_neutral: bool = True) -> dict[str, Any]:
    """Values by dotted key, limited to the given sections or keys (all by default).

    With `with_neutral=False` the fields that cannot change a result are left out.
    """
    flat = {}
    for key, value, is_neutral in _walk(config, ""):
        wanted = not sections or any(key == section or key.startswith(section + ".") for section in sections)
        if wanted and (with_neutral or not is_neutral):
            flat[key] = value
    return flat


def _walk(node: Any, prefix: str) -> list[tuple[str, Any, bool]]:
    rows = []
    for member in fields(node):
        key, value = prefix + member.name, getattr(node, member.name)
        if is_dataclass(value):
            rows += _walk(value, key + ".")
        else:
            rows.append((key, value, bool(member.metadata.get(NEUTRAL))))
    return rows


def _check(section: Any) -> None:
    for member in fields(section):
        if is_dataclass(getattr(section, member.name)):
            _check(getattr(section, member.name))
    if hasattr(section, "check"):
        section.check()


def _known_keys() -> list[str]:
    structured = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(Config)))
    return _leaf_keys(structured)


def _leaf_keys(values: dict[Any, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, value in values.items():
        key = f"{prefix}{name}"
        keys += _leaf_keys(value, key + ".") if isinstance(value, dict) and value else [key]
    return keys


def _refuse_unknown(keys: Sequence[str], known: Sequence[str]) -> None:
    sections = {".".join(key.split(".")[:depth]) for key in known for depth in range(1, key.count(".") + 1)}
    for key in keys:
        if key in known or key in sections:
            continue
        nearest = difflib.get_close_matches(key, [*known, *sections], n=1, cutoff=0.5)
        mend = f"did you mean {nearest[0]}?" if nearest else "see docs/configuration.md."
        raise ConfigError(f"The key {key} is unknown; {mend}")


def _wrong_type(error: OmegaConfBaseException) -> str:
    key = error.full_key or "a key"
    reason = str(error.msg or error).splitlines()[0]
    return f"The key {key} has a value of the wrong type ({reason}); see docs/configuration.md."
