"""What a model's folder could make the library do, and how it is refused before anything is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_encoders import MODULES, WIDTH, make_encoder, write_json, write_modules

from sracl_dist.config.sections import EmbedConfig
from sracl_dist.embed.encoder import TextEncoder
from sracl_dist.errors import SetupError
from sracl_dist.profiles.models import resolve_model

DENSE = (torch.zeros(3, WIDTH), torch.zeros(3))


def load(folder: Path | str) -> TextEncoder:
    return TextEncoder(EmbedConfig(max_tokens=16), str(folder))


@pytest.mark.parametrize(
    "kind",
    [
        "own.Pooling",
        "os.system",
        f"{MODULES}.own.Router",
        "sentence_transformers.base.modules.Router",
        "sentence_transformers.models.Pooling.evil",
        "sentence_transformersX.models.Pooling",
    ],
)
def test_other_modules_are_refused_before_they_are_imported(tmp_path: Path, kind: str) -> None:
    folder = make_encoder(tmp_path / "model", "mean_tokens")
    mark = tmp_path / "mark"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Pooling: pass\n")
    write_modules(folder, [("", f"{MODULES}.Transformer"), ("1_Pooling", kind)])
    with pytest.raises(SetupError, match=rf"{folder} .*'{kind}'"):
        load(folder)
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["sentence_transformers.sentence_transformer.modules.Pooling", f"{MODULES}.Pooling"])
def test_old_and_new_names_of_the_modules(tmp_path: Path, kind: str) -> None:
    folder = make_encoder(tmp_path / "model", "mean_tokens")
    write_modules(folder, [("", f"{MODULES}.Transformer"), ("1_Pooling", kind)])
    assert load(folder).encode(["a text"]).shape == (1, WIDTH)


def test_pickled_weights_of_a_module_are_refused(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "model", "mean_tokens", DENSE)
    (folder / "2_Dense/model.safetensors").rename(tmp_path / "kept")
    torch.save({"linear.weight": DENSE[0], "linear.bias": DENSE[1]}, folder / "2_Dense/pytorch_model.bin")
    with pytest.raises(SetupError, match=rf"{folder} .*2_Dense/pytorch_model\.bin"):
        load(folder)
    (tmp_path / "kept").rename(folder / "2_Dense/model.safetensors")
    assert load(folder).encode(["a text"]).shape == (1, 3)


@pytest.mark.parametrize("other", ["adapter.safetensors", "pytorch_model-1.safetensors"])
@pytest.mark.parametrize("module", ["", "2_Dense"])
def test_other_safetensors_do_not_hide_pickled_weights(tmp_path: Path, module: str, other: str) -> None:
    """The library looks for model.safetensors only, and then reads pytorch_model.bin."""
    folder = make_encoder(tmp_path / "model", "mean_tokens", DENSE)
    (folder / module / "model.safetensors").rename(folder / module / other)
    torch.save({"linear.weight": DENSE[0], "linear.bias": DENSE[1]}, folder / module / "pytorch_model.bin")
    with pytest.raises(SetupError, match=rf"{folder} .*{module or 'model'}/{other}"):
        load(folder)


def test_pickled_weights_of_a_plain_model_are_refused(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(SetupError, match=rf"{folder} .*model/pytorch_model\.bin"):
        load(folder)


def test_an_index_that_names_pickled_weights_is_refused(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "model", "mean_tokens")
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"embeddings": "pytorch_model.bin"}})
    with pytest.raises(SetupError, match=rf"{folder} .*'pytorch_model\.bin'.*model\.safetensors\.index\.json"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_args", {"use_safetensors": False}),
        ("processor_kwargs", {"padding_side": "left"}),
        ("tokenizer_name_or_path", "other/model"),
        ("transformer_task", "any-to-any"),
        ("modality_config", {"text": {"method": "save_pretrained", "method_output_name": None}}),
    ],
)
def test_arguments_for_other_libraries_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    folder = make_encoder(tmp_path / "model", "mean_tokens", options={name: value})
    with pytest.raises(SetupError, match=rf"{folder} .*{name}.*sentence_bert_config\.json"):
        load(folder)


def test_known_options_are_taken(tmp_path: Path) -> None:
    text = {"method": "forward", "method_output_name": "last_hidden_state"}
    options = {"transformer_task": "feature-extraction", "modality_config": {"text": text}, "model_args": {}}
    options["module_output_name"] = "token_embeddings"
    assert load(make_encoder(tmp_path / "model", "mean_tokens", options=options)).encode(["a"]).shape == (1, WIDTH)


def test_an_activation_from_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "model", "mean_tokens", DENSE, activation="own.Activation")
    with pytest.raises(SetupError, match=r"activation_function .*'own\.Activation'"):
        load(folder)


def test_adapters_and_models_of_other_kinds_are_refused(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "model", "mean_tokens", settings={"model_type": "SparseEncoder"})
    with pytest.raises(SetupError, match="'SparseEncoder'"):
        load(folder)
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "other/model"})
    with pytest.raises(SetupError, match="adapter"):
        load(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("modules.json", {}),
        ("modules.json", [{"idx": 0}]),
        ("modules.json", ["a"]),
        ("modules.json", [{"type": f"{MODULES}.Transformer", "path": "../elsewhere", "name": "0"}]),
        ("sentence_bert_config.json", []),
        ("1_Pooling/config.json", {"word_embedding_dimension": WIDTH, "pooling_mode": "nonesuch"}),
        ("config_sentence_transformers.json", {"requirements": {"transformers": ">=1000"}}),
    ],
)
def test_files_that_are_not_what_they_should_be_are_reported(tmp_path: Path, file: str, content: Any) -> None:
    folder = make_encoder(tmp_path / "model", "mean_tokens")
    write_json(folder / file, content)
    with pytest.raises(SetupError, match=rf"{folder} cannot be loaded .*embed\.model"):
        load(folder)


def test_a_missing_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match="cannot be loaded"):
        load(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SetupError, match=r"nobody/nothing cannot be loaded"):
        load("nobody/nothing")
    with pytest.raises(SetupError, match=r"packaged model nonesuch is unknown; use one of smollm2"):
        resolve_model("package:nonesuch")
