"""What a finished stage says of itself: what it was made from, with what, and what it holds."""

from dataclasses import asdict, dataclass, field
from typing import Any

from sracl_dist.run_folder.plain import dataclass_from, parse_sealed_json, sealed_json

MANIFEST = "manifest.json"


@dataclass(kw_only=True)
class Manifest:
    """What a finished stage is: what it was made from, with what, and what it holds."""

    stage: str
    fingerprint: str
    """Hash of everything below that can change the result: version, config, external and inputs."""
    version: int
    config: dict[str, Any]
    external: dict[str, str]
    """Facts about things outside the run folder, such as size and time of the log's files."""
    inputs: dict[str, str]
    """Fingerprint of each stage that was read, and the beginning of the digest of its tables."""
    rows: dict[str, int]
    """Rows of each table that was written."""
    details: dict[str, Any] = field(default_factory=dict)
    """Counts and measurements particular to the stage."""
    packages: dict[str, str] = field(default_factory=dict)
    finished_at: str = ""
    wall_s: float = 0.0
    keep: list[str] = field(default_factory=list)
    """Names and folders whose files may be of earlier work."""
    sums: str = ""
    """Digest of all names in sums/."""
    tables: str = ""
    """Digest of the contents of all tables but those in `keep`."""

    @classmethod
    def of(cls, content: bytes) -> "Manifest":
        """The manifest that a file holds.

        Raises:
            ValueError: the file is damaged.
        """
        return dataclass_from(cls, parse_sealed_json(content))

    def to_bytes(self) -> bytes:
        """The content of its file."""
        return sealed_json(asdict(self))
