"""Folders of models: none runs code of its own, and what cannot be loaded is told."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_encoders import make_encoder
from transformers import BertModel

from sracl_dist.config.sections import EmbedConfig, ProfileConfig
from sracl_dist.embed.encoder import TextEncoder
from sracl_dist.errors import SetupError
from sracl_dist.profiles.engine import engine_settings
from sracl_dist.profiles.models import resolve_model

CODE = """
open({mark!r}, "w").close()
from transformers import PretrainedConfig, PreTrainedModel
class OwnConfig(PretrainedConfig):
    model_type = "own"
class OwnModel(PreTrainedModel):
    pass
"""
LOAD = """
import sys
from sracl_dist.config.sections import EmbedConfig, ProfileConfig
from sracl_dist.errors import SetupError
from sracl_dist.embed.encoder import TextEncoder
from sracl_dist.profiles.language_model import model_and_tokenizer
settings = ProfileConfig(model=sys.argv[1], max_prompt_tokens=16, max_output_tokens=8)
encoder = EmbedConfig(max_tokens=8)
for load in (lambda: TextEncoder(encoder, sys.argv[1]), lambda: model_and_tokenizer(settings)):
    try:
        load()
    except SetupError as error:
        print("refused:", error, flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_encoder(tmp_path / "model")


def add_code(folder: Path, **settings: str) -> Path:
    """Let the model's configuration refer to code next to it; returns the file that this code would write."""
    mark = folder.parent / "mark"
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    classes = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel", "AutoModelForCausalLM": "own.OwnModel"}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": classes} | settings))
    return mark


def on_terminal(*command: str) -> str:
    """What a program writes to a terminal, at which nobody types."""
    ours, theirs = pty.openpty()
    program = subprocess.Popen([sys.executable, *command], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 4096):
            written += part
    except OSError:  # how the end of the other side is told
        pass
    finally:
        program.wait(60)
        os.close(ours)
    return written.decode()


def test_a_model_that_needs_code_of_its_own_is_refused_and_nobody_is_asked(folder: Path) -> None:
    mark = add_code(folder, model_type="own")
    written = on_terminal("-c", LOAD, str(folder))
    assert not mark.exists()
    assert "[y/N]" not in written
    refusals = [line for line in written.splitlines() if line.startswith("refused:")]
    assert ["code of its own" in line and str(folder) in line for line in refusals] == [True, True]
    assert "embed.model" in refusals[0]
    assert "profile.model" in refusals[1]


def test_code_next_to_a_model_that_is_known_is_left_alone(folder: Path) -> None:
    mark = add_code(folder)
    assert TextEncoder(EmbedConfig(max_tokens=8), str(folder)).encode(["a text"]).shape == (1, 8)
    assert not mark.exists()


def test_pickled_weights_are_not_read(folder: Path) -> None:
    torch.save(BertModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SetupError, match=f"{folder} .*safetensors"):
        resolve_model(str(folder))
    with pytest.raises(SetupError, match=f"{folder} .*safetensors"):
        TextEncoder(EmbedConfig(max_tokens=8), str(folder))


def test_the_engine_reads_no_pickled_weights_and_runs_no_code() -> None:
    for num_gpus in (0, 1):
        settings = engine_settings(ProfileConfig(), num_gpus)
        assert settings["trust_remote_code"] is False
        assert settings["load_format"] == "safetensors"


def test_damaged_weights_are_told(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(SetupError, match=r"cannot be loaded .*embed\.model"):
        TextEncoder(EmbedConfig(max_tokens=8), str(folder))


def test_a_folder_whose_name_is_not_utf8_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = folder.rename(folder.parent / os.fsdecode(b"b\xff"))
    monkeypatch.chdir(odd.parent)
    with pytest.raises(SetupError, match="not UTF-8"):
        resolve_model(odd.name)
