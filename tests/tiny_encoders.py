"""Tiny text encoders with random weights, in the files that sentence-transformers writes."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import BertConfig, BertModel

from sracl_dist.profiles.models import resolve_model

WIDTH = 8
MODULES = "sentence_transformers.models"
IDENTITY = "torch.nn.modules.linear.Identity"
TANH = "torch.nn.modules.activation.Tanh"


def make_encoder(
    folder: Path,
    pooling: str | None = None,
    dense: tuple[Tensor, Tensor] | None = None,
    activation: str = IDENTITY,
    settings: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
) -> Path:
    """A BERT of one layer with the packaged model's tokenizer, and what its authors would add to it.

    Args:
        folder: where it goes.
        pooling: its kind; without one there is nothing of sentence-transformers.
        dense: weights [out, in] and bias [out] of a layer behind the pooling, followed by a normalisation.
        activation: of that layer.
        settings: of the whole model, such as prompts.
        options: of the transformer module.
    """
    torch.manual_seed(7)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=30522, max_position_embeddings=64, **sizes)).save_pretrained(folder)
    for path in Path(resolve_model("package:all-minilm-l6-v2")).glob("*"):
        if path.name.startswith("tokenizer") or path.name == "vocab.txt":
            shutil.copy(path, folder)
    if pooling is None:
        return folder
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": WIDTH, f"pooling_mode_{pooling}": True})
    if dense is not None:
        weight, bias = dense
        modules += [("2_Dense", "Dense"), ("3_Normalize", "Normalize")]
        own = {"in_features": WIDTH, "out_features": len(bias), "bias": True, "activation_function": activation}
        write_json(folder / "2_Dense/config.json", own)
        save_file({"linear.weight": weight, "linear.bias": bias}, folder / "2_Dense/model.safetensors")
    write_modules(folder, [(path, f"{MODULES}.{kind}") for path, kind in modules])
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False} | (options or {}))
    write_json(folder / "config_sentence_transformers.json", settings or {})
    return folder


def write_modules(folder: Path, modules: list[tuple[str, str]]) -> None:
    """List modules as path and class."""
    listed = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (path, kind) in enumerate(modules)]
    write_json(folder / "modules.json", listed)


def write_json(path: Path, content: Any) -> None:
    """Write a file of a model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
