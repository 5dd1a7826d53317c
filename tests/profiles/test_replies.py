"""What is read out of a server's headers and errors."""

import email.utils
import time

import pytest

from sracl_dist.profiles.replies import cleaned, cleaned_error, error_code, retry_after_s, server_reason


@pytest.mark.parametrize(
    ("value", "expected"),
    [("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("", None), ("soon", None), ("inf", None), ("nan", None), ("1e999", None)],
)
def test_seconds_to_wait(value: str, expected: float | None) -> None:
    assert retry_after_s({"retry-after": value}) == expected
    assert retry_after_s({}) is None


def test_a_date_to_wait_for() -> None:
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert retry_after_s({"retry-after": in_a_minute}) == pytest.approx(60, abs=2)
    assert retry_after_s({"retry-after": email.utils.formatdate(0, usegmt=True)}) == 0.0


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"error": {"message": "too long", "type": "x"}}', "too long"),
        ('{"error": "too long"}', "too long"),
        ('{"message": "too long"}', "too long"),
        ('{"detail": [{"msg": "too long"}]}', "[{'msg': 'too long'}]"),
        ('{"error": {"code": 7}}', "without a reason"),
        ("too long.\nmore", "too long"),
        ("null", "without a reason"),
        (" ", "without a reason"),
    ],
)
def test_the_servers_own_words(body: str, reason: str) -> None:
    assert server_reason(body) == reason


def test_a_key_is_taken_out_before_an_error_is_cut() -> None:
    key = "sk-0123456789"
    for num in range(280, 300):
        assert "sk-" not in cleaned_error("x" * num + key, key)
    assert server_reason("x" * 1000 + key).endswith(key), "cut only behind that"


def test_a_short_key_stays_in_answers_and_not_in_errors() -> None:
    assert cleaned("none of them", "none") == "none of them"
    assert cleaned_error("none is wrong", "none") == "*** is wrong"
    assert cleaned_error("fine", "") == "fine"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('{"error": {"code": "invalid_api_key", "type": "x"}}', "invalid_api_key"),
        ('{"error": {"code": null, "type": "authentication_error"}}', "authentication_error"),
        ('{"error": {"code": {}, "type": 7}}', "7"),
        ('{"error": "no", "code": "denied"}', "denied"),
        ('{"error": {"code": "sk-0123456789"}}', None),
        ('{"error": {"code": "key_9876543210-ks"}}', None),
        ('{"error": {"code": "c2stmdeymzq1njc4oq", "type": "c2stMDEyMzQ1Njc4OQ"}}', None),
        ('{"error": {"code": "your key is bad"}}', None),
        ('{"error": {"code": "%s"}}' % ("a" * 41), None),
        ('{"error": ["code"]}', None),
        ("[" * 100_000, None),
        ("denied", None),
    ],
)
def test_the_code_of_an_error(body: str, code: str | None) -> None:
    assert error_code(body, "sk-0123456789") == code
