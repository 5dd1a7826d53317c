"""Reads the YAML of a configuration, a file or the value of an override, within limits.

The parsers themselves have none: beyond these, one ends the process with its stack, and another takes hours.
"""

import io
import re
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sracl_dist.errors import brief, first_line

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
MAX_VALUES = 10_000
MAX_REFERRING_CHARS = 100_000
"""Of all values with references together."""
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class TextError(Exception):
    """The text cannot be read; the message is the rest of a sentence about it."""


def read_mapping(text: str) -> dict[str, Any]:
    """The mapping that a YAML text holds; empty where the text is.

    Raises:
        TextError: it holds something else, is not valid, or is beyond a limit.
    """
    _refuse_beyond_limits(text)
    # OmegaConf's reader, unlike yaml's own, refuses a key that is written twice.
    values = _parsed(lambda: OmegaConf.load(io.StringIO(text)))
    if not isinstance(values, dict):
        raise TextError("is not a mapping of sections; see docs/configuration.md")
    return values


def read_override(override: str) -> dict[str, Any]:
    """What KEY=VALUE says, as sections within sections.

    Raises:
        TextError: the value is not valid YAML, or is beyond a limit.
    """
    _refuse_beyond_limits(override.partition("=")[2])
    values: dict[str, Any] = _parsed(lambda: OmegaConf.from_dotlist([override]))
    return values


def _parsed(parse: Any) -> Any:
    try:
        return OmegaConf.to_container(parse())
    except yaml.YAMLError as error:
        raise _invalid(error) from None
    except OSError:  # what OmegaConf raises for a text that holds one value alone
        return None
    except RecursionError:
        raise TextError("has brackets within a reference that are nested too deep; close them") from None
    except (OmegaConfBaseException, ValueError) as error:  # a key that is no text, a number of thousands of digits
        raise TextError(f"holds what no setting can be ({first_line(error)}); fix it") from None


def _refuse_beyond_limits(text: str) -> None:
    if len(text) > MAX_BYTES:
        raise TextError(f"is longer than {MAX_BYTES:,} characters; shorten it, with globs where it names many files")
    depth = num_values = num_referring_chars = 0
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            num_values += isinstance(event, yaml.NodeEvent)
            if tag := getattr(event, "tag", None):
                raise TextError(f"has the tag {brief(tag)}; leave it out, and put a value that is text into quotes")
            if depth > MAX_DEPTH:
                raise TextError(f"is nested more than {MAX_DEPTH} deep; close the brackets, or fix the indentation")
            if "${" in (value := getattr(event, "value", "")):
                num_referring_chars += len(value)
                _refuse_deep_references(value)
            if num_referring_chars > MAX_REFERRING_CHARS:
                raise TextError(f"has references in more than {MAX_REFERRING_CHARS:,} characters; write values out")
            if num_values > MAX_VALUES:
                raise TextError(f"has more than {MAX_VALUES:,} values; use globs where it names many files")
    except yaml.YAMLError as error:
        raise _invalid(error) from None
    except UnicodeEncodeError:
        raise TextError("holds bytes that are not UTF-8; write it as UTF-8") from None


def _refuse_deep_references(value: str) -> None:
    depth = 0
    for bracket in re.findall(r"\$\{|\}", value):
        depth = max(depth - 1, 0) if bracket == "}" else depth + 1
        if depth > MAX_DEPTH:
            raise TextError(f"has references within each other, more than {MAX_DEPTH} deep; close their brackets")


def _invalid(error: yaml.YAMLError) -> TextError:
    where, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    line = f" in line {where.line + 1}" if where else ""
    reason = f" ({first_line(Exception(problem))})" if problem else ""
    return TextError(f"is not valid YAML{line}{reason}; mend its syntax")
