"""Ways to damage a file, and how a person follows the advice of a message."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

from sracl_dist.errors import SraclError

DEEP = 100_000
NO_JSON = (b"[]", b"null", b"1", b'"x"', b"{}", b"[" * DEEP, b'{"a":' * DEEP + b"1" + b"}" * DEEP, b"9" * 5_000)


def _cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


def _other_byte(content: bytes, share: float) -> bytes:
    place = min(int(len(content) * share), len(content) - 1)
    return content[:place] + bytes([content[place] ^ 1 << int(share * 7.9)]) + content[place + 1 :] if content else b"x"


def _longer(content: bytes, share: float) -> bytes:
    return content + content[: 1 + int(len(content) * share)]


def _other_digit(content: bytes, share: float) -> bytes:
    """Another number in a text, which stays a valid one."""
    places = [match.start() for match in re.finditer(rb"[0-9]", content)]
    if not places:
        return b"7" + content
    place = places[min(int(len(places) * share), len(places) - 1)]
    return content[:place] + str((content[place] - 47) % 10).encode() + content[place + 1 :]


def _other_type(content: bytes, share: float) -> bytes:
    return NO_JSON[min(int(share * len(NO_JSON)), len(NO_JSON) - 1)]


def _zeros(content: bytes, share: float) -> bytes:
    return bytes(len(content))


def _empty(content: bytes, share: float) -> bytes:
    return b""


BYTES: dict[str, Callable[[bytes, float], bytes]] = {
    "cut": _cut,
    "empty": _empty,
    "other byte": _other_byte,
    "other digit": _other_digit,
    "longer": _longer,
    "other type": _other_type,
    "zeros": _zeros,
}
KINDS = (*BYTES, "missing", "a folder", "of another file", "of another run")
DAMAGE = st.tuples(st.sampled_from(KINDS), st.floats(0, 1, exclude_max=True))


def damage(root: Path, name: str, kind: str, share: float, other_root: Path) -> bool:
    """Damage a file of a run folder; returns whether it is another one than before.

    Args:
        root: of the run; its files may be shared with other runs, which stay as they are.
        name: of the file.
        kind: one of KINDS.
        share: where in the file, or which other file.
        other_root: of a run with the same settings and another log.
    """
    path = root / name
    before = path.read_bytes()
    content: bytes | None = None
    if kind in BYTES:
        content = BYTES[kind](before, share)
    elif kind == "of another file":
        others = sorted(own for own in root.rglob("*") if own.is_file() and own.suffix == path.suffix)
        content = others[int(share * len(others))].read_bytes()
    elif kind == "of another run":
        others = sorted(own for own in other_root.rglob("*") if own.is_file() and own.name == path.name)
        content = others[int(share * len(others))].read_bytes() if others else b""
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    return content != before


def require_sentence(error: SraclError) -> None:
    """One sentence of bounded length that says what to do."""
    text = str(error)
    assert "\n" not in text
    assert text.endswith("."), text
    assert len(text) < 2000, text
    assert "Traceback" not in text


def follow(error: SraclError, do: Callable[[str], None]) -> None:
    """Do what a message says; `do` runs a job by its stage's name."""
    text = str(error)
    if found := re.search(r"delete (?P<place>/\S+?),? and run jobs/(?P<job>\w+)\.py", text):
        place = Path(found["place"])
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
        do(found["job"])
    elif found := re.search(r"(?P<place>/\S+) (is in the way|cannot be \w+; a folder is in its place)", text):
        place = Path(found["place"])
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink()
    elif found := re.search(r"(?P<folder>/\S+) holds '(?P<name>.+)' and nothing that a stage wrote; move", text):
        Path(found["folder"], found["name"]).unlink()
    elif found := re.search(r"run jobs/(?P<job>\w+)\.py", text):
        do(found["job"])
    else:
        raise AssertionError(f"no advice: {text}")
