"""The real packaged text encoder: pooling, order, length, meaning."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from sracl_dist.embed.encoder import TextEncoder
from sracl_dist.errors import SetupError
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


def test_long_texts_are_read_in_windows(model: str) -> None:
    """Against the mean over all tokens of both windows, each with its own marks of beginning and end."""
    text = " ".join(["word"] * 20 + ["cat"] * 7)
    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    states = []
    with torch.inference_mode():
        for piece in (ids[:14], ids[14:]):
            states.append(network(torch.tensor([[begin, *piece, end]])).last_hidden_state[0])
    mean = torch.cat(states).mean(dim=0)
    encoder = TextEncoder(model, max_tokens=16, batch_rows=3, in_windows=True)
    vectors = encoder.encode(["short", text, "word " * 20 + "dog " * 7, "short"])
    np.testing.assert_allclose(vectors[1], (mean / mean.norm()).numpy(), atol=1e-5)
    assert vectors[1] @ vectors[2] < 0.99, "the second window counts"
    np.testing.assert_allclose(vectors[0], TextEncoder(model, 16, 1).encode(["short"])[0], atol=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[3], atol=1e-6)


def test_more_tokens_than_the_encoder_reads_are_refused(model: str) -> None:
    with pytest.raises(SetupError, match=r"embed.max_tokens is 513 but .* reads at most 512"):
        TextEncoder(model, max_tokens=513, batch_rows=1)


def test_a_missing_model_is_refused(tmp_path: str) -> None:
    with pytest.raises(SetupError, match="cannot be loaded"):
        TextEncoder(str(tmp_path), max_tokens=8, batch_rows=1)
    with pytest.raises(SetupError, match=r"packaged model nonesuch is unknown; use one of smollm2"):
        resolve_model("package:nonesuch")
