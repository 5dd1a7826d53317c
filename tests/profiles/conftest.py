"""A small log with texts, and the real tokenizer of the packaged language model."""

from typing import Any

import pytest
from small_texts import item_text, sequences_of

from sracl_dist.profiles.texts import TrainingTexts


@pytest.fixture
def texts() -> TrainingTexts:
    """Six items; the last two items of each history are held out."""
    histories = [[1, 2, 3, 4, 5, 6], [2, 3, 1, 6, 5], [4, 4, 2, 1]]
    return TrainingTexts([item_text(item) for item in range(1, 7)], sequences_of(histories, 6))


@pytest.fixture(scope="session")
def language_model() -> str:
    from sracl_dist.profiles.models import resolve_model

    return resolve_model("package:smollm2-135m-instruct")


@pytest.fixture(scope="session")
def tokenizer(language_model: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(language_model)
