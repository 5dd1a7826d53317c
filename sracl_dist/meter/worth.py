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
    errors_needed,
    found_first,
    mean_cosine,
    means_of_nearest,
    median_rank,
    own_ranks,
    standard_error,
)
from sracl_dist.meter.together import Categories, Common

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
MIN_LEFT_SHARE = 0.5
"""Of the sampled rows of a kind: so many must have anything left that no text shows, to speak for the others."""


@dataclass(frozen=True, kw_only=True)
class Truths:
    """What training says about the n rows of a kind; see `together`."""

    kind: str
    common: Common
    """Users that two items have in common, or items that two users have."""
    categories: Categories | None = None
    """None where no item shares a category with another, and for users."""

    @property
    def counted(self) -> dict[str, NDArray[np.bool_]]:
        """[n] by measure: which rows have a say in it."""
        has_any = self.common.num_groups_N > 0
        names = ("chosen_together",) if self.kind == "items" else ("item_in_common", "items_in_common")
        of_categories = {} if self.categories is None else {"same_category": self.categories.has_one_N}
        return {OVERLAP: has_any, **dict.fromkeys(names, has_any), **of_categories}

    @property
    def is_enough(self) -> bool:
        """Whether enough rows have anything left to choose by."""
        return bool((self.common.num_groups_N > 0).mean() >= MIN_LEFT_SHARE)

    def block(self, rows: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
        """[B, n] by measure: what is true about some rows and all."""
        common, num_own = self.common.block(rows), np.sqrt(np.maximum(self.common.num_groups_N, 1))
        told: dict[str, NDArray[np.generic]] = {OVERLAP: common / num_own[rows, None] / num_own[None, :]}
        if self.kind == "items":
            told["chosen_together"] = common > 0
        else:
            told |= {"item_in_common": common > 0, "items_in_common": common}
        if self.categories is not None:
            told["same_category"] = self.categories.block(rows)
        return told


@dataclass(frozen=True, kw_only=True)
class Described:
    """The rows of a kind, described in one way."""

    texts: Sequence[str]
    vectors_ND: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which way describes a kind best."""

    way: str
    lead: float = 0.0
    """How much higher its overlap is than that of raw text, or for raw text that of the best other way."""
    error: float = 0.0
    """Standard error of the lead."""
    because: str | None = None
    """Why, where the overlap did not decide."""


def measure_ways(
    ways: Mapping[str, Described], truths: Truths, own_ND: NDArray[np.float32]
) -> dict[str, dict[str, Measure]]:
    """All measures of each way, by its name and theirs, as in MEASURES.

    - chosen_together, item_in_common: of a row's NUM_NEAREST nearest, the share that has a user in common with it (of
      all users), or an item.
    - items_in_common: how many items.
    - overlap: number in common divided by the root of the product of what each of the two has (the cosine of two sets);
      it does not saturate in dense logs, and favours no popular ones.
    - same_category: share of its nearest that list a row's narrowest category.
    - found_first, median_rank: where the row's own vector in `own_ND` stands among all of them for its text.
    - mean_cosine, equal_texts, distinct_openings: how alike the texts are.

    Args:
        ways: texts and vectors of the rows by the name of the way.
        truths: what training says about the rows. Measures for which no row has anything left are missing.
        own_ND: raw vectors of the items, or of the users' training items in the mean; unit vectors.
    """
    vectors = {name: way.vectors_ND for name, way in ways.items()}
    found = means_of_nearest(vectors, truths.block, truths.counted, min(NUM_NEAREST, len(own_ND) - 1))
    for name, way in ways.items():
        measures = found[name]
        if truths.kind == "users" or name != RAW:  # an item's raw text finds itself
            ranks, first = own_ranks(way.vectors_ND, own_ND)
            measures["found_first"], measures["median_rank"] = found_first(first), median_rank(ranks)
        measures["mean_cosine"] = mean_cosine(way.vectors_ND)
        measures["equal_texts"], measures["distinct_openings"] = equal_texts(way.texts), distinct_openings(way.texts)
    return found


def choose(ways: Mapping[str, Mapping[str, Measure]], groups_N: NDArray[np.int64]) -> Choice:
    """Which of raw, profile and raw_and_profile describes a kind best, its lead over raw text, and the lead's error.

    SRA-CL takes nothing from the vectors but who is near whom, and is helped where those who are near choose alike. So
    the overlap of the nearest decides. The lead is measured on the same rows, so its error is that of their
    differences, where rows of a group (`Sample.groups`) count as one observation. A lead that may be chance, by
    `errors_needed` for as many ways as are compared, is none: then raw text is taken, which costs nothing and invents
    nothing. Of several the one with the highest overlap is taken. The share that has anything in common would be
    plainer, but in a dense log it is near 1 for all.
    """
    others = {name: _lead(way[OVERLAP], ways[RAW][OVERLAP], groups_N) for name, way in ways.items() if name != RAW}
    if not others:
        return Choice(way=RAW, because="as there is no other text")
    needed = errors_needed(len(others), len(np.unique(groups_N)))
    clear = {name: lead for name, (lead, error) in others.items() if lead > needed * error}
    best = max(clear, key=lambda name: clear[name]) if clear else max(others, key=lambda name: others[name][0])
    lead, error = others[best]
    return Choice(way=best if clear else RAW, lead=lead, error=error)


def choose_each(
    ways: Mapping[str, Mapping[str, Mapping[str, Measure]]],
    truths: Mapping[str, Truths],
    groups: Mapping[str, NDArray[np.int64]],
) -> dict[str, Choice]:
    """The choice for every kind by itself, as the two tables of vectors are never compared.

    Users of whom too few have anything left follow the items, whose truth is the better one; items of whom too few have
    are described by their raw texts.
    """
    choices = {}
    for kind in ways:
        if truths[kind].is_enough:
            choices[kind] = choose(ways[kind], groups[kind])
        elif kind == "users" and "items" in choices:
            way = choices["items"].way
            because = f"like the items, as the texts of most {kind} show all that they chose"
            choices[kind] = Choice(way=way if way in ways[kind] else RAW, because=because)
        else:
            choices[kind] = Choice(way=RAW, because=f"as the texts of most {kind} show all that training says of them")
    return choices


def _lead(measure: Measure, raw: Measure, groups_N: NDArray[np.int64]) -> tuple[float, float]:
    """How much higher a measure is than that of raw text, and the standard error of the difference."""
    if measure.influence_N is None or raw.influence_N is None:
        raise ValueError("the error of this measure is not known")
    return measure.value - raw.value, standard_error(measure.influence_N - raw.influence_N, groups_N)


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
