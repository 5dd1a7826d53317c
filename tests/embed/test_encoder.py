"""The packaged text encoder and tiny ones, against the network's states and arithmetic by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tiny_encoders import TANH, WIDTH, make_encoder
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from sracl_dist.config.sections import EmbedConfig
from sracl_dist.embed.encoder import TextEncoder
from sracl_dist.errors import SetupError, StageError
from sracl_dist.profiles.models import resolve_model

TEXTS = ["one", "a much longer text about five different things", "two words", "", "one"]


@pytest.fixture(scope="module")
def model() -> str:
    return resolve_model("package:all-minilm-l6-v2")


@pytest.fixture(scope="module")
def encoder(model: str) -> TextEncoder:
    return TextEncoder(EmbedConfig(max_tokens=64, batch_rows=2), model)


def encoded(folder: Path, *texts: str, **settings: Any) -> NDArray[np.float32]:
    return TextEncoder(EmbedConfig(max_tokens=32, batch_rows=2, **settings), str(folder)).encode(texts)


@torch.inference_mode()
def states_of(model: str | Path, text: str) -> Tensor:
    """[tokens, width]: what the network says of a text."""
    inputs = AutoTokenizer.from_pretrained(model)(text, return_tensors="pt")
    states: Tensor = AutoModel.from_pretrained(model).eval()(**inputs).last_hidden_state[0]
    return states


def unit(vector: Tensor) -> NDArray[np.float32]:
    numbers: NDArray[np.float32] = (vector / vector.norm()).detach().numpy()
    return numbers


def test_the_packaged_encoder_gives_the_normalised_means_of_token_states(encoder: TextEncoder, model: str) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    for vector, text in zip(vectors, TEXTS, strict=True):
        np.testing.assert_allclose(vector, unit(states_of(model, text).mean(dim=0)), atol=1e-5)
        np.testing.assert_allclose(vector, encoder.encode([text])[0], atol=1e-5)


def test_meaning_is_closer_than_wording(encoder: TextEncoder) -> None:
    shampoo, hair_wash, nail_polish = encoder.encode(["shampoo for curls", "hair wash, curly hair", "red nail polish"])
    assert shampoo @ hair_wash > shampoo @ nail_polish + 0.2


def test_long_texts_are_cut(encoder: TextEncoder) -> None:
    first, second = encoder.encode(["word " * 100 + "cat", "word " * 100 + "dog"])
    np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.parametrize(
    ("pooling", "pooled"),
    [
        ("mean_tokens", lambda states: states.mean(dim=0)),
        ("cls_token", lambda states: states[0]),
        ("max_tokens", lambda states: states.max(dim=0).values),
        ("lasttoken", lambda states: states[-1]),
    ],
)
def test_each_kind_of_pooling(tmp_path: Path, pooling: str, pooled: Any) -> None:
    folder = make_encoder(tmp_path / "model", pooling)
    for vector, text in zip(encoded(folder, *TEXTS), TEXTS, strict=True):
        np.testing.assert_allclose(vector, unit(pooled(states_of(folder, text))), atol=1e-5)


def test_a_folder_without_files_of_the_library_is_pooled_by_the_mean(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "model")
    np.testing.assert_allclose(encoded(folder, "a text")[0], unit(states_of(folder, "a text").mean(dim=0)), atol=1e-5)


def test_a_dense_layer_and_fewer_dimensions(tmp_path: Path) -> None:
    weight, bias = torch.randn(6, WIDTH), torch.randn(6)
    folder = make_encoder(tmp_path / "model", "cls_token", (weight, bias), TANH)
    dense = torch.tanh(weight @ states_of(folder, "a text")[0] + bias)
    np.testing.assert_allclose(encoded(folder, "a text")[0], unit(dense), atol=1e-5)
    np.testing.assert_allclose(encoded(folder, "a text", dimensions=4)[0], unit(dense[:4]), atol=1e-5)
    with pytest.raises(SetupError, match=r"embed\.dimensions is 7 but .* have 6"):
        encoded(folder, "a text", dimensions=7)


def test_prompts(tmp_path: Path) -> None:
    """The model's default one, another, and none."""
    settings = {"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": "passage"}
    folder = make_encoder(tmp_path / "model", "mean_tokens", settings=settings)
    for prompt, text in ((None, "passage: a text"), ("query: ", "query: a text"), ("", "a text")):
        expected = unit(states_of(folder, text).mean(dim=0))
        np.testing.assert_allclose(encoded(folder, "a text", prompt=prompt)[0], expected, atol=1e-5)
    plain = make_encoder(tmp_path / "plain", "mean_tokens")
    assert not np.allclose(encoded(plain, "a text", prompt="query: "), encoded(plain, "a text"), atol=1e-3)


def test_a_zero_vector_remains_zero_and_what_is_not_finite_is_told(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "model", "mean_tokens", (torch.zeros(3, WIDTH), torch.zeros(3)))
    assert encoded(folder, "a text").tolist() == [[0, 0, 0]]
    weights = load_file(folder / "model.safetensors")
    row = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("dog")
    weights["embeddings.word_embeddings.weight"][row] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert encoded(folder, "a cat").tolist() == [[0, 0, 0]]
    with pytest.raises(StageError, match="'a dog'"):
        encoded(folder, "a cat", "a dog", "another cat")


def test_a_text_that_looks_like_a_picture_is_a_text(tmp_path: Path, encoder: TextEncoder, model: str) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"no picture")
    for text in (str(picture), "http://localhost:1/picture.png"):
        expected = unit(states_of(model, text).mean(dim=0))
        np.testing.assert_allclose(encoder.encode([text])[0], expected, atol=1e-5)


def test_more_tokens_than_the_model_has_positions_for_are_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"embed\.max_tokens is 513 but .* reads at most 512"):
        TextEncoder(EmbedConfig(max_tokens=513), model)


def test_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither bars and reports of loading nor the library's remarks about prompts and versions."""
    versions = {"sentence_transformers": "99.0.0"}
    settings = {"prompts": {"query": "query: "}, "default_prompt_name": "query", "__version__": versions}
    encoded(make_encoder(tmp_path / "model", "mean_tokens", settings=settings), *["a text"] * 20)
    assert "".join(capfd.readouterr()) == ""
    assert caplog.records == []
