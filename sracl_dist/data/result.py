"""What prepare tells of itself, and the tables that it makes in one piece, whether of a whole log or of an addition."""

from typing import Any

import numpy as np
import pyarrow as pa

from sracl_dist.columns import ITEM, ITEM_ID, NUM_INTERACTIONS, NUM_TRAIN_INTERACTIONS, TEXT_COLUMNS
from sracl_dist.config.sections import DataConfig
from sracl_dist.data.item_texts import ItemTexts, read_item_texts
from sracl_dist.data.log_steps import limit_rejects
from sracl_dist.data.rejects import UNREADABLE, Rejects
from sracl_dist.data.sequences import SEQUENCES
from sracl_dist.data.sources import Source
from sracl_dist.data.state import Memory, State
from sracl_dist.data.statistics import statistics
from sracl_dist.ids import USERS
from sracl_dist.stages import StageResult

_WHY_NOT_EVALUATED = {
    "leave_last_out": "fewer than three interactions, so they are trained on but not evaluated",
    "global_time": "no interaction in the test period or none before it, so they are not evaluated on it",
}


def make_result(
    state: State,
    memory: Memory,
    split_details: dict[str, Any],
    num_targets: dict[str, int],
    num_rejects: int,
    data: DataConfig,
) -> StageResult:
    """Rows, details and summary of the tables that are written."""
    details = {
        "log": {
            "rows_read": state.tally["num_read"],
            "rows_kept": state.tally["num_kept"],
            "rows_rejected": dict(state.tally["rejected"]),
            "rows_below_min_rating": state.tally["num_below_rating"],
            "rows_over_max_user_interactions": state.tally["num_over_limit"],
        },
        "item_texts": state.texts,
        "k_core_rounds": state.rounds,
        "split": split_details,
        "statistics": statistics(memory.lengths, memory.popularity, memory.time_range.tolist() or None),
    }
    num_users = len(memory.lengths)
    rows = {"items": len(memory.popularity), USERS: num_users, SEQUENCES: num_users, "rejects": num_rejects}
    rows |= {"interactions": int(memory.popularity.sum(dtype=np.int64)), **num_targets}
    return StageResult(rows=rows, details=details, summary=_summary(details, data))


def text_facts(texts: ItemTexts, rejects: Rejects) -> dict[str, Any]:
    """What the manifest says about item texts."""
    return {"rows_read": texts.num_read, "rows_rejected": dict(rejects.counts), **texts.counts()}


def item_texts(source: Source, item_ids: pa.Array, data: DataConfig, rejects: Rejects) -> ItemTexts:
    """Texts of the items with these ids.

    Raises:
        InputError: a file is missing or damaged, or too many of its rows are.
    """
    texts = read_item_texts(
        source.text_files,
        source.item_columns,
        item_ids,
        rejects,
        separator=source.separator,
        max_chars=data.max_text_chars,
    )
    num_unreadable = sum(rejects.counts[reason] for reason in UNREADABLE)
    limit_rejects(texts.num_read, num_unreadable, rejects.counts, data, "item texts")
    return texts


def items_table(item_ids: pa.Array, texts: pa.Table, memory: Memory) -> pa.Table:
    """The table `items`; ids and texts are in the order of the dense ids."""
    return pa.table(
        {
            ITEM: pa.array(np.arange(1, len(item_ids) + 1, dtype=np.int32)),
            ITEM_ID: item_ids.cast(pa.string()),
            **{name: texts[name] for name in TEXT_COLUMNS},
            NUM_INTERACTIONS: pa.array(memory.popularity, pa.int64()),
            NUM_TRAIN_INTERACTIONS: pa.array(memory.num_train, pa.int64()),
        }
    )


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
    num_over = log["rows_over_max_user_interactions"]
    if num_over:
        lines.append(
            f"left out {num_over:,} events before the latest {data.max_user_interactions:,} of their user "
            f"(data.max_user_interactions)"
        )
    num_skipped = details["split"]["users_not_evaluated"]
    if num_skipped:
        lines.append(f"{num_skipped:,} users have {_WHY_NOT_EVALUATED[details['split']['method']]}")
    return lines


def _reasons(counts: dict[str, int]) -> str:
    if not counts:
        return ""
    return " (" + ", ".join(f"{reason}: {num:,}" for reason, num in sorted(counts.items())) + ")"
