"""profile --trial with a real HTTP server: who is asked, what is kept, what it says and costs."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from chat_server import ChatServer, good
from in_process import connected, map_shards
from small_run import NUM_ITEMS, NUM_USERS, make_project
from word_counter import WordCounter

import sracl_dist
from sracl_dist.cli import run_one
from sracl_dist.config import load_config
from sracl_dist.meter import trial
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES, stage_status

ROOT = Path(sracl_dist.__file__).parent.parent


def load_job() -> ModuleType:
    spec = importlib.util.spec_from_file_location("profile_job", ROOT / "jobs/profile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    def answer(message: str, _: int) -> object:
        if "Cooking Show part 3" in message and "Title:" in message:
            return good("")  # refused
        genre = next((name for name in ("space", "romantic", "courtroom", "cooking") if name in message.lower()), "any")
        return good(f"A {genre} story.\x1b[31m", usage=(100, 10))

    with ChatServer(answer).running() as server:  # type: ignore[arg-type]
        yield server


@pytest.fixture
def project(tmp_path: Path, chat: ChatServer, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, RunFolder]:
    monkeypatch.setattr("sracl_dist.embed.encoder.TextEncoder", WordCounter)
    monkeypatch.setattr("sracl_dist.cluster.cpus_of_nodes", lambda: [2])
    monkeypatch.setattr(trial, "connected", connected)
    monkeypatch.setattr(trial, "map_shards", map_shards)
    path, run = make_project(tmp_path)
    values = yaml.safe_load(path.read_text())
    endpoint = {"url": chat.url, "max_retries": 2, "backoff_s": 0.01, "concurrency": 4}
    endpoint |= {"price_per_million_input_tokens": 2.0, "price_per_million_output_tokens": 10.0}
    values["profile"] |= {"engine": "endpoint", "model": "small", "max_failed_share": 0.5, "endpoint": endpoint}
    path.write_text(yaml.safe_dump(values))
    run_one(STAGES["prepare"], load_config(path), run)
    return path, run


def test_a_trial_of_two_models(
    project: tuple[Path, RunFolder], chat: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = project
    capsys.readouterr()
    job = load_job()
    assert job.main(["--config", str(path), "--trial", "10", "--with", "profile.model=large"]) == 0
    said = capsys.readouterr().err
    asked = {
        model: {body["messages"][-1]["content"] for body in chat.requests if body["model"] == model}
        for model in ("small", "large")
    }
    assert asked["small"] == asked["large"]
    assert 19 <= len(asked["small"]) <= 20, "ten items, and ten users of whom two may have the same prompt"
    lines = {line.split("  ")[0].strip(): line.split() for line in said.splitlines()}
    assert lines["10 items"][2:] == ["chance", "raw", "A", "alone", "A", "and", "raw", "B", "alone", "B", "and", "raw"]
    assert lines["prompt tokens"][2:] == lines["prompt tokens"][2:3] * 2
    assert lines["everything: prompts"][-1] == str(NUM_ITEMS + NUM_USERS)
    assert "B: large, profile.model=large" in said
    assert "\x1b" not in said
    assert "story.\\x1b[31m" in said
    assert "items by " in said
    assert not run.stage("profile").exists("items.parquet")
    assert run.stage("profile").manifest() is None

    num = len(chat.requests)
    assert job.main(["--config", str(path), "--trial", "10", "--with", "profile.model=large"]) == 0
    assert len(chat.requests) == num, "nothing is asked again"
    run_one(STAGES["profile"], load_config(path), run)
    later = [body["messages"][-1]["content"] for body in chat.requests[num:]]
    first = [body["messages"][-1]["content"] for body in chat.requests[:num]]
    assert not [message for message in later if message in first and "Cooking Show part 3" not in message]


def test_what_is_finished_is_finished_afterwards(project: tuple[Path, RunFolder], chat: ChatServer) -> None:
    path, run = project
    config = load_config(path)
    run_one(STAGES["profile"], config, run)
    before = run.stage("profile").manifest()
    table = run.stage("profile").read_bytes("items.parquet")
    num = len(chat.requests)
    assert load_job().main(["--config", str(path), "--trial", "8", "--with", "profile.model=large"]) == 0
    assert {body["model"] for body in chat.requests[num:]} == {"large"}, "the run's own answers are there"
    after = run.stage("profile").manifest()
    assert before is not None
    assert after is not None
    assert (after.fingerprint, after.tables, after.rows) == (before.fingerprint, before.tables, before.rows)
    assert after.sums != before.sums, "there are more answers in the store"
    assert run.stage("profile").read_bytes("items.parquet") == table
    assert stage_status(STAGES["profile"], config, run, thorough=True).done


def test_the_price(project: tuple[Path, RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = project
    capsys.readouterr()
    assert load_job().main(["--config", str(path), "--trial", "10"]) == 0
    lines = {line.split("  ")[0].strip(): line.split() for line in capsys.readouterr().err.splitlines()}
    prompt_tokens, output_tokens = (
        int(lines[name][-1].replace(",", "")) for name in ("prompt tokens", "output tokens")
    )
    assert float(lines["money"][-1]) == pytest.approx((2 * prompt_tokens + 10 * output_tokens) / 1e6, abs=1e-4)
    whole = [int(lines[f"everything: {name} tokens"][-1].replace(",", "")) for name in ("prompt", "output")]
    assert float(lines["everything: money"][-1]) == pytest.approx((2 * whole[0] + 10 * whole[1]) / 1e6, abs=1e-4)
    assert whole[0] > 2 * prompt_tokens


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--trial", "10", "--with", "embed.text=raw"], 1),
        (["--trial", "10", "--with", "profile.modle=x"], 1),
        (["--trial", "10", "--with", "profile.model='x"], 1),
        (["--trial", "2"], 1),
        (["--trial", "0"], 2),
        (["--with", "profile.model=x"], 2),
        (["--trial", "10", "--dry-run"], 2),
    ],
)
def test_what_cannot_be_tried_is_refused(
    project: tuple[Path, RunFolder], chat: ChatServer, arguments: list[str], status: int
) -> None:
    path, _ = project
    try:
        found = load_job().main(["--config", str(path), *arguments])
    except SystemExit as end:
        found = end.code
    assert found == status
    assert not chat.requests
