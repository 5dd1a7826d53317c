"""Where runs lie: a local folder, or a URI of an object store that pyarrow.fs opens."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pyarrow as pa
from pyarrow import fs

from sracl_dist.errors import StorageError, first_line
from sracl_dist.secrets import HIDDEN
from sracl_dist.visible import is_utf8

S3_MAX_ATTEMPTS = 12
"""Waits double from 50 ms on, so that a request is given up after about a minute of errors."""
S3_CONNECT_TIMEOUT_S = 10.0
S3_REQUEST_TIMEOUT_S = 30.0
"""The server may be silent for so long."""
S3_OPTIONS = ("endpoint_override", "region", "scheme")
"""What the query of an s3:// URI may set."""
SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss")
"""What a URI may begin with. Pyarrow opens more, some of which forget what was written, such as mock."""
_OBJECT_STORES = {"s3": "s3://", "gcs": "gs://", "abfs": "abfs://"}
_TROUBLES = (
    ("[Ii]s a directory", "a folder is in its place: move it elsewhere and run the same command again"),
    ("No space left", "the disk is full: make room, or set {key} to another place; what is finished is kept"),
    ("NO_SUCH_BUCKET", "the bucket does not exist: make it, or set {key} to another place"),
    ("NETWORK_CONNECTION", "the server does not answer: check the network, and the endpoint and region in {key}"),
    (
        "INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_SIGNATURE|EXPIRED_TOKEN|[Cc]redentials",
        "the server does not know the credentials: mend AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role, on "
        "every node",
    ),
    (
        "ermission denied|Read-only|ACCESS_DENIED|AccessDenied",
        "the permission is missing: mend it, or set {key} to another place",
    ),
)


def open_location(location: str, key: str) -> tuple[fs.FileSystem, str]:
    """File system of a folder or URI, and the path within it.

    Args:
        location: a folder, or a URI such as s3://bucket/folder or gs://bucket/folder.
        key: the setting that holds it, for messages.

    Raises:
        StorageError: it is a URI of an unknown scheme, or no file system opens it.
    """
    _require_known_scheme(location, key)
    try:
        if location.startswith("s3://"):
            filesystem = S3(location)
            return filesystem, filesystem.root
        if "://" in location:
            filesystem, root = fs.FileSystem.from_uri(location)
            return filesystem, root
        folder = str(Path(location).expanduser().resolve())
        if not is_utf8(folder):
            raise ValueError(f"the name of {folder} is not UTF-8")
        return fs.LocalFileSystem(), folder
    except (pa.ArrowException, OSError, ValueError) as error:
        shown = shown_location(location)
        reason = first_line(error).replace(location, shown)
        raise StorageError(f"The run folder {shown} cannot be opened ({reason}); change {key}.") from None


def _require_known_scheme(location: str, key: str) -> None:
    """Refuse what looks like a URI and is none of ours; a slash before the first colon makes it a folder."""
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", location)
    known = [f"{name}://" for name in SCHEMES]
    if scheme and not location.startswith(tuple(known)):
        raise StorageError(
            f"{key} begins with {scheme[0]} and can only begin with {', '.join(known)} or be a folder; use one of "
            f"them, and put ./ before a folder whose name has a colon."
        )


class S3(fs.S3FileSystem):
    """An S3 server whose errors that may pass are tried again, also in the processes that it is sent to.

    Pyarrow forgets how to try again when its own file system is sent to another process. Credentials come from where
    AWS's own tools look for them, in each process anew; they are not sent along. The endpoint may come from
    AWS_ENDPOINT_URL.

    Args:
        location: s3://bucket/folder, with S3_OPTIONS in its query where the server is not AWS or the region is known.

    Raises:
        ValueError: the URI holds a secret, an unknown option, or no bucket.
        OSError: the region of the bucket cannot be found.
    """

    def __init__(self, location: str) -> None:
        parts = urlsplit(location)
        if parts.username is not None or ":" in parts.netloc:
            raise ValueError("credentials belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, not into a URI")
        if not parts.netloc:
            raise ValueError("it names no bucket")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if unknown := sorted(options.keys() - set(S3_OPTIONS)):
            raise ValueError(f"an s3:// URI has no option {unknown[0]}, only {', '.join(S3_OPTIONS)}")
        if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
            options.setdefault("endpoint_override", endpoint)
        if "region" not in options and "endpoint_override" not in options:
            options["region"] = fs.resolve_s3_region(parts.netloc)
        super().__init__(
            **options,
            connect_timeout=S3_CONNECT_TIMEOUT_S,
            request_timeout=S3_REQUEST_TIMEOUT_S,
            retry_strategy=fs.AwsDefaultS3RetryStrategy(max_attempts=S3_MAX_ATTEMPTS),
        )
        self._location = parts._replace(query=urlencode(options)).geturl()
        self.root = f"{parts.netloc}{unquote(parts.path)}".rstrip("/")

    def __reduce__(self) -> tuple[Any, ...]:
        return S3, (self._location,)


def is_object_store(filesystem: fs.FileSystem) -> bool:
    """Whether a file appears there whole when its upload ends, and can be renamed only by copying it."""
    return filesystem.type_name in _OBJECT_STORES


def shown_path(filesystem: fs.FileSystem, path: str) -> str:
    """A path within a file system, for messages: a URI where it is not the local one."""
    return f"{_OBJECT_STORES.get(filesystem.type_name, '')}{path}"


def shown_location(location: str) -> str:
    """A folder or URI without the key and secret that a URI may carry, before its host or in its query."""
    hidden = re.sub(r"://.*@", f"://{HIDDEN}@", location)
    place, mark, query = hidden.partition("?")
    if not mark or "://" not in place:
        return hidden
    options = [option.partition("=")[0::2] for option in query.split("&")]
    return f"{place}?{'&'.join(f'{name}={value if name in S3_OPTIONS else HIDDEN}' for name, value in options)}"


def location_below(location: str, name: str) -> str:
    """The folder `name` within a folder or URI, whose query stays at its end."""
    place, mark, query = location.partition("?") if "://" in location else (location, "", "")
    return f"{place.rstrip('/')}/{name}{mark}{query}"


@contextlib.contextmanager
def storage_errors(path: str, action: str, key: str, missing: str) -> Iterator[None]:
    """Turn an error of the filesystem into one sentence.

    Args:
        path: what it is about.
        action: a participle, what cannot be done.
        key: the setting that chose the path.
        missing: what to do about a file that is not there.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        known = [mend for trouble, mend in _TROUBLES if re.search(trouble, str(error))]
        if known:
            mend = known[0].format(key=key)
        elif isinstance(error, FileNotFoundError) and action == "read":
            mend = f"it does not exist: {missing}"
        else:
            mend = f"{first_line(error)}: check {key}"
        raise StorageError(f"{path} cannot be {action}; {mend}.") from error
