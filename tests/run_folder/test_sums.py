"""Checksums in the names of files."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sracl_dist.errors import StorageError
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.run_folder.sums import SUMS, Sum, digest_of_all, sum_of_file, sums_in

SUM = st.builds(
    Sum,
    num_bytes=st.integers(0, 2**63),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    fingerprint=st.text("0123456789abcdef", min_size=20, max_size=20),
)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cc"]), min_size=1)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StageFolder]:
    with RunFolder(str(tmp_path)).working_on("embed", "f1") as folder:
        folder.write_bytes("items/0.bin", b"abc")
        folder.write_bytes("a.json", b"")
        yield folder


@given(st.dictionaries(NAMES, st.sets(SUM, min_size=1, max_size=2), max_size=4))
def test_names_tell_everything(sums: dict[str, set[Sum]]) -> None:
    names = [own.file_name(name) for name, several in sums.items() for own in several]
    assert sums_in([*names, "manifest.json", "sums/a~b", "items/0.bin~3~ab~cd"]) == sums


def test_the_sum_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    # Published as the first example of SHA-256 in FIPS 180-2, appendix B.1.
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sum_of_file(tmp_path / "a", "f1") == Sum(num_bytes=3, sha256=sha256, fingerprint="f1")


def test_the_system_can_check_them(folder: StageFolder) -> None:
    command = f"cat $(find {SUMS} -type f) | sha256sum --check"
    checked = subprocess.run(command, shell=True, cwd=folder.path(), capture_output=True, text=True, check=False)
    assert (checked.returncode, sorted(checked.stdout.splitlines())) == (0, ["a.json: OK", "items/0.bin: OK"])
    Path(folder.path("items/0.bin")).write_bytes(b"abd")
    assert subprocess.run(command, shell=True, cwd=folder.path(), capture_output=True, check=False).returncode == 1


def test_the_digest_of_all_tells_sets_apart(folder: StageFolder) -> None:
    before = sums_in(folder.infos())
    assert digest_of_all(before) == digest_of_all(dict(reversed(before.items())))
    folder.delete(["a.json"])
    assert digest_of_all(sums_in(folder.infos())) != digest_of_all(before)


def test_a_replaced_file_has_its_own_sum_alone(folder: StageFolder) -> None:
    folder.write_bytes("items/0.bin", b"abcd")
    assert [own.num_bytes for own in sums_in(folder.infos())["items/0.bin"]] == [4]


def test_a_deleted_file_leaves_no_sum(folder: StageFolder) -> None:
    folder.delete(["items/0.bin", "a.json"])
    assert sums_in(folder.infos()) == {}


def test_a_file_that_no_stage_wrote_is_neither_seen_nor_replaced(folder: StageFolder) -> None:
    own = Path(folder.path("items/1.bin"))
    own.write_bytes(b"somebody's")
    assert folder.files() == ["a.json", "items/0.bin"]
    with pytest.raises(StorageError, match=r"items/1\.bin is in the way, as sums/ does not list it"):
        folder.write_bytes("items/1.bin", b"ours")
    assert own.read_bytes() == b"somebody's"
