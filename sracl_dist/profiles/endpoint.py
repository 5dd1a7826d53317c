"""The only file that speaks HTTP: from prompts to the answers of an OpenAI-compatible endpoint.

`profile.endpoint.concurrency` requests are in flight in the background; a slow reader slows the asking down, and a
reader that stops ends it.
"""

import asyncio
import json
import os
import random
import urllib.parse
import urllib.request
from collections.abc import Generator, Iterator, Mapping
from functools import cached_property
from typing import Any, Protocol

import aiohttp
import pyarrow as pa

from sracl_dist.columns import ERROR, FINISH_REASON, NUM_OUTPUT_TOKENS, NUM_PROMPT_TOKENS, PROMPT_HASH, TEXT
from sracl_dist.config.sections import EndpointConfig, ProfileConfig
from sracl_dist.errors import SetupError, StageError, first_line
from sracl_dist.profiles.answers import ANSWERS, UNAVAILABLE
from sracl_dist.profiles.attempts import sampling_of
from sracl_dist.profiles.background import BackgroundRows, Put, Row
from sracl_dist.profiles.chat import request_fields
from sracl_dist.profiles.pace import Pace
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.profiles.replies import (
    FINAL_STATUSES,
    KEY_STATUSES,
    AttemptError,
    Reply,
    attempt_error,
    cleaned,
    cleaned_error,
    error_code,
    is_out_of_credit,
    read_reply,
    server_reason,
)
from sracl_dist.secrets import declare

CONNECT_TIMEOUT_S = 10.0
JSON = {"Content-Type": "application/json"}
UNREACHED_RETRIES = 2
"""Further attempts to reach a server that has never answered, before the stage ends."""
UNREACHED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class Prompts(Protocol):
    """Prompts that are gone through once."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Prompt]: ...


def ask_endpoint(prompts: Prompts, config: ProfileConfig) -> Generator[pa.Table, None, None]:
    """Send the prompts to the endpoint; yields small tables of `ANSWERS` as they finish.

    A prompt that fails becomes a row with `error` and without `text`; it never stops the others.

    Raises:
        SetupError: the endpoint cannot be reached, or refuses the key or the model.
        StageError: it cannot go on: no credit, too long a wait, or too many failures in a row.
    """
    asker = _Asker(prompts, config, _read_key(config.endpoint))
    answers = BackgroundRows(asker.ask_all, max_waiting_rows=2 * config.endpoint.concurrency)
    try:
        for rows in answers.batches():
            yield pa.Table.from_pylist(rows, schema=ANSWERS)
    finally:
        answers.stop()


def _read_key(config: EndpointConfig) -> str:
    """The key from the environment, empty where there is none; from now on it is shown nowhere."""
    declare(config.key_variable)
    key = os.environ.get(config.key_variable, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise SetupError(
            f"The environment variable {config.key_variable} holds characters that no key has (spaces, line breaks or "
            f"others outside ASCII); set it to the key alone."
        )
    return key


class _Asker:
    """Asks every prompt until there is an answer or a reason to give it up."""

    def __init__(self, prompts: Prompts, config: ProfileConfig, key: str) -> None:
        self._prompts, self._config, self._settings, self._key = prompts, config, config.endpoint, key
        self._same_fields, self._added = request_fields(config), self._settings.fields_to_add()
        self._reached = False
        self._failures_in_a_row = 0

    async def ask_all(self, put: Put) -> None:
        """Put a row for every prompt, in the order in which they finish."""
        self._pace = Pace(self._settings.requests_per_minute)
        waiting = iter(self._prompts)
        async with self._connect() as client:

            async def work() -> None:
                for prompt in waiting:
                    row = await self._row(client, prompt)
                    await put(row)
                    self._refuse_outage(row)

            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._settings.concurrency, len(self._prompts))):
                    group.create_task(work())

    def _connect(self) -> aiohttp.ClientSession:
        connect_s = min(self._settings.timeout_s / 2, CONNECT_TIMEOUT_S)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the number of tasks is the limit
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s),
        )

    async def _row(self, client: aiohttp.ClientSession, prompt: Prompt) -> Row:
        row: Row = dict.fromkeys(ANSWERS.names) | {PROMPT_HASH: prompt.prompt_hash}
        try:
            reply = await self._ask(client, prompt)
        except AttemptError as failure:
            reason = UNAVAILABLE if failure.is_outage else failure.finish_reason
            return row | {ERROR: cleaned_error(str(failure), self._key), FINISH_REASON: reason}
        return row | {
            TEXT: cleaned(reply.text, self._key),
            FINISH_REASON: reply.finish_reason and cleaned(reply.finish_reason, self._key),
            NUM_PROMPT_TOKENS: reply.num_prompt_tokens,
            NUM_OUTPUT_TOKENS: reply.num_output_tokens,
        }

    async def _ask(self, client: aiohttp.ClientSession, prompt: Prompt) -> Reply:
        """As many attempts as it takes and the settings allow."""
        attempt = 0
        while True:
            await self._pace.turn()
            try:
                return await self._ask_once(client, prompt)
            except AttemptError as failure:
                self._refuse_unreached(failure, attempt)
                if not failure.may_retry or attempt >= self._settings.max_retries:
                    raise
                wait_s = self._wait_s(failure, attempt)
            attempt += 1
            await asyncio.sleep(wait_s)

    async def _ask_once(self, client: aiohttp.ClientSession, prompt: Prompt) -> Reply:
        headers: Mapping[str, str]
        try:
            async with (
                asyncio.timeout(self._settings.timeout_s),
                client.post(
                    self._address, data=self._body(prompt), headers=JSON, proxy=self._proxy, allow_redirects=False
                ) as response,
            ):
                self._reached = True
                status, headers = response.status, response.headers
                body = (await response.read()).decode("utf-8", "replace")
        except aiohttp.ClientHttpProxyError as error:
            self._reached = True
            status, headers, body = error.status, error.headers or {}, error.message
        except (TimeoutError, aiohttp.ClientError) as error:
            raise self._broken(error) from None
        if status == 200:
            return read_reply(body)
        self._refuse_redirect(status, headers)
        self._refuse_final(status, body)
        raise attempt_error(status, body, headers)

    @cached_property
    def _address(self) -> str:
        return f"{(self._settings.url or '').rstrip('/')}/chat/completions"

    @cached_property
    def _proxy(self) -> str | None:
        """The one that the environment names for the endpoint, as HTTPS_PROXY, HTTP_PROXY and NO_PROXY do."""
        parts = urllib.parse.urlsplit(self._address)
        proxies = urllib.request.getproxies()
        if urllib.request.proxy_bypass(parts.hostname or ""):
            return None
        proxy = proxies.get(parts.scheme, proxies.get("all"))
        if proxy and "://" not in proxy:
            return f"http://{proxy}"
        if proxy and not proxy.startswith(("http://", "https://")):
            raise SetupError(
                f"The environment names a proxy of the kind {proxy.partition('://')[0]}, which cannot be used; set "
                f"HTTP_PROXY or HTTPS_PROXY to one that speaks http, or put the endpoint's host into NO_PROXY."
            )
        return proxy

    def _body(self, prompt: Prompt) -> bytes:
        return json.dumps({**self._fields(prompt), "messages": prompt.messages}).encode()

    def _fields(self, prompt: Prompt) -> dict[str, Any]:
        """Those of every request; a prompt that has failed before is sampled in another way."""
        sampling = sampling_of(prompt, self._config)
        own = {"temperature": sampling.temperature, "max_tokens": sampling.max_output_tokens}
        return {**self._same_fields, **{name: value for name, value in own.items() if name not in self._added}}

    def _broken(self, error: Exception) -> AttemptError:
        """A request to which no whole response came."""
        unreached = isinstance(error, UNREACHED)
        self._reached = self._reached or not unreached
        if isinstance(error, TimeoutError) and not unreached:
            return AttemptError(
                f"no answer within profile.endpoint.timeout_s={self._settings.timeout_s}",
                may_retry=True,
                is_outage=True,
            )
        return AttemptError(
            f"the connection broke ({first_line(error)})", may_retry=True, unreached=unreached, is_outage=True
        )

    def _wait_s(self, failure: AttemptError, attempt: int) -> float:
        """How long this prompt rests; what the server asks for holds for the others too."""
        settings = self._settings
        backoff_s = min(settings.backoff_s * 2.0 ** min(attempt, 60), settings.max_backoff_s)
        shortened_s = backoff_s * random.uniform(0.5, 1)
        asked_s = failure.retry_after_s
        if not asked_s:
            return shortened_s
        if asked_s > settings.max_retry_after_s:
            raise StageError(
                f"The endpoint {settings.url} asks to wait {asked_s:.0f} s, longer than "
                f"profile.endpoint.max_retry_after_s={settings.max_retry_after_s}; run the stage again later, which "
                f"asks only what is missing."
            ) from None
        self._pace.pause(asked_s)
        # The random part keeps those who wait from coming back all at once.
        return asked_s + random.uniform(0, min(asked_s, settings.backoff_s))

    def _refuse_unreached(self, failure: AttemptError, attempt: int) -> None:
        enough = min(UNREACHED_RETRIES, self._settings.max_retries)
        if failure.unreached and not self._reached and attempt >= enough:
            raise SetupError(
                f"The endpoint {self._settings.url} cannot be reached ({self._quoted(str(failure))}); start it, or "
                f"mend profile.endpoint.url."
            ) from None

    def _refuse_redirect(self, status: int, headers: Mapping[str, str]) -> None:
        """Never follow to another address: prompts hold what people have chosen."""
        if 300 <= status < 400:
            place = self._quoted(headers.get("Location", "an address that it does not name"))
            raise SetupError(
                f"The endpoint {self._settings.url} redirects to {place} ({status}), which is not followed; set "
                f"profile.endpoint.url to the address that answers."
            ) from None

    def _refuse_final(self, status: int, body: str) -> None:
        """End the stage for what no other prompt would be spared, without the server's own words in the traceback."""
        url, variable = self._settings.url, self._settings.key_variable
        said = f"{status}: {self._quoted(server_reason(body))}"
        if status in KEY_STATUSES:
            code = error_code(body, self._key)
            said = f"{status}: {code}" if code else f"{status}"
        if is_out_of_credit(status, body):
            raise StageError(
                f"The account at the endpoint {url} has no credit ({said}); top it up and run the stage again."
            ) from None
        if status == 404:
            raise SetupError(
                f"The endpoint {url} does not know the model {self._config.model} or the address ({said}); mend "
                f"profile.model, or profile.endpoint.url, which goes up to /chat/completions."
            ) from None
        if status == 407:
            raise SetupError(
                f"The proxy before the endpoint {url} refuses the request ({said}); put its user and password into "
                f"HTTP_PROXY or HTTPS_PROXY, or the endpoint's host into NO_PROXY."
            ) from None
        if status in FINAL_STATUSES:
            what = "the key" if self._key else "requests without a key"
            raise SetupError(
                f"The endpoint {url} refuses {what} ({said}); set the environment variable {variable} to its key."
            ) from None

    def _refuse_outage(self, row: Row) -> None:
        """Stop where the server itself seems to be down; prompts that it refuses one after the other are no outage."""
        limit, error = self._settings.max_failures_in_a_row, row[ERROR]
        self._failures_in_a_row = self._failures_in_a_row + 1 if row[FINISH_REASON] == UNAVAILABLE else 0
        if limit is not None and self._failures_in_a_row >= limit:
            raise StageError(
                f"The endpoint {self._settings.url} failed {limit} prompts in a row, the last because {error}; mend "
                f"the cause and run the stage again, which asks only what is missing, or raise "
                f"profile.endpoint.max_failures_in_a_row."
            )

    def _quoted(self, text: str) -> str:
        return cleaned_error(text, self._key).rstrip(".")
