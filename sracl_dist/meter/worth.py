"""What each way of describing items and users is worth: the table, and which way is chosen.

n sampled rows of a kind, d numbers a vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sracl_dist.meter.measures import (
    Measure,
    distinct_openings,
    equal_texts,
    found_first,
    mean_cosine,
    mean_of_nearest,
    median_rank,
    nearest,
    own_ranks,
)

NUM_NEAREST = 10
RAW, PROFILE, BOTH = "raw", "profile", "raw_and_profile"
WAYS = {RAW: "raw text", PROFILE: "profile", BOTH: "raw text and profile"}
"""The values of embed.text, in words."""
OVERLAP = "overlap"
"""The measure that decides; see `choose`."""
MEASURES = {
    "items": {
        "chosen_together": "nearest items: chosen together by somebody",
        OVERLAP: "nearest items: how far the same users chose them",
        "same_category": "nearest items: in the narrowest category",
        "found_first": "finds its own raw text: at rank 1",
        "median_rank": "finds its own raw text: median rank",
        "mean_cosine": "cosine of two random texts",
        "equal_texts": "texts that another item has too",
        "distinct_openings": "different first three words per text",
    },
    "users": {
        "item_in_common": "nearest users: with an item in common",
        "items_in_common": "nearest users: items in common",
        OVERLAP: "nearest users: how far they chose the same items",
        "found_first": "finds its own items' raw texts: at rank 1",
        "median_rank": "finds its own items' raw texts: median rank",
        "mean_cosine": "cosine of two random texts",
        "equal_texts": "texts that another user has too",
        "distinct_openings": "different first three words per text",
    },
}
"""The rows of the table, in their order, with what they say."""
NOT_SHARES = ("median_rank", "items_in_common", "mean_cosine")
MIN_ERRORS = 2.0
"""A way that is better than raw text by fewer standard errors counts as equal to it."""


@dataclass(frozen=True, kw_only=True)
class Truths:
    """What training says about the n rows of a kind; see `together`."""

    in_common_NN: NDArray[np.int32]
    """Users that two items have in common, or items that two users have; on the diagonal how many a row has."""
    same_category_NN: NDArray[np.bool_] | None = None
    """None where no item shares a category with another, and for users."""
    has_category_N: NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True)
class Described:
    """The rows of a kind, described in one way."""

    texts: Sequence[str]
    vectors_ND: NDArray[np.float32]


def weigh(
    kind: str, ways: Mapping[str, Described], truths: Truths, own_ND: NDArray[np.float32]
) -> dict[str, dict[str, Measure]]:
    """All measures of each way, by its name and theirs, as in MEASURES.

    - chosen_together, item_in_common: of a row's NUM_NEAREST nearest, the share that has a user in common with it (of
      all users), or an item.
    - items_in_common: how many items.
    - overlap: number in common divided by the root of the product of what each of the two has (the cosine of two sets);
      it stays apart from 1 where everybody has something in common with everybody, and favours no popular ones.
    - same_category: share of its nearest that list a row's narrowest category.
    - found_first, median_rank: where the row's own vector in `own_ND` stands among all of them for its text.
    - mean_cosine, equal_texts, distinct_openings: how alike the texts are.

    Args:
        kind: `items` or `users`.
        ways: texts and vectors of the rows by the name of the way.
        truths: what training says about the rows.
        own_ND: raw vectors of the items, or of the users' training items in the mean; unit vectors.
    """
    return {name: _weigh_one(kind, name, way, truths, own_ND) for name, way in ways.items()}


def _weigh_one(kind: str, name: str, way: Described, truths: Truths, own_ND: NDArray[np.float32]) -> dict[str, Measure]:
    vectors, common = way.vectors_ND, truths.in_common_NN
    near = nearest(vectors, min(NUM_NEAREST, len(vectors) - 1))
    share = mean_of_nearest(near, common > 0)
    num_own = np.sqrt(np.maximum(common.diagonal(), 1))
    measures = {OVERLAP: mean_of_nearest(near, common / num_own[:, None] / num_own[None, :])}
    if kind == "items":
        measures["chosen_together"] = share
        if truths.same_category_NN is not None:
            measures["same_category"] = mean_of_nearest(near, truths.same_category_NN, truths.has_category_N)
    else:
        measures["item_in_common"], measures["items_in_common"] = share, mean_of_nearest(near, common)
    if kind == "users" or name != RAW:  # an item's raw text finds itself
        ranks, first = own_ranks(vectors, own_ND)
        measures["found_first"], measures["median_rank"] = found_first(first), median_rank(ranks)
    measures["mean_cosine"] = mean_cosine(vectors)
    measures["equal_texts"], measures["distinct_openings"] = equal_texts(way.texts), distinct_openings(way.texts)
    return measures


def choose(ways: Mapping[str, Mapping[str, Measure]]) -> tuple[str, float, float]:
    """Which of raw, profile and raw_and_profile describes a kind best, its lead over raw text, and the lead's error.

    SRA-CL takes nothing from the vectors but who is near whom, and is helped where those who are near choose alike. So
    the overlap of the nearest decides, for each kind by itself, as the two tables are never compared. The lead is
    measured on the same rows, so its error is that of their differences; a lead of less than MIN_ERRORS of it may be
    chance, and then raw text is taken, which costs nothing and invents nothing. Of several the one with the highest
    overlap is taken. The share that has anything in common would be plainer, but in a dense log it is near 1 for all.

    Returns:
        The way; how much higher its overlap is than that of raw text, or for raw text that of the best other way; and
        the standard error of this difference.
    """
    raw = ways[RAW][OVERLAP]
    others = {name: _lead(measures[OVERLAP], raw) for name, measures in ways.items() if name != RAW}
    if not others:
        return RAW, 0.0, 0.0
    clear = {name: lead for name, (lead, error) in others.items() if lead > MIN_ERRORS * error}
    best = max(clear, key=lambda name: clear[name]) if clear else max(others, key=lambda name: others[name][0])
    return (best if clear else RAW), *others[best]


def _lead(measure: Measure, raw: Measure) -> tuple[float, float]:
    """How much higher a measure is than that of raw text, and the standard error of the difference."""
    if measure.influence_N is None or raw.influence_N is None:
        raise ValueError("the error of this measure is not known")
    influences = measure.influence_N - raw.influence_N
    return measure.value - raw.value, float(influences.std(ddof=1) / np.sqrt(len(influences)))


def as_table(kind: str, ways: Mapping[str, Mapping[str, Measure]]) -> dict[str, dict[str, float]]:
    """The table for a JSON file: of each measure the number for each way, and `chance` where there is one."""
    table: dict[str, dict[str, float]] = {}
    for name in MEASURES[kind]:
        of_ways = {way: measures[name] for way, measures in ways.items() if name in measures}
        chances = [measure.chance for measure in of_ways.values() if measure.chance is not None]
        row = {"chance": chances[0]} if chances else {}
        if of_ways:
            table[name] = {key: round(value, 6) for key, value in row.items()}
            table[name] |= {way: round(measure.value, 6) for way, measure in of_ways.items()}
    return table


def shown_number(measure: str, value: float | None) -> str:
    """A number of the table for a person: shares in percent, ranks and numbers of items with a decimal."""
    if value is None:
        return "\u2013"
    if measure in NOT_SHARES:
        return f"{value:.2f}" if measure != "median_rank" else f"{value:,.1f}"
    return f"{100 * value:.1f} %"


def sentence(choice: Mapping[str, tuple[str, float, float]]) -> str:
    """Which text is taken and why, from what `choose` said of each kind."""
    return "; ".join(f"{kind} by {_reason(*chosen)}" for kind, chosen in choice.items())


def in_words(way: str) -> str:
    """A way as a person would name it; what stands before its own name goes behind."""
    name, _, own = way.rpartition(" ")
    return f"{WAYS[own]} of {name}" if name else WAYS[own]


def _reason(chosen: str, lead: float, error: float) -> str:
    if not lead and not error:
        return f"{in_words(chosen)}, as there is no other text"
    points = f"{100 * lead:+.2f} \u00b1 {100 * error:.2f} points"
    if chosen == RAW:
        return f"{in_words(chosen)}, as the overlap of the nearest is no clear gain with profiles ({points})"
    return f"{in_words(chosen)}, whose nearest overlap more than those of raw text ({points})"
