"""How many floating point operations a piece of work asks for, as PyTorch's counter sees its matrix products."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def count_operations(work: Callable[[], object]) -> int:
    """Multiplications and additions of all matrix products and attentions that the work runs, also backwards."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    # The counter knows the attentions of a GPU only.
    unknown_to_it: dict[Any, Any] = {attention: _attention, backward: _attention_backward}
    with FlopCounterMode(display=False, custom_mapping=unknown_to_it) as counter:
        work()
    return int(counter.get_total_flops())


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
    return sdpa_backward_flop_count(gradient, query, key, value)
