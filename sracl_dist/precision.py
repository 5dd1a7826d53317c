"""Which number formats a processor multiplies fast."""

import torch


def cpu_multiplies_bfloat16() -> bool:
    """Whether products in bfloat16 are no slower than in float32 on this machine's processor.

    Without AVX-512, or SVE on Arm, a library converts number by number, which makes a product a hundred times as slow.
    """
    return torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "SVE"))


def products_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Format of products under `train.precision`; float32 wherever the processor has nothing else to offer."""
    is_fast = device.type != "cpu" or cpu_multiplies_bfloat16()
    return torch.bfloat16 if precision == "bfloat16" and is_fast else torch.float32
