"""What is there of memory, from files written by hand and of this machine."""

from pathlib import Path

import pytest
import torch

from sracl_dist.train import available as module
from sracl_dist.train.available import ControlGroup, available_bytes, device_bytes


@pytest.mark.parametrize(
    ("limit", "expected"), [("max", 8_000), ("5000000", 5_000 - 4_000 + 2_500), ("9000000000", 8_000)]
)
@pytest.mark.parametrize("version", [1, 2])
def test_what_is_there_is_the_rest_of_the_machine_or_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int, version: int
) -> None:
    """In units of 1,000 bytes; of kilobytes of /proc, each is 1,024.

    The container uses 4,000, of which 2,500 are pages of files; 700 of files in memory are among the rest.
    """
    meminfo, status = tmp_path / "meminfo", tmp_path / "status"
    meminfo.write_text("MemTotal: 99999 kB\nMemAvailable:    7812 kB\n")
    status.write_text("Name: x\nVmRSS:\t  900 kB\nRssAnon:\t  0 kB\nRssFile:\t  900 kB\n")
    (tmp_path / "limit").write_text(f"{limit}\n")
    (tmp_path / "used").write_text("4000000\n")
    of_files = {"inactive_file": 2_000_000, "active_file": 500_000, "shmem": 700_000, "inactive_anon": 900_000}
    lines = [f"{name} {value}" for name, value in of_files.items()]
    if version == 1:  # of the group itself, and of those below it as well
        lines = [*(f"{name} 7" for name in of_files), *(f"total_{line}" for line in lines)]
    (tmp_path / "statistics").write_text("\n".join(lines) + "\n")
    places = {name: tmp_path / name for name in ("limit", "used", "statistics")}
    names = next(group.files for group in module.CGROUPS if ("total_" in group.files[0]) == (version == 1))
    groups = (ControlGroup(**places, files=names), ControlGroup(**{**places, "limit": tmp_path / "no"}, files=()))
    monkeypatch.setattr(module, "MEMINFO", meminfo)
    monkeypatch.setattr(module, "STATUS", status)
    monkeypatch.setattr(module, "CGROUPS", groups)
    assert available_bytes() // 1000 == pytest.approx(expected, abs=1)


def test_this_machine_is_read() -> None:
    assert available_bytes() > 10**8
    assert device_bytes(torch.device("cpu")) is None
