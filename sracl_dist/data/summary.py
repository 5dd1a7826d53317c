"""What prepare tells of itself: the details of its manifest, and lines for the person who ran it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sracl_dist.config.sections import DataConfig
from sracl_dist.data.filter import Kept
from sracl_dist.data.item_texts import ItemTexts
from sracl_dist.data.rejects import Rejects, Tally
from sracl_dist.data.times import shown_range
from sracl_dist.ids import USERS
from sracl_dist.sequences import SEQUENCES
from sracl_dist.stages import StageResult

_WHY_NOT_EVALUATED = {
    "leave_last_out": "fewer than three interactions, so they are trained on but not evaluated",
    "global_time": "no interaction in the test period or none before it, so they are not evaluated on it",
}
_EDGES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 30, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000)


@dataclass(frozen=True, kw_only=True)
class LogTimes:
    """What the times of a log are."""

    decimals: int
    """The table `sequences` has them times ten to the power of this, so that they are whole numbers."""
    dates: bool
    """Whether they are dates, as seconds since 1970 in UTC, rather than numbers in the log's own unit."""


def make_result(
    kept: Kept,
    tally: Tally,
    texts: ItemTexts,
    text_rejects: Rejects,
    times: LogTimes | None,
    time_range: list[int] | None,
    num_rejects: int,
    data: DataConfig,
) -> StageResult:
    """Rows, details and summary of the tables that are written."""
    details: dict[str, Any] = {
        "log": {
            "rows_read": tally.num_read,
            "rows_kept": tally.num_kept,
            "rows_rejected": dict(tally.rejected),
            "rows_of_other_events": tally.num_other_events,
            "rows_below_min_rating": tally.num_below_rating,
            "rows_over_max_user_interactions": tally.num_over_limit,
        },
        "item_texts": {
            "rows_read": texts.num_read,
            "rows_rejected": dict(text_rejects.counts),
            **texts.counts(),
        },
        "k_core_rounds": kept.rounds,
        "split": kept.split_details,
        "times": None if times is None else {"decimals": times.decimals, "dates": times.dates},
        "statistics": statistics(kept.lengths, kept.popularity, time_range),
    }
    num_users = len(kept.lengths)
    rows = {"items": len(kept.popularity), USERS: num_users, SEQUENCES: num_users, "rejects": num_rejects}
    rows |= {"interactions": int(kept.popularity.sum(dtype=np.int64)), **kept.num_targets}
    lines = _summary(details, data)
    if times is not None and time_range is not None:
        lines.insert(1, f"times: {shown_range(time_range[0], time_range[1], times.decimals, times.dates)}")
    if not kept.num_targets["training_targets"]:
        lines.append("nobody has two events for training, so there is nothing to train on; add more data")
    return StageResult(rows=rows, details=details, summary=lines)


def _summary(details: dict[str, Any], data: DataConfig) -> list[str]:
    log, texts, facts = details["log"], details["item_texts"], details["statistics"]
    lines = [
        f"read {log['rows_read']:,} rows: {log['rows_kept']:,} usable, {sum(log['rows_rejected'].values()):,} rejected"
        f"{_reasons(log['rows_rejected'])}, {log['rows_below_min_rating']:,} below data.min_rating",
        f"k-core kept {facts['interactions']:,} interactions of {facts['users']:,} users and {facts['items']:,} items "
        f"after {len(details['k_core_rounds']) - 1} rounds of removal",
        f"item texts: {texts['rows_read']:,} rows, {sum(texts['rows_rejected'].values()):,} rejected"
        f"{_reasons(texts['rows_rejected'])}; {texts['items_without_text']:,} items without text",
    ]
    if num_other := log["rows_of_other_events"]:
        lines.insert(1, f"left out {num_other:,} rows of kinds that are not in data.events={list(data.events)}")
    if num_over := log["rows_over_max_user_interactions"]:
        lines.append(
            f"left out {num_over:,} events before the latest {data.max_user_interactions:,} of their user "
            f"(data.max_user_interactions)"
        )
    if num_skipped := details["split"]["users_not_evaluated"]:
        lines.append(f"{num_skipped:,} users have {_WHY_NOT_EVALUATED[details['split']['method']]}")
    return lines


def _reasons(counts: dict[str, int]) -> str:
    if not counts:
        return ""
    return " (" + ", ".join(f"{reason}: {num:,}" for reason, num in sorted(counts.items())) + ")"


def statistics(
    lengths: NDArray[np.integer], popularity: NDArray[np.integer], time_range: list[int] | None
) -> dict[str, Any]:
    """Sizes, density, sequence lengths and item popularity.

    Args:
        lengths: [U] interactions of each user.
        popularity: [V] interactions of each item.
        time_range: earliest and latest time, or None where there are no times.
    """
    num_interactions = int(lengths.sum(dtype=np.int64))
    return {
        "users": len(lengths),
        "items": len(popularity),
        "interactions": num_interactions,
        "density": num_interactions / (len(lengths) * len(popularity)),
        "sequence_length": _spread(lengths),
        "item_popularity": _spread(popularity),
        "sequence_length_histogram": histogram(lengths),
        "item_popularity_histogram": histogram(popularity),
        "time_range": time_range,
    }


def histogram(counts: NDArray[np.integer]) -> list[dict[str, int | None]]:
    """How many counts lie in each bin `from` .. `to`, both included; the bin behind all edges has no end."""
    edges = np.array([*_EDGES, np.iinfo(np.int64).max])
    # Counting each number up to the last edge is ten times as fast as sorting them into the bins.
    each = np.bincount(np.minimum(counts, _EDGES[-1]), minlength=_EDGES[-1] + 1)
    numbers = np.add.reduceat(each, edges[:-1])
    bins: list[dict[str, int | None]] = []
    for index in range(int(np.flatnonzero(numbers)[-1]) + 1):
        is_last = index == len(_EDGES) - 1
        end = None if is_last else int(edges[index + 1]) - 1
        bins.append({"from": int(edges[index]), "to": end, "count": int(numbers[index])})
    return bins


def _spread(counts: NDArray[np.integer]) -> dict[str, float]:
    return {
        "mean": round(float(counts.mean()), 3),
        "median": float(np.median(counts)),
        "min": int(counts.min()),
        "max": int(counts.max()),
    }
