"""What a server sends back, and what follows from it: an answer, another attempt, a failed row, or the end."""

import email.utils
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sracl_dist.errors import first_line
from sracl_dist.secrets import HIDDEN, without

MAX_ERROR_CHARS = 300
MAX_INT32 = 2**31 - 1
RETRIED_STATUSES = (408, 409, 425, 429)
"""Besides all from 500: what another attempt may mend."""
FINAL_STATUSES = (401, 402, 403, 404, 407)
"""What is wrong with every prompt: key, credit, rights, model or address, or the rights at a proxy."""
KEY_STATUSES = (401, 403, 407)
"""Bodies of these may tell of the key in ways that nobody can foresee, so only their code is ever shown."""


class AttemptError(Exception):
    """A request without an answer.

    Args:
        reason: half a sentence for the row's error.
        may_retry: whether another attempt may mend it.
        retry_after_s: how long the server asks to wait.
        finish_reason: why the server ended the answer, where that left none.
        unreached: whether no connection came about.
        is_outage: whether it speaks of the server's state and not of the prompt.
    """

    def __init__(
        self,
        reason: str,
        *,
        may_retry: bool,
        retry_after_s: float | None = None,
        finish_reason: str | None = None,
        unreached: bool = False,
        is_outage: bool = False,
    ) -> None:
        super().__init__(reason)
        self.may_retry, self.retry_after_s = may_retry, retry_after_s
        self.finish_reason, self.unreached, self.is_outage = finish_reason, unreached, is_outage


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer with the server's own counts, where it gives them."""

    text: str
    finish_reason: str | None
    num_prompt_tokens: int | None
    num_output_tokens: int | None


def read_reply(body: str) -> Reply:
    """The answer in the body of a response with status 200.

    Raises:
        AttemptError: there is none.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise AttemptError("the response is not JSON", may_retry=True, is_outage=True) from None
    choice = _first_choice(content)
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    finish_reason = choice.get("finish_reason")
    if not isinstance(text, str) or not text.strip():
        # What the server ended for a reason of its own, it ends again: thoughts up to the limit, a filter.
        if finish_reason in ("length", "content_filter"):
            why = f"the answer is empty (finish_reason {finish_reason})"
            raise AttemptError(why, may_retry=False, finish_reason=finish_reason)
        raise AttemptError("the answer is empty", may_retry=True)
    usage = content.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Reply(
        text=text.strip(),
        finish_reason=finish_reason if isinstance(finish_reason, str) else None,
        num_prompt_tokens=_count(counts.get("prompt_tokens")),
        num_output_tokens=_count(counts.get("completion_tokens")),
    )


def _first_choice(content: Any) -> dict[str, Any]:
    choices = content.get("choices") if isinstance(content, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise AttemptError("the response has no choices", may_retry=True)
    return choices[0]


def _count(value: Any) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INT32
    return value if is_count else None


def attempt_error(status: int, body: str, headers: Mapping[str, str]) -> AttemptError:
    """What a status that is no success means for the prompt."""
    reason = f"the endpoint answers {status}: {server_reason(body)}"
    if status >= 500 or status in RETRIED_STATUSES:
        return AttemptError(reason, may_retry=True, retry_after_s=retry_after_s(headers), is_outage=True)
    return AttemptError(reason, may_retry=False)


def is_out_of_credit(status: int, body: str) -> bool:
    """Whether the account has nothing left to pay with, which OpenAI says with the status of a rate limit."""
    return status == 402 or (status == 429 and "insufficient_quota" in body)


def server_reason(body: str) -> str:
    """The first line of the server's own words, from the places where servers put them."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return _whole_first_line(body)
    while isinstance(content, dict):
        content = next((content[name] for name in ("error", "message", "detail") if content.get(name)), None)
    return _whole_first_line(content or "")


def _whole_first_line(content: object) -> str:
    """Not cut: half a key could not be recognized any more."""
    text = str(content).strip()
    return first_line(Exception(text), max_chars=len(text)) if text else "without a reason"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds from the header Retry-After, which holds seconds or a date; None where it has neither."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if seconds < float("inf") else None


def cleaned(text: str, key: str) -> str:
    """Fit for a table: without the key, should the server repeat or disguise it, and without half surrogate pairs.

    A key that is too short for a secret, such as the `none` of a local server, is a word that answers may hold.
    """
    return without(text, key).encode("utf-8", "replace").decode()


def cleaned_error(text: str, key: str) -> str:
    """The same for an error, which is cut only behind that; here even a short key is taken out."""
    return cleaned(text.replace(key, HIDDEN) if key else text, key)[:MAX_ERROR_CHARS]


def error_code(body: str, key: str) -> str | None:
    """The server's code for an error, such as invalid_api_key, where it is one short word without the key."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    fields = content if isinstance(content, dict) else {}
    inner = fields.get("error")
    places = [inner if isinstance(inner, dict) else {}, fields]
    words = [str(place.get(name)) for place in places for name in ("code", "type") if place.get(name)]
    codes = [word for word in words if re.fullmatch(r"[a-z0-9_-]{1,40}", word) and cleaned_error(word, key) == word]
    return codes[0] if codes else None
