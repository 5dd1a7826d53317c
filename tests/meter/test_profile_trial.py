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
from sracl_dist.embed import workers
from sracl_dist.errors import StorageError
from sracl_dist.meter import trial, trial_store
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
            return good("I'm sorry, but I can't help with that.", usage=(100, 10))
        genre = next((name for name in ("space", "romantic", "courtroom", "cooking") if name in message.lower()), "any")
        return good(f"A {genre} story.\x1b[31m", usage=(100, 10))

    with ChatServer(answer).running() as server:  # type: ignore[arg-type]
        yield server


@pytest.fixture
def project(tmp_path: Path, chat: ChatServer, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, RunFolder]:
    monkeypatch.setattr("sracl_dist.embed.encoder.TextEncoder", WordCounter)
    monkeypatch.setattr("sracl_dist.cluster.cpus_of_nodes", lambda: [2])
    monkeypatch.setattr(trial, "connected", connected)
    monkeypatch.setattr(workers, "map_shards", map_shards)
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
    assert job.main(["--config", str(path), "--trial", "20", "--with", "profile.model=large"]) == 0
    said = capsys.readouterr().err
    asked = {
        model: {body["messages"][-1]["content"] for body in chat.requests if body["model"] == model}
        for model in ("small", "large")
    }
    assert asked["small"] == asked["large"]
    assert 38 <= len(asked["small"]) <= 40, "20 items, and 20 users of whom two may have the same prompt"
    lines = {line.split("  ")[0].strip(): line.split() for line in said.splitlines()}
    assert lines["20 items"][2:] == ["chance", "raw", "A", "alone", "A", "and", "raw", "B", "alone", "B", "and", "raw"]
    assert lines["prompt tokens asked now"][4:] == lines["prompt tokens asked now"][4:5] * 2
    assert lines["everything: prompts"][-1] == str(NUM_ITEMS + NUM_USERS)
    assert "B: large, profile.model=large" in said
    assert "\x1b" not in said
    assert "story.\\x1b[31m" in said
    assert "items by " in said
    assert not run.stage("profile").files("items/")
    assert run.stage("profile").manifest() is None

    num = len(chat.requests)
    assert job.main(["--config", str(path), "--trial", "20", "--with", "profile.model=large"]) == 0
    again = [body["messages"][-1]["content"] for body in chat.requests[num:]]
    assert all("Cooking Show part 3" in message for message in again), "only what has no usable answer"
    num = len(chat.requests)
    run_one(STAGES["profile"], load_config(path), run)
    later = [body["messages"][-1]["content"] for body in chat.requests[num:]]
    first = [body["messages"][-1]["content"] for body in chat.requests[:num]]
    assert not [message for message in later if message in first and "Cooking Show part 3" not in message]


def test_what_is_finished_is_finished_afterwards(project: tuple[Path, RunFolder], chat: ChatServer) -> None:
    path, run = project
    config = load_config(path)
    run_one(STAGES["profile"], config, run)
    before = run.stage("profile").manifest()
    tables = {name: run.stage("profile").read_bytes(name) for name in run.stage("profile").files("items/")}
    assert tables
    num = len(chat.requests)
    assert load_job().main(["--config", str(path), "--trial", "20", "--with", "profile.model=large"]) == 0
    own = [body["messages"][-1]["content"] for body in chat.requests[num:] if body["model"] == "small"]
    assert all("Cooking Show part 3" in message for message in own), "the run's other answers are there"
    after = run.stage("profile").manifest()
    assert before is not None
    assert after is not None
    assert (after.fingerprint, after.tables, after.rows) == (before.fingerprint, before.tables, before.rows)
    assert after.sums != before.sums, "there are more answers in the store"
    assert {name: run.stage("profile").read_bytes(name) for name in run.stage("profile").files("items/")} == tables
    assert stage_status(STAGES["profile"], config, run, thorough=True).done


def test_a_killed_trial_leaves_the_run_as_it_was(
    project: tuple[Path, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of the asking, as the last thing before a kill: nothing of the folder has changed so far."""
    path, run = project
    config = load_config(path)
    run_one(STAGES["profile"], config, run)
    folder = run.stage("profile")
    before = {name: folder.read_bytes(name) for name in folder.infos()}
    seen = []

    def look(*_: object) -> None:
        seen.append({name: folder.read_bytes(name) for name in folder.infos()})

    monkeypatch.setattr(trial, "keep_answers", look)
    assert load_job().main(["--config", str(path), "--trial", "20", "--with", "profile.model=large"]) == 0
    assert seen == [before]
    assert stage_status(STAGES["profile"], config, run, thorough=True).done


def test_answers_are_kept_when_the_trial_fails(project: tuple[Path, RunFolder], chat: ChatServer) -> None:
    path, run = project
    refused = ["--with", "profile.model=large profile.endpoint.url=http://127.0.0.1:9/v1"]
    assert load_job().main(["--config", str(path), "--trial", "20", *refused]) == 1
    num = len(chat.requests)
    assert num > 0
    assert load_job().main(["--config", str(path), "--trial", "20"]) == 0
    again = [body["messages"][-1]["content"] for body in chat.requests[num:]]
    assert all("Cooking Show part 3" in message for message in again), "only what had no usable answer"
    assert run.stage("profile").manifest() is None


def test_a_run_that_is_being_written_does_not_end_the_trial(
    project: tuple[Path, RunFolder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = project

    def held(*_: object) -> None:
        raise StorageError("another program")

    monkeypatch.setattr(trial_store, "_as_it_is", held)
    assert load_job().main(["--config", str(path), "--trial", "20"]) == 0
    said = capsys.readouterr().err
    assert "another program" in said
    assert "items by " in said


def test_the_price(project: tuple[Path, RunFolder], chat: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Every request has 100 and 10 tokens, those that fail and are asked again too."""
    path, _ = project
    arguments = ["--config", str(path), "--trial", "20", "profile.retries=1", "profile.endpoint.max_retries=0"]
    arguments += ["profile.max_users=21"]
    capsys.readouterr()
    assert load_job().main(arguments) == 0

    def costs() -> dict[str, str]:
        lines = capsys.readouterr().err.splitlines()
        return {line.split("  ")[0].strip(): line.split()[-1].replace(",", "") for line in lines if line.strip()}

    lines, num = costs(), len(chat.requests)
    prompts = [body["messages"][-1]["content"] for body in chat.requests]
    assert num > len(set(prompts)), "a refused one is asked twice"
    assert int(lines["prompt tokens asked now"]) == 100 * num
    assert int(lines["output tokens asked now"]) == 10 * num
    assert float(lines["money for what was asked now"]) == pytest.approx(num * (200 + 100) / 1e6, abs=1e-4)
    assert int(lines["everything: prompts"]) == NUM_ITEMS + 21
    everything = [int(lines[f"everything: {name} tokens"]) for name in ("prompt", "output")]
    assert everything[0] == 10 * everything[1]
    num_twice = num - len(set(prompts))
    assert everything[0] == 100 * (NUM_ITEMS + num_twice + 21), "all items are in the sample"
    assert float(lines["everything: money"]) == pytest.approx(everything[0] * 3e-6, abs=1e-4)
    assert load_job().main([*arguments, "profile.max_attempts=1"]) == 0
    again = costs()
    assert len(chat.requests) == num
    assert (again["prompt tokens asked now"], float(again["money for what was asked now"])) == ("0", 0)
    assert again["everything: prompt tokens"] == lines["everything: prompt tokens"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--trial", "20", "--with", "embed.text=raw"], 1),
        (["--trial", "20", "--with", "profile.modle=x"], 1),
        (["--trial", "20", "--with", "profile.model='x"], 1),
        (["--trial", "19"], 1),
        (["--trial", "10001"], 1),
        (["--trial", "0"], 2),
        (["--with", "profile.model=x"], 2),
        (["--trial", "20", "--dry-run"], 2),
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
