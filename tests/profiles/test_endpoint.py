"""Asking an endpoint: a real server that is slow, broken or strict, the real client, and every prompt answered once."""

import base64
import contextlib
import json
import logging
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chat_server import MODEL, Behaviour, ChatServer, Response, good, refusal
from small_run import NUM_ITEMS, NUM_USERS, small_config, write_log

from sracl_dist.columns import ERROR, FINISH_REASON, NUM_OUTPUT_TOKENS, NUM_PROMPT_TOKENS, PROMPT_HASH, TEXT
from sracl_dist.config.sections import EndpointConfig, ProfileConfig
from sracl_dist.errors import SetupError, StageError, StorageError
from sracl_dist.profiles.answers import ANSWERS
from sracl_dist.profiles.endpoint import ask_endpoint
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.profiles.store import AnswerStore
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES, run_stage, stage_status

pytestmark = pytest.mark.timeout(30)

KEY = "sk-never/to+be=seen-0123456789"
Serve = Callable[[Behaviour], ChatServer]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    monkeypatch.delenv("SRACL_API_KEY", raising=False)


@pytest.fixture
def serve() -> Iterator[Serve]:
    with contextlib.ExitStack() as stack:
        yield lambda behaviour: stack.enter_context(ChatServer(behaviour).running())


def settings(server: ChatServer, **endpoint: Any) -> ProfileConfig:
    """Patient enough for every test, and quick."""
    values = {"concurrency": 4, "backoff_s": 0.01, "max_backoff_s": 0.05, "max_retries": 3, "timeout_s": 10.0}
    return ProfileConfig(
        engine="endpoint", model=MODEL, endpoint=EndpointConfig(url=server.url, **{**values, **endpoint})
    )


def prompts(num: int) -> list[Prompt]:
    system = {"role": "system", "content": "Describe."}
    return [
        Prompt("users", key, [], f"hash {key}", messages=(system, {"role": "user", "content": f"question {key}"}))
        for key in range(num)
    ]


def ask(num: int, config: ProfileConfig) -> dict[str, dict[str, Any]]:
    """Rows by the last word of their hash; refuses doubled ones."""
    tables = list(ask_endpoint(prompts(num), config))
    assert all(table.schema == ANSWERS for table in tables)
    rows = pa.concat_tables(tables).to_pylist()
    by_key = {row[PROMPT_HASH].removeprefix("hash "): row for row in rows}
    assert sorted(by_key, key=int) == [str(key) for key in range(num)], "every prompt has a row"
    assert len(by_key) == len(rows), "and only one"
    for row in rows:
        assert (row[TEXT] is None) != (row[ERROR] is None), row
    return by_key


def bad_at_first(bad: Response, num_bad: int = 1) -> Behaviour:
    """Question 1 is answered badly before it is answered well; the others are fine."""
    return lambda message, attempt: bad if message == "question 1" and attempt < num_bad else good(f"About {message}")


def test_good_answers(serve: Serve) -> None:
    server = serve(lambda message, _: good(f"  About {message}\n", "length" if message.endswith("2") else "stop"))
    rows = ask(5, settings(server))
    assert rows["3"] == {
        PROMPT_HASH: "hash 3",
        TEXT: "About question 3",
        FINISH_REASON: "stop",
        NUM_PROMPT_TOKENS: 7,
        NUM_OUTPUT_TOKENS: 3,
        ERROR: None,
    }
    assert rows["2"][FINISH_REASON] == "length"
    assert sorted(server.asked()) == [f"question {key}" for key in range(5)]
    asked = next(body for body in server.requests if body["messages"][-1]["content"] == "question 3")
    assert asked == {
        "model": MODEL,
        "messages": [{"role": "system", "content": "Describe."}, {"role": "user", "content": "question 3"}],
        "temperature": 0.0,
        "max_tokens": 128,
    }


def test_a_further_attempt_is_sampled_in_another_way(serve: Serve) -> None:
    server = serve(lambda *_: good())
    again = replace(prompts(1)[0], attempt=2, wants_room=True)
    for fields in ([], ["temperature=0.1", "max_tokens=null"]):
        list(ask_endpoint([again], settings(server, request_fields=fields)))
    assert [body["temperature"] for body in server.requests] == [0.7, 0.1]
    assert [body.get("max_tokens") for body in server.requests] == [256, None], "what is named stays as it is"


def test_more_fields_and_fewer(serve: Serve) -> None:
    server = serve(lambda *_: good())
    config = settings(
        server, request_fields=["temperature=null", "max_tokens=null", 'limits={"words": 9}', "top_p=0.5"]
    )
    config.stop = [". "]
    ask(1, config)
    assert {name: value for name, value in server.requests[0].items() if name != "messages"} == {
        "model": MODEL,
        "stop": [". "],
        "limits": {"words": 9},
        "top_p": 0.5,
    }


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ([], {"enable_thinking": False, "effort": "low"}),
        (['chat_template_kwargs={"effort": "high", "x": 1}'], {"enable_thinking": False, "effort": "high", "x": 1}),
        (["chat_template_kwargs=null"], None),
    ],
)
def test_options_of_the_chat_template_are_sent(serve: Serve, fields: list[str], sent: Any) -> None:
    server = serve(lambda *_: good())
    config = settings(server, request_fields=fields)
    config.chat_options = ["enable_thinking=false", 'effort="low"']
    ask(1, config)
    assert server.requests[0].get("chat_template_kwargs") == sent


@pytest.mark.parametrize(
    "bad",
    [
        refusal(500, "oops"),
        refusal(503, "busy"),
        refusal(429, "slow down"),
        Response(200, good("x" * 1000).body, is_cut=True),
        Response(500, "x" * 1000, is_cut=True),
        Response(200, "<html>Bad gateway</html>"),
        Response(200, ""),
        Response(200, "{}"),
        Response(200, "[1]"),
        Response(200, "[" * 100_000),
        Response(200, '{"choices": []}'),
        Response(200, '{"choices": [null]}'),
        Response(200, '{"choices": [{"message": {"content": null}}]}'),
        Response(200, '{"choices": [{"message": {"content": [{"text": "x"}]}}]}'),
        good("  \n"),
    ],
    ids=range(15),
)
def test_what_another_attempt_mends(bad: Response, serve: Serve) -> None:
    server = serve(bad_at_first(bad, 2))
    rows = ask(4, settings(server))
    assert {key: row[TEXT] for key, row in rows.items()} == {str(key): f"About question {key}" for key in range(4)}
    assert server.asked().count("question 1") == 3
    assert len(server.asked()) == 6


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (refusal(500, "oops"), "the endpoint answers 500: oops"),
        (Response(500, "<p>oops</p>\nmore"), "the endpoint answers 500: <p>oops</p>"),
        (Response(500, '{"detail": ""}'), "the endpoint answers 500: without a reason"),
        (Response(200, "<html>"), "the response is not JSON"),
        (Response(200, "{}"), "the response has no choices"),
        (good(""), "the answer is empty"),
        (Response(200, good("x" * 1000).body, is_cut=True), "the connection broke ("),
    ],
)
def test_attempts_end(bad: Response, error: str, serve: Serve) -> None:
    server = serve(bad_at_first(bad, 99))
    rows = ask(4, settings(server))
    assert rows["1"][ERROR].startswith(error)
    assert [row[ERROR] is None for row in rows.values()].count(True) == 3
    assert server.asked().count("question 1") == 4, "one attempt and profile.endpoint.max_retries more"


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (refusal(400, "maximum context length is 8 tokens"), "answers 400: maximum context length is 8 tokens"),
        (Response(422, '{"detail": "extra fields"}'), "answers 422: extra fields"),
        (good("", "length"), "the answer is empty (finish_reason length)"),
        (good("", "content_filter"), "the answer is empty (finish_reason content_filter)"),
    ],
)
def test_what_no_attempt_mends_fails_at_once(bad: Response, error: str, serve: Serve) -> None:
    server = serve(bad_at_first(bad, 99))
    rows = ask(4, settings(server))
    assert rows["1"][ERROR].endswith(error)
    assert rows["1"][FINISH_REASON] == (json.loads(bad.body).get("choices") or [{}])[0].get("finish_reason")
    assert len(server.asked()) == 4


@pytest.mark.parametrize("patience", [{"wait_s": 20}, {"drip_s": 0.2}], ids=["silent", "dripping"])
def test_a_server_that_hangs_is_given_up(patience: dict[str, float], serve: Serve) -> None:
    server = serve(bad_at_first(replace(good(), **patience), 99))
    started = time.monotonic()
    rows = ask(4, settings(server, timeout_s=0.4, max_retries=1))
    assert rows["1"][ERROR] == "no answer within profile.endpoint.timeout_s=0.4"
    assert time.monotonic() - started < 5
    assert server.asked().count("question 1") == 2


def test_retry_after_is_respected_by_all(serve: Serve) -> None:
    server = serve(bad_at_first(refusal(429, "slow down", **{"Retry-After": "1"})))
    rows = ask(40, settings(server, concurrency=1))
    assert not any(row[ERROR] for row in rows.values())
    refused = server.asked().index("question 1")
    assert server.times[refused + 1] - server.times[refused] >= 1.0


def test_too_long_a_wait_stops_the_stage(serve: Serve) -> None:
    server = serve(bad_at_first(refusal(429, "tomorrow", **{"Retry-After": "86400"})))
    with pytest.raises(StageError, match=r"asks to wait 86400 s, longer than profile.endpoint.max_retry_after_s=600"):
        ask(4, settings(server))


def test_no_more_requests_in_flight_than_wanted(serve: Serve) -> None:
    slow = replace(good(), wait_s=0.02)
    server = serve(lambda *_: slow)
    ask(40, settings(server, concurrency=5))
    assert server.most_in_flight == 5


def test_requests_per_minute(serve: Serve) -> None:
    server = serve(bad_at_first(refusal(500, "oops"), 2))
    ask(6, settings(server, requests_per_minute=600))
    gaps = [after - before for before, after in zip(server.times, server.times[1:], strict=False)]
    assert len(gaps) == 7, "retries count"
    assert server.times[-1] - server.times[0] >= 7 * 0.1 - 0.03
    assert sum(gap < 0.05 for gap in gaps) <= 1, "evenly spaced, up to the noise of one arrival"


@pytest.mark.parametrize(
    ("response", "kind", "message"),
    [
        (refusal(401, "bad key"), SetupError, r"refuses the key \(401\); set the environment variable MY_KEY"),
        (refusal(403, "not yours"), SetupError, r"refuses the key \(403\); set"),
        (
            Response(401, '{"error": {"message": "bad key", "code": "invalid_api_key"}}'),
            SetupError,
            r"refuses the key \(401: invalid_api_key\)",
        ),
        (Response(403, '{"type": "not for you"}'), SetupError, r"refuses the key \(403\)"),
        (refusal(407, "who?"), SetupError, r"The proxy before the endpoint \S+ refuses the request \(407\); put"),
        (
            refusal(404, "no model"),
            SetupError,
            r"does not know the model served-model or the address \(404: no model\)",
        ),
        (
            Response(307, "", {"Location": "http://elsewhere.example/v1"}),
            SetupError,
            r"redirects to http://elsewhere\.example/v1 \(307\)",
        ),
        (Response(302, ""), SetupError, r"\(302\), which is not followed"),
        (refusal(402, "pay"), StageError, r"has no credit \(402: pay\); top it up"),
        (
            Response(429, '{"error": {"message": "You exceeded", "code": "insufficient_quota"}}'),
            StageError,
            r"has no credit \(429: You exceeded\)",
        ),
    ],
)
def test_what_is_wrong_with_every_prompt_stops_the_stage(
    response: Response, kind: type[Exception], message: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    server = serve(lambda *_: response)
    with pytest.raises(kind, match=message):
        ask(100, settings(server, key_variable="MY_KEY"))
    assert len(server.asked()) <= 4, "no more than were in flight"


def test_a_proxy_may_be_named_without_http(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(lambda *_: good())
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HTTP_PROXY", settings(server).endpoint.url.split("/")[2])
    config = ProfileConfig(engine="endpoint", model=MODEL, endpoint=EndpointConfig(url="http://model.example/v1"))
    assert all(row[ERROR] is None for row in ask(3, config).values())
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(SetupError, match="socks5"):
        ask(3, config)


def test_answers_before_the_end_are_handed_over(serve: Serve) -> None:
    server = serve(lambda message, _: good() if message < "question 5" else refusal(401, "key expired"))
    received: list[pa.Table] = []
    with pytest.raises(SetupError, match="refuses requests without a key"):
        received.extend(ask_endpoint(prompts(9), settings(server, concurrency=1)))
    assert sum(table.num_rows for table in received) == 5


def test_a_server_that_cannot_be_reached_stops_the_stage() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but nobody listens
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        config = ProfileConfig(engine="endpoint", model=MODEL, endpoint=EndpointConfig(url=url, backoff_s=0.01))
        with pytest.raises(SetupError, match=rf"The endpoint {url} cannot be reached \(.+\); start it, or mend"):
            ask(50, config)


def test_an_outage_stops_the_stage_and_scattered_failures_do_not(serve: Serve) -> None:
    down = serve(lambda message, _: good() if message == "question 0" else refusal(500, "down"))
    with pytest.raises(StageError, match=r"failed 6 prompts in a row, the last because the endpoint answers 500: down"):
        ask(50, settings(down, max_failures_in_a_row=6, max_retries=0, concurrency=1))
    assert len(down.asked()) == 7
    scattered = serve(lambda message, _: refusal(500, "down") if int(message[9:]) % 6 else good())
    rows = ask(50, settings(scattered, max_failures_in_a_row=6, max_retries=0, concurrency=1))
    assert sum(row[ERROR] is not None for row in rows.values()) == 41
    refused = serve(lambda *_: refusal(400, "too long"))
    rows = ask(20, settings(refused, max_failures_in_a_row=6, max_retries=0, concurrency=1))
    assert len(rows) == 20, "a server that refuses prompts is not down"
    assert {row[FINISH_REASON] for row in rows.values()} == {None}


def test_a_reader_that_stops_ends_the_asking(serve: Serve) -> None:
    slow = replace(good(), wait_s=0.01)
    server = serve(lambda *_: slow)
    answers = ask_endpoint(prompts(500), settings(server))
    next(answers)
    answers.close()
    assert "background-rows" not in [thread.name for thread in threading.enumerate()]
    asked = len(server.asked())
    time.sleep(0.2)
    assert len(server.asked()) == asked < 500


def test_a_reader_that_is_slow_slows_the_asking(serve: Serve) -> None:
    server = serve(lambda *_: good())
    answers = ask_endpoint(prompts(500), settings(server, concurrency=2))
    next(answers)
    time.sleep(0.5)
    assert len(server.asked()) <= 12, "the rows read, 2 x 2 that wait, and 2 in hand"
    rest = sum(table.num_rows for table in answers)
    assert rest > 480


def test_odd_counts_and_characters_are_no_trouble(serve: Serve) -> None:
    odd: dict[str, Response] = {
        "question 0": good("caf\u00e9 \U0001f600", usage=None),
        "question 1": good("half \ud83d of a pair", usage=(2**40, -1)),
        "question 2": good("x", usage=("7", True)),
        "question 3": refusal(400, "half \ud83d of a pair"),
    }
    rows = ask(4, settings(serve(lambda message, _: odd[message])))
    assert [rows[key][TEXT] for key in "0123"] == ["caf\u00e9 \U0001f600", "half ? of a pair", "x", None]
    assert rows["3"][ERROR].endswith("half ? of a pair")
    assert all(rows[key][NUM_PROMPT_TOKENS] is None and rows[key][NUM_OUTPUT_TOKENS] is None for key in "0123")


def test_without_a_key_none_is_sent(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(lambda *_: good())
    ask(1, settings(server))
    monkeypatch.setenv("SRACL_API_KEY", "")
    ask(1, settings(server))
    monkeypatch.delenv("OPENAI_API_KEY")
    ask(1, settings(server))
    assert server.authorizations == [None, None, None], "least of all the key of another service"


def test_a_key_that_cannot_be_sent_is_refused_unseen(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(lambda *_: good())
    monkeypatch.setenv("SRACL_API_KEY", "two words")
    with pytest.raises(SetupError, match="SRACL_API_KEY holds characters") as caught:
        ask(1, settings(server))
    assert "two words" not in str(caught.value)


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
