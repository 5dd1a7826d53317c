"""Settings of a benchmark: a flat dataclass with defaults, and KEY=VALUE over them."""

import difflib
from collections.abc import Sequence
from typing import TypeVar, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sracl_dist.config.schema import all_keys, in_words
from sracl_dist.errors import ConfigError

Settings = TypeVar("Settings")


def parse_settings(kind: type[Settings], words: Sequence[str]) -> Settings:
    """The dataclass with what the words say; a method `check` of it is called.

    Raises:
        ConfigError: a word is not KEY=VALUE, its key is unknown, or its value is impossible.
    """
    hints = {key.name: key.hint for key in all_keys(kind)}
    merged = OmegaConf.structured(kind)
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"The setting {word!r} is not KEY=VALUE; write for example {next(iter(hints))}=VALUE.")
        if name not in hints:
            nearest = difflib.get_close_matches(name, hints, n=1, cutoff=0.5)
            mend = f"did you mean {nearest[0]}?" if nearest else f"use one of {', '.join(hints)}."
            raise ConfigError(f"The setting {name} is unknown; {mend}")
        try:
            merged = OmegaConf.merge(merged, OmegaConf.from_dotlist([word]))
        except (OmegaConfBaseException, yaml.YAMLError):
            raise ConfigError(f"{name} is {value!r}; use {in_words(hints[name])}.") from None
    settings = cast(Settings, OmegaConf.to_object(merged))
    if hasattr(settings, "check"):
        try:
            settings.check()
        except ValueError as error:
            raise ConfigError(f"{error}.") from None
    return settings
