"""The files of a text encoder: fetched without code and pickled weights, and inspected before anything is loaded.

sentence-transformers builds a model from what its files name: classes, weights in several formats, arguments of other
libraries, methods to call. Only what is known to be harmless gets that far.
"""

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import snapshot_download

from sracl_dist.errors import SetupError, brief

FETCHED = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors")
NOT_FETCHED = ("onnx/*", "openvino/*")
MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
OWN_TYPE = "SentenceTransformer"
KNOWN_MODULE = re.compile(
    r"sentence_transformers\.(models|base\.modules|sentence_transformer\.modules)(\.[a-z_]+)?"
    r"\.(Transformer|Pooling|Dense|LayerNorm|Dropout|Normalize)"
)
KNOWN_ACTIVATION = re.compile(r"torch\.nn\.modules\.(activation\.[A-Za-z0-9]+|linear\.Identity)")
READ_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""Where these are missing, the library reads pickled weights, whatever other safetensors lie there."""
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
KNOWN_OPTIONS = {"max_seq_length", "do_lower_case", "unpad_inputs", "module_output_name"}
"""Of a Transformer module, whatever their values."""


def fetched_folder(model: str) -> Path:
    """The folder of a model, which is fetched where the model is a Hugging Face id.

    Raises:
        OSError, ValueError: it cannot be fetched; what the library raises.
    """
    if Path(model).is_dir():
        return Path(model)
    return Path(snapshot_download(model, allow_patterns=list(FETCHED), ignore_patterns=list(NOT_FETCHED)))


def require_harmless(folder: Path, model: str) -> None:
    """Refuse what would run code that comes with the model, read pickled weights, or load other models.

    Args:
        folder: the model's files.
        model: as it was configured, for messages.

    Raises:
        SetupError: names the file and what is wrong with it.
        OSError, ValueError: a file cannot be read or is not what it should be.
    """
    if (folder / "adapter_config.json").exists():
        raise SetupError(f"The model {model} is an adapter of another model; merge them and set embed.model to that.")
    settings = _read(folder / SETTINGS, dict)
    if (kind := settings.get("model_type", OWN_TYPE)) != OWN_TYPE:
        raise SetupError(f"The model {model} is a {brief(kind)}, no {OWN_TYPE}; set embed.model to another one.")
    _require_safetensors(folder, model)  # also where no modules are named
    for module in _read(folder / MODULES, list):
        kind, path = str(module["type"]), PurePosixPath(str(module["path"]))
        if not KNOWN_MODULE.fullmatch(kind):
            raise SetupError(
                f"The model {model} has a module {brief(kind)}, which is not one of sentence-transformers' own that "
                f"are read, and code that comes with a model is not run; set embed.model to another one."
            )
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{MODULES} names the path {brief(str(path))}")
        _require_harmless_module(folder / path, kind.rpartition(".")[2], model)


def _require_harmless_module(folder: Path, kind: str, model: str) -> None:
    _require_safetensors(folder, model)
    if kind == "Dense":
        activation = _read(folder / "config.json", dict).get("activation_function", "torch.nn.modules.linear.Identity")
        if not KNOWN_ACTIVATION.fullmatch(str(activation)):
            raise _refused(model, "config.json", "activation_function", activation)
    if kind == "Transformer":
        for path in sorted(folder.glob("sentence_*_config.json")):
            for name, value in _read(path, dict).items():
                if value and not _is_known_option(name, value):
                    raise _refused(model, path.name, name, value)


def _require_safetensors(folder: Path, model: str) -> None:
    """Refuse a folder with weights from which the library would not read safetensors."""
    files = sorted(path.name for path in folder.glob("*") if path.is_file())
    weights = [name for name in files if name.endswith((".safetensors", *PICKLED)) or name in READ_WEIGHTS]
    if weights and not set(READ_WEIGHTS) & set(weights):
        raise SetupError(
            f"The model {model} has weights in {folder.name}/{weights[0]} and none in {READ_WEIGHTS[0]}, so that "
            f"pickled weights would be read, which may run code; convert them, or set embed.model to another one."
        )
    for name in dict(_read(folder / READ_WEIGHTS[1], dict).get("weight_map", {})).values():
        if not str(name).endswith(".safetensors"):
            raise _refused(model, READ_WEIGHTS[1], "weight_map", name)


def _is_known_option(name: str, value: Any) -> bool:
    if name == "transformer_task":
        return bool(value == "feature-extraction")
    if name == "modality_config":  # methods that the library calls by their names
        return all(isinstance(part, dict) and part.get("method") == "forward" for part in dict(value).values())
    return name in KNOWN_OPTIONS


def _refused(model: str, file: str, name: str, value: object) -> SetupError:
    return SetupError(
        f"The model {model} sets {name} to {brief(value)} in {file}, which is not known to be harmless; take the entry "
        f"out if the model works without it, or set embed.model to another one."
    )


def _read(path: Path, kind: type) -> Any:
    """What a JSON file of the model holds; nothing where there is none."""
    if not path.exists():
        return kind()
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, kind):
        raise ValueError(f"{path.name} holds no {kind.__name__}")
    return content
