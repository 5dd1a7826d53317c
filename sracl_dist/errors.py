"""What can go wrong for a user; every message is one sentence that names the thing, the value and what to do."""

from sracl_dist.secrets import masked

MAX_START_CHARS, MAX_END_CHARS = 1500, 500
"""What is kept of a longer sentence: what is wrong stands at its start, and what to do at its end."""


class SraclError(Exception):
    """Base of all errors that are the user's to mend; a job prints the message and exits with status 1.

    Args:
        sentence: for the user; secrets are taken out, and its middle where it is too long to be read.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(_bounded(masked(sentence)))


class ConfigError(SraclError):
    """A configuration key is unknown, has a wrong type or an impossible value."""


class InputError(SraclError):
    """A file, column or row that the user supplied cannot be used."""


class StageOrderError(SraclError):
    """A stage was asked for before the stage it reads was finished, or after that one's settings changed."""


class StorageError(SraclError):
    """The run folder cannot be read or written, or what lies there is damaged."""


class SetupError(SraclError):
    """A package, a model or an accelerator that the stage needs is not usable on this machine."""


class StageError(SraclError):
    """A stage ran and cannot go on, for example because too many rows failed."""


def was_interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C is behind it: a library that was interrupted may hide that behind an error of its cleanup."""
    seen: set[int] = set()
    reasons: list[BaseException | None] = [error]
    while reasons:
        reason = reasons.pop()
        if isinstance(reason, KeyboardInterrupt):
            return True
        if reason is not None and id(reason) not in seen:
            seen.add(id(reason))
            reasons += [reason.__cause__, reason.__context__]
    return False


def brief(value: object, max_chars: int = 200) -> str:
    """A value as Python writes it, for use within a sentence; the end of a long one is left out."""
    text: str = masked(repr(value))
    return text if len(text) <= max_chars else f"{text[:max_chars]}... ({len(text):,} characters)"


def first_line(error: BaseException, max_chars: int = 300) -> str:
    """The first line of an error's message, or its kind where it has none, for use within a sentence."""
    return _line(error, 0, max_chars)


def last_line(error: BaseException, max_chars: int = 300) -> str:
    """The last one, which says why where a trace stands before it."""
    return _line(error, -1, max_chars)


def _line(error: BaseException, place: int, max_chars: int) -> str:
    # Masked before it is cut: half a secret could not be recognized any more.
    lines = [line for line in masked(str(error)).splitlines() if line.strip()]
    return (lines[place] if lines else type(error).__name__).strip()[:max_chars].rstrip(".")


def _bounded(sentence: str) -> str:
    left_out = len(sentence) - MAX_START_CHARS - MAX_END_CHARS
    if left_out <= 0:
        return sentence
    return f"{sentence[:MAX_START_CHARS]} [... {left_out:,} characters ...] {sentence[-MAX_END_CHARS:]}"
