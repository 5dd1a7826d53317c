"""Asking an endpoint: a real server that is slow, broken or strict, the real client, and every prompt answered once."""

import json
import socket
import threading
import time
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from chat_server import MODEL, Behaviour, Response, good, refusal
from endpoint_fixtures import KEY, Serve, ask, prompts, settings

from sracl_dist.columns import ERROR, FINISH_REASON, NUM_OUTPUT_TOKENS, NUM_PROMPT_TOKENS, PROMPT_HASH, TEXT
from sracl_dist.config.sections import EndpointConfig, ProfileConfig
from sracl_dist.errors import SetupError, StageError
from sracl_dist.profiles.endpoint import ask_endpoint

pytestmark = [pytest.mark.timeout(30), pytest.mark.usefixtures("own_environment")]


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
