"""The store: which row of a prompt counts, by hand and for any order of rows and files."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peak_memory import peak_growth
from small_prompts import hash_of, name_of

from sracl_dist.columns import ATTEMPT, ERROR, FINISH_REASON, PROMPT_HASH, TEXT
from sracl_dist.profiles.answers import UNAVAILABLE
from sracl_dist.profiles.quality import answer_rules, failure_of
from sracl_dist.profiles.rate import Rate
from sracl_dist.profiles.store import ROWS_PER_GROUP, STORED, AnswerStore
from sracl_dist.profiles.store_index import BestAnswers
from sracl_dist.profiles.template import Chat
from sracl_dist.run_folder import RunFolder, StageFolder

RULES = answer_rules([Chat(message="<data>\nTitle: $title\n</data>")])


def rows_of(*rows: tuple[str, int, str | None, str | None]) -> pa.Table:
    """Hash, attempt, text and error."""
    names = (PROMPT_HASH, ATTEMPT, TEXT, ERROR)
    return pa.Table.from_pylist(
        [dict.fromkeys(STORED.names) | dict(zip(names, (hash_of(row[0]), *row[1:]), strict=True)) for row in rows],
        schema=STORED,
    )


def told(folder: StageFolder, best: BestAnswers) -> dict[str, tuple[Any, ...]]:
    """Text, error and failures of every prompt, by its name."""
    assert len(set(best.hashes.tolist())) == len(best.hashes), "one row per prompt"
    rows = {}
    for file, row, *numbers in zip(best.files, best.rows, best.is_failure, best.num_failures, strict=True):
        (answer,) = folder.read_rows(best.names[file], np.array([row])).to_pylist()
        error = answer[ERROR] or failure_of(answer[TEXT], RULES)
        assert numbers[0] == (error is not None)
        rows[name_of(answer[PROMPT_HASH])] = (answer[TEXT], error, numbers[1])
    return rows


def told_of(folder: StageFolder, *tables: pa.Table) -> dict[str, tuple[Any, ...]]:
    """The same of tables that are committed one after the other."""
    store = AnswerStore(folder, RULES)
    folder.delete(folder.files("generated/"))
    for table in tables:
        store.commit([table])
    return told(folder, store.best())


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    return RunFolder(str(tmp_path)).stage("profile")


def test_which_row_of_a_prompt_counts(folder: StageFolder) -> None:
    rows = rows_of(
        ("mended", 1, None, "the engine died"),
        ("mended", 2, "", None),
        ("mended", 3, "A film.", None),
        ("failing", 2, "Title: x", None),
        ("failing", 1, None, "the engine died"),
        ("good", 1, "A book.", None),
    )
    assert told_of(folder, rows) == {
        "mended": ("A film.", None, 2),
        "failing": ("Title: x", "the answer is off-format: it holds 'Title:'", 2),
        "good": ("A book.", None, 0),
    }


def test_attempts_that_no_model_has_seen_are_no_failures(folder: StageFolder) -> None:
    rows = rows_of(("a", 1, None, "down"), ("a", 2, "", None), ("a", 3, None, "down"))
    reasons = pa.array([UNAVAILABLE, None, UNAVAILABLE], pa.string())
    rows = rows.set_column(rows.schema.get_field_index(FINISH_REASON), STORED.field(FINISH_REASON), reasons)
    assert told_of(folder, rows) == {"a": (None, "down", 1)}
    assert AnswerStore(folder, RULES).best().num_attempts.tolist() == [3], (
        "the next attempt is the fourth, and no double of another"
    )


def test_doubles_of_an_attempt_count_once(folder: StageFolder) -> None:
    rows = rows_of(("a", 1, None, "no memory"), ("a", 1, None, "no memory"), ("a", 2, None, "no room"))
    assert told_of(folder, rows) == {"a": (None, "no room", 2)}


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


@settings(deadline=None, max_examples=30)
@given(ROWS, st.randoms(), st.integers(0, 12))
def test_the_order_of_rows_files_and_doubles_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], random: Any, cut: int
) -> None:
    folder = RunFolder(str(tmp_path_factory.mktemp("run"))).stage("profile")
    mixed = [*rows, *random.sample(rows, len(rows) // 2)]
    random.shuffle(mixed)
    best = told_of(folder, rows_of(*rows))
    assert told_of(folder, rows_of(*mixed[:cut]), rows_of(*mixed[cut:])) == best
    AnswerStore(folder, RULES).compact()
    assert told(folder, AnswerStore(folder, RULES).best()) == best
    for hash_, (text, error, num_failures) in best.items():
        own = sorted((row for row in rows if row[0] == hash_), key=lambda row: row[1])
        usable = [row for row in own if row[3] is None and row[2] in ("A film.", "A book.")]
        assert num_failures == len(own) - len(usable)
        assert text == (usable[0] if usable else own[-1])[2]
        assert (error is None) == bool(usable)


def test_what_is_committed_is_read_and_survives_compaction(folder: StageFolder) -> None:
    store = AnswerStore(folder, RULES)
    assert told(folder, store.best()) == {}
    store.compact()
    store.commit([])
    assert folder.files() == []
    store.commit([rows_of(("a", 1, None, "no memory")), rows_of(("b", 1, "A film.", None))])
    store.commit([rows_of(("a", 2, "A book.", None))])
    store.keep_rate("vllm m", Rate(output_tokens_per_s=5.0, num_answers=3))
    expected = {"a": ("A book.", None, 1), "b": ("A film.", None, 0)}
    assert told(folder, store.best()) == expected
    store.compact()
    assert len([name for name in folder.files("generated/") if name.endswith(".parquet")]) == 1
    assert told(folder, store.best()) == expected
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
    assert told(folder, store.best()) == {"a": (None, "no memory", 2)}


def test_rates_are_kept_by_engine(folder: StageFolder) -> None:
    store = AnswerStore(folder, RULES)
    assert store.rate("vllm m") is None
    store.keep_rate("vllm m", Rate(output_tokens_per_s=5.0, num_answers=3))
    store.keep_rate("endpoint m", Rate(output_tokens_per_s=9.0, num_answers=4))
    assert store.rate("vllm m") == Rate(output_tokens_per_s=5.0, num_answers=3)
    assert store.rate("vllm other") is None


def test_what_the_store_holds_is_told_in_the_memory_of_one_file(folder: StageFolder) -> None:
    store, num_files, num_rows = AnswerStore(folder, RULES), 12, 4000
    random = np.random.default_rng(0)
    for file in range(num_files):
        texts = [random.bytes(750).hex() for _ in range(num_rows)]
        rows = [(f"{file} {row}", 1, text, None) for row, text in enumerate(texts)]
        store.commit([rows_of(*rows)])
    all_bytes = num_files * num_rows * 1500
    assert peak_growth(store.best) < all_bytes / 2
    store.compact()
    names = folder.files("generated/")
    assert len(names) < num_files / 4
    files = [pq.ParquetFile(folder.path(name)) for name in names]
    groups = [file.metadata.row_group(number).num_rows for file in files for number in range(file.num_row_groups)]
    assert sum(groups) == num_files * num_rows
    assert max(groups) < ROWS_PER_GROUP + num_rows, "what is joined at a time"
