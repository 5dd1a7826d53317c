"""Configurations that are damaged, or made to break a parser: one sentence, soon, and never a trace."""

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, get_origin

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sracl_dist.config import Config, flatten, load_config, nested, parse_config
from sracl_dist.config.schema import all_keys
from sracl_dist.config.text import MAX_BYTES, MAX_DEPTH, MAX_VALUES
from sracl_dist.errors import ConfigError

MINIMAL: dict[str, Any] = {"run": {"dir": "runs/test"}, "data": {"interactions": ["log.csv"]}}
WHOLE = yaml.safe_dump(nested(flatten(parse_config(MINIMAL)))).encode()
LAUGHS = "".join(f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in pairwise("abcdefghi"))
SECONDS = 5.0
"""Of the processor; most take a tenth of one."""

HOSTILE = {
    "lists": "[" * 5000 + "]" * 5000,
    "open lists": "[" * 100_000,
    "mappings": "{a: " * 5000 + "}" * 5000,
    "dashes": "- " * 100_000 + "a",
    "laughs": f"a: &a [lol, lol, lol, lol]\n{LAUGHS}",
    "itself": "a: &a [*a]",
    "itself merged": "a: &a {<<: *a}",
    "megabytes": "a" * 10_000_000,
    "many values": "[" + "a," * 400_000 + "]",
    "null byte": "a\0b",
    "digits": "1" * 5000,
    "tag": "!!int x",
    "tag of time": "!!timestamp x",
    "object": "!!python/object/apply:os.system [ls]",
    "open references": "'" + "${" * 40_000 + "'",
    "references": "'" + "${a." * 3000 + "}" * 3000 + "'",
    "brackets in a reference": "'${a:" + "[" * 20_000 + "'",
    "computed name": "'${run.${data.source}}'",
}


def sentence(*arguments: Any) -> str | None:
    """How it is refused, or None where it is not; anything but ConfigError is a failure."""
    started = time.process_time()  # which other programs do not lengthen
    try:
        config = load_config(*arguments) if isinstance(arguments[0], Path) else parse_config(*arguments)
    except ConfigError as error:
        text = str(error)
        assert text.endswith((".", "?"))
        assert len(text) < 2100
        return text
    finally:
        assert time.process_time() - started < SECONDS
    assert isinstance(config, Config)
    return None


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_break_a_parser_is_refused_in_a_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(HOSTILE[name])
    assert sentence(path)
    path.write_text(f"run: {{dir: runs/test}}\ndata:\n  interactions: [a]\n  path: {HOSTILE[name]}\n")
    told = sentence(path)
    assert told
    assert str(path) in told or "data.path" in told


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("key", ["run.dir", "tune.space", "train", "x"])
def test_what_would_break_a_parser_is_refused_in_an_override(name: str, key: str) -> None:
    assert key in (sentence(MINIMAL, [f"{key}={HOSTILE[name]}"]) or "")


@pytest.mark.parametrize("depth", [3000, 300_000])
def test_the_process_and_its_memory_survive(depth: int, tmp_path: Path) -> None:
    """In a process of its own, since a parser that recurses ends the process and not the call."""
    path = tmp_path / "config.yaml"
    path.write_text("tune: " + "[" * depth + "]" * depth)
    program = (
        "import resource, sys\n"
        "from sracl_dist.config import load_config\n"
        "from sracl_dist.errors import ConfigError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    load_config(sys.argv[1])\nexcept ConfigError:\n    print('refused')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000)\n"
    )
    finished = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout.split()) == (0, ["refused", "True"]), finished.stderr


def test_endless_files_are_not_read_to_their_end() -> None:
    assert f"{MAX_BYTES:,} bytes" in (sentence(Path("/dev/zero")) or "")
    assert "cannot be read" in (sentence(Path("a\0b")) or "")


GROWING = {
    "keys": {f"k{i}": f"${{tune.space.k{i + 1}}}" * 3 for i in range(20)},
    "relative": {f"k{i}": dict.fromkeys("abc", f"${{..k{i + 1}}}") for i in range(20)},
    "list": {"k": [f"${{tune.space.k[{i + 1}]}}" * 3 for i in range(20)] + ["x"]},
    "chain": {f"k{i}": f"${{tune.space.k{i + 1}}}" for i in range(2000)} | {"k2000": "x"},
    "sections": {f"k{i}": [f"${{tune.space.k{i + 1}}}"] * 3 for i in range(20)},
}


@pytest.mark.parametrize("name", GROWING)
def test_references_that_grow_are_not_followed(name: str) -> None:
    assert "tune.space.k" in (sentence({**MINIMAL, "tune": {"space": GROWING[name]}}) or "")


def test_limits_leave_room_for_what_people_write(tmp_path: Path) -> None:
    files = [f"${{data.path}}/part-{number:05d}.parquet" for number in range(1000)]
    values = {**MINIMAL, "data": {"path": "${oc.env:HOME}/data", "interactions": files}}
    path = tmp_path / "config.yaml"
    path.write_text(f"# {'x' * 100_000}\n" + yaml.safe_dump(values))
    assert load_config(path).data.interactions[999].endswith("/data/part-00999.parquet")
    deep = "[" * (MAX_DEPTH - 3) + "]" * (MAX_DEPTH - 3)
    assert sentence(MINIMAL, [f"tune.space={{a: {deep}}}"]) is None
    path.write_text(yaml.safe_dump({**MINIMAL, "data": {"interactions": ["a"] * (MAX_VALUES - 20)}}))
    assert len(load_config(path).data.interactions) == MAX_VALUES - 20


@pytest.mark.parametrize("text", ['"a\\0b"', '["a\\0b"]'])
def test_a_null_character_is_refused(text: str) -> None:
    key = "data.interactions" if text.startswith("[") else "run.dir"
    assert f"{key} is" in (sentence(MINIMAL, [f"{key}={text}"]) or "")


def test_a_long_value_is_shown_in_part() -> None:
    text = sentence(MINIMAL, ["train.epochs=" + "a" * 900_000]) or ""
    assert text.startswith("train.epochs is 'aaa")
    assert text.endswith("; use a whole number.")
    assert len(text) < 400


WRONG = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from(
            ["${", "${run.dir}", "${run}", "${oc.env:NOWHERE}", "${nowhere}", "???", "\0", "\ud800", "1e999"]
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(all_keys()), WRONG)
def test_any_value_at_any_key(key: Any, value: Any) -> None:
    for name in (key.name, key.name.rpartition(".")[0]):
        values = yaml.safe_load(WHOLE)
        *path, last = name.split(".")
        section = values
        for part in path:
            section = section[part]
        section[last] = value
        sentence(values)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([key.name for key in all_keys()] + ["run", "train", "data.columns", "nowhere", ""]),
    st.one_of(st.text(max_size=40), st.text("[]{}:,'\"&*!|>%@`-?#$\\ \n\ta1.0<", max_size=40)),
)
def test_any_text_behind_any_key(name: str, text: str) -> None:
    sentence(MINIMAL, [f"{name}={text}"])


@pytest.mark.parametrize("key", [key.name for key in all_keys() if get_origin(key.hint) is list])
@pytest.mark.parametrize("value", ["[[a]]", "[{a: b}]", "[null]"])
def test_a_list_of_texts_holds_nothing_else(key: str, value: str) -> None:
    assert f"{key} is" in (sentence(MINIMAL, [f"{key}={value}"]) or "")


PIECES = [piece.encode("latin-1") for piece in ("\0", "\xff", "&a ", "*a", "!!int ", "${", ": ", "- ", *"[]{}\t'\"|\n")]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, len(WHOLE)),
    st.integers(0, 40),
    st.one_of(st.sampled_from(PIECES), st.binary(max_size=6), st.sampled_from(PIECES).map(lambda piece: piece * 2000)),
    st.booleans(),
)
@example(0, 0, b"", True)
def test_a_damaged_file(
    tmp_path_factory: pytest.TempPathFactory, place: int, num_lost: int, piece: bytes, is_cut: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_bytes(WHOLE[:place] + piece + (b"" if is_cut else WHOLE[place + num_lost :]))
    sentence(path)
