"""Settings of a benchmark: a flat dataclass with defaults, and KEY=VALUE over them."""

import difflib
from collections.abc import Sequence
from typing import TypeVar, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sracl_dist.config.schema import all_keys, in_words
from sracl_dist.config.text import TextError, read_override
from sracl_dist.errors import ConfigError, brief

Settings = TypeVar("Settings")


def parse_settings(kind: type[Settings], words: Sequence[str]) -> Settings:
    """The dataclass with what the words say; a method `check` of it is called.

    Raises:
        ConfigError: a word is not KEY=VALUE, its key is unknown, or its value is impossible.
    """
    hints = {key.name: key.hint for key in all_keys(kind)}
    merged, settings = OmegaConf.structured(kind), kind()
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(
                f"The setting {brief(word)} is not KEY=VALUE; write for example {next(iter(hints))}=VALUE."
            )
        if name not in hints:
            nearest = difflib.get_close_matches(name, hints, n=1, cutoff=0.5)
            mend = f"did you mean {nearest[0]}?" if nearest else f"use one of {', '.join(hints)}."
            raise ConfigError(f"The setting {name} is unknown; {mend}")
        try:
            merged = OmegaConf.merge(merged, read_override(word))
            settings = cast(Settings, OmegaConf.to_object(merged))
        except (OmegaConfBaseException, TextError):
            raise ConfigError(f"{name} is {brief(value)}; use {in_words(hints[name])}.") from None
    if hasattr(settings, "check"):
        try:
            settings.check()
        except ValueError as error:
            raise ConfigError(f"{error}.") from None
    return settings
