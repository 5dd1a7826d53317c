"""Fetching public data sets: checked file by file in a hidden folder of the cache, which is then renamed into place.

What has come stays in that folder when the network fails, and the next attempt goes on from there.
"""

import fcntl
import gzip
import http.client
import io
import shutil
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

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
    members: Mapping[str, range] = field(default_factory=dict)
    """Files to take out of a zip archive, with the possible numbers of their lines; empty keeps the file as it is."""
    num_lines: range | None = None
    """Possible numbers of lines of a file that is no archive, where they are known."""


class _FetchError(Exception):
    """Says why a file did not come, or not whole."""


def fetch(name: str, base_url: str, downloads: Sequence[Download], destination: Path) -> Path:
    """Fetch the files of a public set into `destination`, which appears only when all of them are whole.

    A second process that fetches the same set waits for the first.

    Args:
        name: the set, for messages.
        base_url: address that the downloads' addresses begin with, ending with a slash.
        downloads: what to fetch.
        destination: folder to make.

    Raises:
        InputError: a file cannot be fetched or is not what it should be.
        SetupError: the cache cannot be written.
    """
    work = destination.with_name(f".{destination.name}.part")
    lock = destination.with_name(f".{destination.name}.lock")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with open(lock, "w") as locked:
            try:
                fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another process is fetching {name}; waiting for it")
                fcntl.flock(locked, fcntl.LOCK_EX)
            if not destination.is_dir():
                whole = work / "whole"
                whole.mkdir(parents=True, exist_ok=True)
                for download in downloads:
                    _fetch_checked(name, base_url + download.url, download, work, whole)
                publish(whole, destination)
            # The lock goes only once the set is there: who waits for it, or makes another one, finds the set.
            shutil.rmtree(work, ignore_errors=True)
            lock.unlink(missing_ok=True)
    except OSError as error:
        raise SetupError(
            f"The cache {destination.parent} cannot be written ({error.strerror}); set SRACL_CACHE to another folder."
        ) from error
    return destination


def _fetch_checked(name: str, url: str, download: Download, work: Path, whole: Path) -> None:
    """Put the files of the download into `whole`, unless they are there from an earlier attempt."""
    arrived = work / url.rsplit("/", 1)[-1]
    counts: Mapping[str, range | None] = download.members or {arrived.name: download.num_lines}
    files = {work / member: expected for member, expected in counts.items()}
    if all((whole / file.name).exists() for file in files):
        return
    try:
        _fetch_file(url, arrived)
        if download.members:
            with zipfile.ZipFile(arrived) as archive:
                archive.extractall(work, download.members)
        for file, expected in files.items():
            say(f"checking {file.name}")
            with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as stream:
                found = sum(1 for _ in io.BufferedReader(stream, _BLOCK_BYTES))
            if expected is not None and found not in expected:
                wanted = f"{expected[0]:,}" if len(expected) == 1 else f"{expected[0]:,} to {expected[-1]:,}"
                raise _FetchError(f"{file.name} has {found:,} lines, not {wanted}")
    except (_FetchError, zipfile.BadZipFile, KeyError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        for file in {arrived, *files}:
            file.unlink(missing_ok=True)
        reason = str(error) if isinstance(error, _FetchError) else f"what came is damaged: {error}"
        raise InputError(
            f"{name} cannot be fetched from {url} ({reason}); check the network and try again, or put its files into a "
            f"folder by hand and set data.path to it."
        ) from None
    for file in files:
        file.rename(whole / file.name)
    arrived.unlink(missing_ok=True)


def _fetch_file(url: str, target: Path) -> None:
    """Fetch the file, going on where the connection broke off for as long as more of it comes."""
    part = target.with_name(f"{target.name}.part")
    while not target.exists():
        num_before = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, part, num_before)
            part.rename(target)
        except HTTPError as error:
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not num_before:
                raise _FetchError(f"the server answers {error.code} {error.reason}") from None
            part.unlink()  # it has all that the server would send, and more perhaps
        except _FetchError as error:
            if not part.exists() or part.stat().st_size <= num_before:
                raise
            say(f"{url} broke off ({error}); going on")


def _receive(url: str, part: Path, num_there: int) -> None:
    """Append the rest of the file to `part`; it begins again where the server has another file by now."""
    version = part.with_name(f"{part.name}.version")  # what tells the server that the rest of the same file is wanted
    known = version.read_text() if version.exists() else ""
    rest = {"Range": f"bytes={num_there}-", "If-Range": known} if num_there and known else {}
    request = urllib.request.Request(url, headers={"User-Agent": "sracl-dist"} | rest)  # noqa: S310
    say(f"fetching {url}")
    answer = _network(urllib.request.urlopen, request, timeout=TIMEOUT_S)
    with answer, open(part, "ab") as file:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            num_there = 0
            file.truncate(0)
            tag = answer.headers.get("ETag", "W/")
            version.write_text(answer.headers.get("Last-Modified", "") if tag.startswith("W/") else tag)
        num_bytes = num_there + (answer.length or 0)  # the length is counted down while it is read
        progress = Progress(f"fetching {part.stem}", num_bytes // 1000, "kB", done=num_there // 1000)
        while block := _network(answer.read, _BLOCK_BYTES):
            num_there += file.write(block)
            progress.update(num_there // 1000 - progress.done)
        progress.close()
    if answer.length:
        raise _FetchError(f"only {num_there:,} of {num_bytes:,} bytes came")
    version.unlink()


def _network(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What the call returns; its errors are those of the network, not of the disk."""
    try:
        return call(*arguments, **options)
    except HTTPError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = getattr(error, "reason", error)
        late = f"no answer for {TIMEOUT_S:.0f} s" if isinstance(cause, TimeoutError) else ""
        raise _FetchError(late or getattr(cause, "strerror", None) or str(cause) or type(error).__name__) from None
