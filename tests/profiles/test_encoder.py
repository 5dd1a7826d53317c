"""The real packaged text encoder: pooling, order, length, meaning."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from sracl_dist.errors import SetupError
from sracl_dist.profiles.encoder import TextEncoder
from sracl_dist.profiles.models import resolve_model


@pytest.fixture(scope="module")
def model() -> str:
    return resolve_model("package:all-minilm-l6-v2")


@pytest.fixture(scope="module")
def encoder(model: str) -> TextEncoder:
    return TextEncoder(model, max_tokens=64, batch_rows=2)


def test_vectors_are_the_normalised_means_of_token_states(encoder: TextEncoder, model: str) -> None:
    text = "A shampoo for dry hair"
    inputs = AutoTokenizer.from_pretrained(model)(text, return_tensors="pt")
    with torch.inference_mode():
        mean = AutoModel.from_pretrained(model).eval()(**inputs).last_hidden_state[0].mean(dim=0)
    expected = (mean / mean.norm()).numpy()
    np.testing.assert_allclose(encoder.encode([text])[0], expected, atol=1e-5)


def test_order_and_company_do_not_matter(encoder: TextEncoder) -> None:
    texts = ["one", "a much longer text about five different things", "two words", "", "one"]
    vectors = encoder.encode(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for row, text in enumerate(texts):
        np.testing.assert_allclose(vectors[row], encoder.encode([text])[0], atol=1e-5)


def test_meaning_is_closer_than_wording(encoder: TextEncoder) -> None:
    shampoo, hair_wash, nail_polish = encoder.encode(["shampoo for curls", "hair wash, curly hair", "red nail polish"])
    assert shampoo @ hair_wash > shampoo @ nail_polish + 0.2


def test_long_texts_are_cut(encoder: TextEncoder) -> None:
    first, second = encoder.encode(["word " * 100 + "cat", "word " * 100 + "dog"])
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_more_tokens_than_the_encoder_reads_are_refused(model: str) -> None:
    with pytest.raises(SetupError, match=r"embed.max_tokens is 513 but .* reads at most 512"):
        TextEncoder(model, max_tokens=513, batch_rows=1)


def test_a_missing_model_is_refused(tmp_path: str) -> None:
    with pytest.raises(SetupError, match="cannot be loaded"):
        TextEncoder(str(tmp_path), max_tokens=8, batch_rows=1)
    with pytest.raises(SetupError, match=r"packaged model nonesuch is unknown; use one of smollm2"):
        resolve_model("package:nonesuch")
