"""The store: which row of a prompt counts, by hand and for any order of rows."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sracl_dist.columns import ATTEMPT, ERROR, FINISH_REASON, PROMPT_HASH, TEXT
from sracl_dist.profiles.answers import UNAVAILABLE
from sracl_dist.profiles.quality import answer_rules
from sracl_dist.profiles.rate import Rate
from sracl_dist.profiles.store import BEST, NUM_ATTEMPTS, NUM_FAILURES, STORED, AnswerStore, best_answers
from sracl_dist.profiles.template import Chat
from sracl_dist.run_folder import RunFolder, StageFolder

RULES = answer_rules([Chat(message="<data>\nTitle: $title\n</data>")])


def rows_of(*rows: tuple[str, int, str | None, str | None]) -> pa.Table:
    """Hash, attempt, text and error."""
    names = (PROMPT_HASH, ATTEMPT, TEXT, ERROR)
    return pa.Table.from_pylist(
        [dict.fromkeys(STORED.names) | dict(zip(names, row, strict=True)) for row in rows], schema=STORED
    )


def told(best: pa.Table) -> dict[str, tuple[Any, ...]]:
    assert best.schema == BEST
    rows = {row[PROMPT_HASH]: (row[TEXT], row[ERROR], row[NUM_FAILURES]) for row in best.to_pylist()}
    assert len(rows) == best.num_rows, "one row per prompt"
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    return RunFolder(str(tmp_path)).stage("profile")


def test_which_row_of_a_prompt_counts() -> None:
    rows = rows_of(
        ("mended", 1, None, "the engine died"),
        ("mended", 2, "", None),
        ("mended", 3, "A film.", None),
        ("failing", 2, "Title: x", None),
        ("failing", 1, None, "the engine died"),
        ("good", 1, "A book.", None),
    )
    assert told(best_answers(rows, RULES)) == {
        "mended": ("A film.", None, 2),
        "failing": ("Title: x", "the answer is off-format: it holds 'Title:'", 2),
        "good": ("A book.", None, 0),
    }


def test_attempts_that_no_model_has_seen_are_no_failures() -> None:
    rows = rows_of(("a", 1, None, "down"), ("a", 2, "", None), ("a", 3, None, "down"))
    reasons = pa.array([UNAVAILABLE, None, UNAVAILABLE], pa.string())
    rows = rows.set_column(rows.schema.get_field_index(FINISH_REASON), STORED.field(FINISH_REASON), reasons)
    best = best_answers(rows, RULES)
    assert told(best) == {"a": (None, "down", 1)}
    assert best[NUM_ATTEMPTS].to_pylist() == [3], "the next attempt is the fourth, and no double of another"


def test_doubles_of_an_attempt_count_once() -> None:
    rows = rows_of(("a", 1, None, "no memory"), ("a", 1, None, "no memory"), ("a", 2, None, "no room"))
    assert told(best_answers(rows, RULES)) == {"a": (None, "no room", 2)}


ROWS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(1, 4),
        st.sampled_from([None, "", "Title: x", "A film.", "A book."]),
        st.sampled_from([None, "no memory"]),
    ),
    max_size=12,
    unique_by=lambda row: row[:2],
)


@given(ROWS, st.randoms())
def test_the_order_of_rows_and_doubles_do_not_matter(rows: list[Any], random: Any) -> None:
    mixed = [*rows, *random.sample(rows, len(rows) // 2)]
    random.shuffle(mixed)
    best = told(best_answers(rows_of(*rows), RULES))
    assert told(best_answers(rows_of(*mixed), RULES)) == best
    for hash_, (text, error, num_failures) in best.items():
        own = sorted((row for row in rows if row[0] == hash_), key=lambda row: row[1])
        usable = [row for row in own if row[3] is None and row[2] in ("A film.", "A book.")]
        assert num_failures == len(own) - len(usable)
        assert text == (usable[0] if usable else own[-1])[2]
        assert (error is None) == bool(usable)


def test_what_is_committed_is_read_and_survives_compaction(folder: StageFolder) -> None:
    store = AnswerStore(folder, RULES)
    assert told(store.best()) == {}
    store.compact()
    store.commit([])
    assert folder.files() == []
    store.commit([rows_of(("a", 1, None, "no memory")), rows_of(("b", 1, "A film.", None))])
    store.commit([rows_of(("a", 2, "A book.", None))])
    store.keep_rate("vllm m", Rate(output_tokens_per_s=5.0, num_answers=3))
    expected = {"a": ("A book.", None, 1), "b": ("A film.", None, 0)}
    assert told(store.best()) == expected
    store.compact()
    assert len([name for name in folder.files("generated/") if name.endswith(".parquet")]) == 1
    assert told(store.best()) == expected
    assert store.rate("vllm m") == Rate(output_tokens_per_s=5.0, num_answers=3)


def test_a_kill_within_compaction_costs_no_attempt(folder: StageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    store = AnswerStore(folder, RULES)
    for attempt in (1, 2):
        store.commit([rows_of(("a", attempt, None, "no memory"))])
    with monkeypatch.context() as patch:
        patch.setattr(StageFolder, "delete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.compact()
    assert len(folder.files("generated/")) == 3
    assert told(store.best()) == {"a": (None, "no memory", 2)}


def test_rates_are_kept_by_engine(folder: StageFolder) -> None:
    store = AnswerStore(folder, RULES)
    assert store.rate("vllm m") is None
    store.keep_rate("vllm m", Rate(output_tokens_per_s=5.0, num_answers=3))
    store.keep_rate("endpoint m", Rate(output_tokens_per_s=9.0, num_answers=4))
    assert store.rate("vllm m") == Rate(output_tokens_per_s=5.0, num_answers=3)
    assert store.rate("vllm other") is None
