"""How an endpoint is asked: where, with which key, how fast, and how patiently."""

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from sracl_dist.config.sections.fields import named_values, neutral, require, require_named_values

MAX_CONCURRENCY = 1000
"""Connections that the client keeps open at most."""
MAX_WAIT_S = 86_400.0
PRICES = ("price_per_million_input_tokens", "price_per_million_output_tokens")
MAX_PRICE = 1e6
OWN_FIELDS = ("model", "messages", "stream", "n")
"""Fields of a request that only the program sets."""


@dataclass(kw_only=True)
class EndpointConfig:
    """profile.engine=endpoint: a server that speaks OpenAI's chat completions answers the prompts."""

    url: str | None = neutral(None)
    """Address of the server up to /chat/completions, for example http://localhost:8000/v1."""
    key_variable: str = neutral("SRACL_API_KEY")
    """Environment variable with the key; requests carry none where it is not set. The key is never written anywhere."""
    request_fields: list[str] = field(default_factory=list)
    """More fields of every request as NAME=JSON, for example [top_p=0.9]; NAME=null leaves out one that is sent by
    default (temperature, max_tokens, stop)."""
    concurrency: int = neutral(16)
    """Requests in flight at most."""
    requests_per_minute: float | None = neutral(None)
    """Requests that are started in a minute at most, evenly spaced, retries included; null: no limit."""
    timeout_s: float = neutral(120.0)
    """A request without its whole answer after this time is given up and asked again."""
    max_retries: int = neutral(8)
    """How often a prompt is asked again after 429, 5xx, a timeout, a broken connection or an unusable answer."""
    backoff_s: float = neutral(1.0)
    """Wait before the first retry; it doubles with every further one and is shortened by up to half, at random."""
    max_backoff_s: float = neutral(60.0)
    """Longest such wait."""
    max_retry_after_s: float = neutral(600.0)
    """Longest wait that the server may ask for (Retry-After); the stage stops when it asks for more."""
    max_failures_in_a_row: int | None = neutral(100)
    """The stage stops when so many prompts in a row have no answer, as when a server is down; null: never."""

    price_per_million_input_tokens: float | None = neutral(None)
    """What the provider charges per million tokens of prompts, in any currency, for --trial; null: no price is told."""
    price_per_million_output_tokens: float | None = neutral(None)
    """The same for answers."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        self._check_place()
        require_named_values(self.request_fields, _key("request_fields"), OWN_FIELDS, example='top_p=0.9 or user="me"')
        self._check_prices()
        concurrency = f"use 1 to {MAX_CONCURRENCY}"
        require(1 <= self.concurrency <= MAX_CONCURRENCY, _key("concurrency"), self.concurrency, concurrency)
        for name in ("timeout_s", "backoff_s", "max_backoff_s", "max_retry_after_s"):
            value = getattr(self, name)
            require(0 < value <= MAX_WAIT_S, _key(name), value, f"use seconds above 0, up to {MAX_WAIT_S:.0f}")
        pace = self.requests_per_minute
        in_reach = pace is None or 0.01 <= pace <= 1e6
        require(in_reach, _key("requests_per_minute"), pace, "use 0.01 to 1000000, or null for no limit")
        require(self.max_retries >= 0, _key("max_retries"), self.max_retries, "use 0 or more")
        failures = self.max_failures_in_a_row
        require(failures is None or failures >= 1, _key("max_failures_in_a_row"), failures, "use 1 or more, or null")

    @property
    def longest_wait_s(self) -> float:
        """How long no answer may arrive although all is well."""
        between_s = 60 / self.requests_per_minute if self.requests_per_minute else 0.0
        return max(self.timeout_s, self.max_retry_after_s, self.max_backoff_s, between_s)

    def fields_to_add(self) -> dict[str, Any]:
        """`request_fields` as names and values; a value of None takes the field out."""
        return named_values(self.request_fields)

    def _check_place(self) -> None:
        # A key that was written here by mistake must not reach a log through the refusal.
        is_name = re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.key_variable) is not None
        mend = "name an environment variable in capitals, such as SRACL_API_KEY, and put the key into it"
        require(is_name, _key("key_variable"), "***", mend)
        if self.url is None:
            return
        problem = _problem_of(self.url)
        shown = re.sub(r"[?#].*$", "?***", re.sub(r"^.*@", "***@", self.url, flags=re.DOTALL), flags=re.DOTALL)
        require(problem is None, _key("url"), shown, problem or "")

    def _check_prices(self) -> None:
        prices = {name: getattr(self, name) for name in PRICES}
        for name, price in prices.items():
            possible = price is None or 0 <= price <= MAX_PRICE
            require(possible, _key(name), price, f"use 0 to {MAX_PRICE:.0f}, or null")
            both = (price is None) == (self.price_per_million_input_tokens is None)
            require(both, _key(name), price, f"set both or neither of {' and '.join(PRICES)}")


def _key(name: str) -> str:
    return f"profile.endpoint.{name}"


def _problem_of(url: str) -> str | None:
    """What to do about a URL that cannot be used, or None."""
    example = "for example http://localhost:8000/v1"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return f"use a valid http or https URL, {example}"
    if "@" in parts.netloc:
        return "leave user and password out of it and put the key into the variable of profile.endpoint.key_variable"
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", url):
        return f"use an http or https URL, {example}"
    if parts.query or parts.fragment:
        return f"leave out what begins with ? or #, {example}"
    if parts.path.rstrip("/").endswith("/chat/completions"):
        return f"leave out /chat/completions, {example}"
    return None
