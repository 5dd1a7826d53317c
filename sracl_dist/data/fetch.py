"""Fetching public data sets: into a scratch folder first, checked, and then renamed into the cache."""

import gzip
import http.client
import shutil
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError

from sracl_dist.errors import InputError, SetupError
from sracl_dist.observe import Progress, say
from sracl_dist.packaged import publish

TIMEOUT_S = 60.0
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Download:
    """A public file."""

    url: str
    """Address relative to the base."""
    members: tuple[str, ...] = ()
    """Files to take out of a zip archive; empty keeps the file as it is."""
    num_rows: Mapping[str, int] | None = None
    """Known number of lines of the files that come of it."""


def fetch(name: str, base_url: str, downloads: Sequence[Download], destination: Path) -> Path:
    """Fetch the files of a public set into `destination`, which appears only when all of them are whole.

    Args:
        name: the set, for messages.
        base_url: address that the downloads' addresses begin with, ending with a slash.
        downloads: what to fetch.
        destination: folder to make.

    Raises:
        InputError: a file cannot be fetched or is not what it should be.
        SetupError: the cache cannot be written.
    """
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".fetching-") as scratch:
            staged = Path(scratch) / "files"
            staged.mkdir()
            for download in downloads:
                archive = Path(scratch) / download.url.rsplit("/", 1)[-1]
                _fetch_file(name, base_url + download.url, archive)
                _unpack(name, download, archive, staged)
            publish(staged, destination)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SetupError(
            f"The cache {destination.parent} cannot be written ({reason}); set SRACL_CACHE to another folder."
        ) from error
    return destination


def _fetch_file(name: str, url: str, target: Path) -> None:
    say(f"fetching {url}")
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "sracl-dist"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            expected = int(answer.headers.get("Content-Length") or 0)
            num_bytes = _save(answer, target, f"fetching {target.name}", expected)
    except HTTPError as error:
        raise _failure(name, url, f"the server answers {error.code} {error.reason}") from None
    except URLError as error:
        raise _failure(name, url, str(getattr(error.reason, "strerror", None) or error.reason)) from None
    except TimeoutError:
        raise _failure(name, url, f"no answer for {TIMEOUT_S:.0f} s") from None
    except (ConnectionError, http.client.HTTPException, ValueError) as error:
        raise _failure(name, url, str(error) or type(error).__name__) from None
    if expected and num_bytes != expected:
        raise _failure(name, url, f"only {num_bytes:,} of {expected:,} bytes came")


def _save(answer: IO[bytes], target: Path, label: str, expected: int) -> int:
    progress = Progress(label, expected // 1000, "kB")
    num_bytes = 0
    with open(target, "wb") as file:
        while block := answer.read(_BLOCK_BYTES):
            file.write(block)
            num_bytes += len(block)
            progress.update(num_bytes // 1000 - progress.done)
    progress.close()
    return num_bytes


def _unpack(name: str, download: Download, archive: Path, staged: Path) -> None:
    try:
        if download.members:
            with zipfile.ZipFile(archive) as content:
                for member in download.members:
                    with content.open(member) as source, open(staged / Path(member).name, "wb") as target:
                        shutil.copyfileobj(source, target)
        else:
            archive.rename(staged / archive.name)
        for file, expected in (download.num_rows or {}).items():
            found = _num_lines(staged / file)
            if found != expected:
                raise _failure(name, download.url, f"{file} has {found:,} rows, not {expected:,}")
        if not download.num_rows:
            _num_lines(staged / archive.name)
    except (zipfile.BadZipFile, KeyError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _failure(name, download.url, f"what came is damaged: {error}") from None


def _num_lines(path: Path) -> int:
    """Count lines, which also checks a gzip file to its end."""
    count, last = 0, b"\n"
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


def _failure(name: str, url: str, reason: str) -> InputError:
    return InputError(
        f"{name} cannot be fetched from {url} ({reason}); check the network, or put its files into a folder by hand "
        f"and set data.path to it."
    )
