"""The stage profile with an endpoint: what is asked again and what is not, and a key that is seen nowhere."""

import base64
import json
import logging
import threading
import urllib.parse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from chat_server import MODEL, ChatServer, Response, good, refusal
from endpoint_fixtures import KEY, Serve, ask, settings
from small_run import NUM_ITEMS, NUM_USERS, small_config, write_log

from sracl_dist.columns import ERROR, NUM_PROMPT_TOKENS, TEXT
from sracl_dist.errors import SetupError, StageError, StorageError
from sracl_dist.profiles.store import AnswerStore
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES, run_stage, stage_status

pytestmark = [pytest.mark.timeout(30), pytest.mark.usefixtures("own_environment")]


def prepared(folder: Path, server: ChatServer, *overrides: str) -> tuple[Any, RunFolder]:
    write_log(folder)
    config = small_config(
        folder,
        "profile.engine=endpoint",
        f"profile.model={MODEL}",
        f"profile.endpoint.url={server.url}",
        "profile.endpoint.backoff_s=0.01",
        "profile.endpoint.max_retries=1",
        "profile.retries=0",
        "profile.max_prompt_tokens=320",  # with room for whole histories
        *overrides,
    )
    run = RunFolder(config.run.dir)
    run_stage(STAGES["prepare"], config, run, stage_status(STAGES["prepare"], config, run).draft)
    return config, run


def profile(config: Any, run: RunFolder) -> Any:
    return run_stage(STAGES["profile"], config, run, stage_status(STAGES["profile"], config, run).draft)


def written(folder: Path) -> str:
    """Every byte of the files, and every cell of the tables, which are compressed."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    tables = [json.dumps(pq.read_table(file).to_pylist(), default=str) for file in files if file.suffix == ".parquet"]
    return "\n".join([*(file.read_bytes().decode("latin-1") for file in files), *tables])


def test_the_stage_asks_only_what_failed_when_it_runs_again(tmp_path: Path, serve: Serve) -> None:
    is_mended = threading.Event()

    def behaviour(message: str, attempt: int) -> Response:
        fails = "Title: Space Opera" in message and not is_mended.is_set()
        return refusal(400, "no space") if fails else good(f"Answer {len(message)}")

    server = serve(behaviour)
    config, run = prepared(tmp_path, server)
    with pytest.raises(
        StageError, match=r"of 44 prompts have no answer \(5 times: the endpoint answers 400: no space\)"
    ):
        profile(config, run)
    first = server.asked()
    distinct = len(set(first))
    assert len(first) == distinct == NUM_ITEMS + NUM_USERS - 1, "users 0 and 1 have one prompt between them"

    is_mended.set()
    result = profile(config, run)
    again = server.asked()[distinct:]
    assert len(again) == result.details["num_generated"] == 5
    assert all("Title: Space Opera" in message for message in again)
    assert (result.rows, result.details["num_failed"]) == ({"items": NUM_ITEMS, "users": NUM_USERS}, 0)
    table = run.stage("profile").read_shards("items/")
    assert table[ERROR].null_count == NUM_ITEMS
    assert set(table[NUM_PROMPT_TOKENS].to_pylist()) == {7}, "counted by the server"
    assert set(table["model"].to_pylist()) == {MODEL}
    assert "This is" not in again[0], "the first words of an answer cannot be forced on an endpoint"

    assert profile(config, run).details["num_generated"] == 0
    assert len(server.asked()) == distinct + 5


def test_a_refusal_is_asked_again_and_a_thought_cut_off(tmp_path: Path, serve: Serve) -> None:
    def behaviour(message: str, attempt: int) -> Response:
        if "Title: Space Opera" in message:
            return good("I'm sorry, but I can't." if attempt == 0 else "A journey among stars.")
        if "Title: Cooking" in message:
            return good("<think>Hm, what to say", "length") if attempt == 0 else good("<think>Hm.</think>A good meal.")
        return good("A profile.")

    server = serve(behaviour)
    config, run = prepared(tmp_path, server, "profile.retries=1", "data.item_kind=shows", "profile.max_users=0")
    details = profile(config, run).details
    assert (details["num_retried"], details["num_failed"]) == (10, 0)
    table = run.stage("profile").read_shards("items/", [TEXT])
    assert sorted(set(table[TEXT].to_pylist())) == ["A good meal.", "A journey among stars.", "A profile."]
    assert all(" shows " in body["messages"][0]["content"] for body in server.requests)
    room = {body["max_tokens"] for body in server.requests if "Title: Cooking" in body["messages"][-1]["content"]}
    assert room == {12, 24}, "a thought that was cut may be longer"


def test_a_full_disk_ends_the_asking(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(lambda *_: replace(good(), wait_s=0.02))
    config, run = prepared(tmp_path, server, "profile.commit_interval_s=0.01", "profile.endpoint.concurrency=1")

    def full(*_: Any) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(AnswerStore, "commit", full)
    with pytest.raises(StorageError, match="the disk is full"):
        profile(config, run)
    assert "background-rows" not in [thread.name for thread in threading.enumerate()]
    assert len(server.asked()) < NUM_ITEMS


def test_the_key_is_sent_and_seen_nowhere(
    tmp_path: Path,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SRACL_API_KEY", KEY + "\n")
    caplog.set_level(logging.DEBUG)

    def behaviour(message: str, attempt: int) -> Response:
        if "Title: Space Opera" in message:
            return refusal(400, "x" * 280 + f" your key {KEY} is odd")
        return refusal(500, f"{KEY} is busy") if "Title: Cooking" in message else good(f"You sent {KEY}, did you?", KEY)

    server = serve(behaviour)
    config, run = prepared(tmp_path, server, "profile.max_failed_share=1.0")
    profile(config, run)
    assert set(server.authorizations) == {f"Bearer {KEY}"}
    everything = "\n".join([written(tmp_path), *capfd.readouterr(), caplog.text])
    assert KEY[:12] not in everything
    assert "You sent ***, did you?" in everything
    assert '"profile.model": "served-model"' in everything, "the manifest was looked at"

    for response in (refusal(401, f"{KEY} is wrong"), refusal(429, KEY, **{"Retry-After": "9999"}), refusal(404, KEY)):
        server.behaviour = lambda *_, response=response: response  # type: ignore[misc]
        with pytest.raises((SetupError, StageError)) as caught:
            profile(small_config(tmp_path, *overrides_of(config), "profile.temperature=0.5"), run)
        assert KEY not in str(caught.getrepr(style="long"))
        assert KEY not in written(tmp_path)


DISGUISES = {
    "as it is": KEY,
    "upper case": KEY.upper(),
    "reversed": KEY[::-1],
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 of the header": base64.b64encode(f"Bearer {KEY}".encode()).decode(),
    "base64 for URLs, without padding": base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("="),
    "URL": urllib.parse.quote(KEY, safe=""),
    "hexadecimal": KEY.encode().hex(),
}


def test_a_key_in_disguise_is_seen_nowhere(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SRACL_API_KEY", KEY)
    everything = " ".join(DISGUISES.values())

    def behaviour(message: str, attempt: int) -> Response:
        if "Title: Space Opera" in message:
            return refusal(400, f"odd key {everything}")
        return refusal(500, everything) if "Title: Cooking" in message else good(f"You sent {everything}", everything)

    server = serve(behaviour)
    config, run = prepared(tmp_path, server, "profile.max_failed_share=1.0")
    profile(config, run)
    said = []
    for status in (400, 401, 402, 403, 404, 407, 429, 500):
        for shown in (everything, *DISGUISES.values()):
            body = json.dumps({"error": {"message": f"bad {shown}", "code": shown, "type": shown.lower()}})
            server.behaviour = lambda *_, body=body, status=status: Response(status, body)  # type: ignore[misc]
            try:
                said.append(str(ask(3, settings(server, max_failures_in_a_row=1, max_retries=0))))
            except (SetupError, StageError) as error:
                said.append(str(error))
    seen = "\n".join([written(tmp_path), *capfd.readouterr(), *said])
    assert "You sent *** ***" in seen
    for name, shown in DISGUISES.items():
        length = 12  # no such piece of it either
        pieces = [shown[start : start + length] for start in range(len(shown) - length + 1)]
        pieces = [piece for piece in pieces if "Bearer" not in name or piece not in shown[: length + 9]]
        assert not [piece for piece in pieces if piece in seen], name


def overrides_of(config: Any) -> list[str]:
    url = config.profile.endpoint.url
    return ["profile.engine=endpoint", f"profile.model={MODEL}", f"profile.endpoint.url={url}"]
