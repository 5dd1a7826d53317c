import pytest
import torch

from sracl_dist import precision
from sracl_dist.precision import cpu_multiplies_bfloat16, products_dtype

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("capability", "is_fast"),
    [("AVX512", True), ("AVX512_VNNI", True), ("SVE256", True), ("AVX2", False), ("NO AVX", False), ("DEFAULT", False)],
)
def test_bfloat16_is_for_processors_that_multiply_it(
    monkeypatch: pytest.MonkeyPatch, capability: str, is_fast: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert cpu_multiplies_bfloat16() == is_fast
    assert products_dtype("bfloat16", CPU) == (torch.bfloat16 if is_fast else torch.float32)


@pytest.mark.parametrize("is_fast", [True, False])
def test_a_gpu_does_not_ask_the_processor(monkeypatch: pytest.MonkeyPatch, is_fast: bool) -> None:
    monkeypatch.setattr(precision, "cpu_multiplies_bfloat16", lambda: is_fast)
    assert products_dtype("bfloat16", GPU) == torch.bfloat16
    assert products_dtype("float32", GPU) == products_dtype("float32", CPU) == torch.float32
