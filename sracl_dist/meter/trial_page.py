"""What a trial has brought, for the person who runs it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sracl_dist.config.sections import ProfileConfig
from sracl_dist.meter.described import MeteredSample, Ways
from sracl_dist.meter.wording import sentence, shown_number
from sracl_dist.meter.worth import MEASURES, as_table
from sracl_dist.observe import duration, say
from sracl_dist.profiles.table import KINDS
from sracl_dist.secrets import masked
from sracl_dist.visible import visible

NUM_EXAMPLES = 3
MAX_SHOWN_CHARS = 600
MILLION = 1_000_000
NOTHING = "\u2013"


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """A variant's answers for the sample, and what they cost; all dictionaries are by kind."""

    overrides: str
    settings: ProfileConfig
    texts: dict[str, list[str | None]]
    """None where there is no usable answer."""
    num_asked: int
    """Prompts that had no answer in the store."""
    paid_tokens: tuple[int, int]
    """Tokens of prompts and of answers that were asked now, retries and failed attempts included."""
    num_prompt_tokens: dict[str, int]
    """Of all attempts at the prompts of the sample, whenever they were asked; as the following one."""
    num_output_tokens: dict[str, int]
    seconds: float | None
    """Of the asking, the start of the engine included; None where there was nothing to ask."""
    tokens_per_s: float | None
    """Output tokens, the start left out; None where too few were asked to tell."""
    flaws: Counter[str]
    num_all: dict[str, int]
    """Items and users that the stage asks about."""

    def of_all(self, tokens: Mapping[str, int]) -> float:
        """Tokens of everything, at the mean of the sample."""
        return sum(tokens[kind] / len(self.texts[kind]) * self.num_all[kind] for kind in KINDS)

    def money(self, num_prompt_tokens: float, num_output_tokens: float) -> float | None:
        """What an endpoint charges for tokens; None where the prices are not set."""
        endpoint = self.settings.endpoint
        prices = endpoint.price_per_million_input_tokens, endpoint.price_per_million_output_tokens
        if self.settings.engine != "endpoint" or prices[0] is None or prices[1] is None:
            return None
        return (num_prompt_tokens * prices[0] + num_output_tokens * prices[1]) / MILLION


def show_trial(metered: MeteredSample, ways: Mapping[str, Ways], asked: Mapping[str, VariantResult]) -> None:
    """Say all of it: variants, worth, cost, and examples."""
    for name, one in asked.items():
        who = "profiles from files" if one.settings.engine == "file" else one.settings.model
        say(f"{name}: {who}{', ' + one.overrides if one.overrides else ''}")
    for kind in KINDS:
        say("")
        for line in worth_lines(kind, ways[kind], len(metered.sample.keys(kind))):
            say(line)
        say(f"{metered.num_left()[kind]:,} of them with something that no text shows, by which choices are compared")
    say("")
    for line in cost_lines(asked):
        say(line)
    say("")
    say(sentence(metered.choose(ways)))
    for kind in KINDS:
        for line in example_lines(metered, kind, asked):
            say(line)


def worth_lines(kind: str, ways: Ways, num_rows: int) -> list[str]:
    """The meter's table of one kind; see `worth.MEASURES`."""
    table = as_table(kind, ways)
    names = ["chance", *ways]
    heads = [name.replace("raw_and_profile", "and raw").replace("profile", "alone") for name in names]
    rows = [[MEASURES[kind][name], *(shown_number(name, row.get(way)) for way in names)] for name, row in table.items()]
    return _aligned([[f"{num_rows:,} {kind}", *heads], *rows])


def cost_lines(asked: Mapping[str, VariantResult]) -> list[str]:
    """Tokens, time, flaws and money of the trial, and of everything at the sample's tokens for each key."""
    several = list(asked.values())
    flaws = sorted({flaw for one in several for flaw, num in one.flaws.items() if num})
    rows = [
        ["cost", *asked],
        ["prompts", *(f"{sum(map(len, one.texts.values())):,}" for one in several)],
        ["asked now", *(f"{one.num_asked:,}" for one in several)],
        ["prompt tokens asked now", *(f"{one.paid_tokens[0]:,}" for one in several)],
        ["output tokens asked now", *(f"{one.paid_tokens[1]:,}" for one in several)],
        ["time", *(NOTHING if one.seconds is None else duration(one.seconds) for one in several)],
        *([flaw, *(f"{one.flaws[flaw]:,}" for one in several)] for flaw in flaws),
    ]
    trial = [one.money(*one.paid_tokens) for one in several]
    all_tokens = [(one.of_all(one.num_prompt_tokens), one.of_all(one.num_output_tokens)) for one in several]
    whole = [one.money(*tokens) for one, tokens in zip(several, all_tokens, strict=True)]
    with_money = any(money is not None for money in trial)
    rows += [["money for what was asked now", *map(_money, trial)]] if with_money else []
    rows += [
        ["everything: prompts", *(f"{sum(one.num_all.values()):,}" for one in several)],
        ["everything: prompt tokens", *(f"{prompt:,.0f}" for prompt, _ in all_tokens)],
        ["everything: output tokens", *(f"{output:,.0f}" for _, output in all_tokens)],
        [
            "everything: time",
            *(
                NOTHING if not one.tokens_per_s else duration(output / one.tokens_per_s)
                for one, (_, output) in zip(several, all_tokens, strict=True)
            ),
        ],
    ]
    rows += [["everything: money", *map(_money, whole)]] if with_money else []
    return _aligned(rows)


def example_lines(metered: MeteredSample, kind: str, asked: Mapping[str, VariantResult]) -> list[str]:
    """Some of the sample at even distances: the user's own data, then what each variant says of it."""
    keys = metered.sample.keys(kind)
    lines = []
    for place in np.unique(np.linspace(0, len(keys) - 1, NUM_EXAMPLES).round().astype(int)).tolist():
        lines += ["", f"{kind} {keys[place]}", *shown_text("data", metered.raw(kind, int(keys[place])))]
        for name, one in asked.items():
            lines += shown_text(name, one.texts[kind][place] or "(no usable answer)")
    return lines


def shown_text(name: str, text: str) -> list[str]:
    """A text from a log or a model, indented and cut, without secrets and what a terminal would obey."""
    whole = masked(text)  # before it is cut: half a secret could not be recognized any more
    shown = whole if len(whole) <= MAX_SHOWN_CHARS else f"{whole[:MAX_SHOWN_CHARS]} ..."
    first, *others = [visible(line) for line in shown.split("\n")]
    return [f"    {name}: {first}", *(f"        {line}" for line in others)]


def _money(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.2f}" if value >= 1 else f"{value:.4f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side, the first to the left and the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for row in rows:
        others = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *others]))
    return lines
