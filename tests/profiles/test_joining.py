"""The join of prompts and answers that lie in several files of several row groups, compared with a dictionary."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_prompts import hash_of

from sracl_dist.columns import ATTEMPT, ERROR, PROMPT_HASH, TEXT
from sracl_dist.profiles import store as store_module
from sracl_dist.profiles.hashes import packed
from sracl_dist.profiles.joining import write_tables
from sracl_dist.profiles.prompt_shards import PromptShard, write_prompts
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.profiles.quality import answer_rules
from sracl_dist.profiles.store import STORED, AnswerStore
from sracl_dist.profiles.table import KINDS
from sracl_dist.profiles.template import Chat
from sracl_dist.run_folder import RunFolder
from sracl_dist.tasks import Tasks

RULES = answer_rules([Chat(message="<data>\nTitle: $title\n</data>")])
NAMES = "abcdefgh"
USABLE = ("A film.", "A book.")
Row = tuple[str, int, str | None, str | None]
"""Name of the prompt, attempt, text and error."""
ROWS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.integers(1, 4),
        st.sampled_from([None, "", "Title: x", *USABLE]),
        st.sampled_from([None, None, "no memory"]),
    ),
    max_size=30,
    unique_by=lambda row: row[:2],
)
PROMPTS = st.lists(st.sampled_from([*NAMES, "unasked"]), max_size=10)


def stored(rows: Sequence[Row]) -> pa.Table:
    names = (PROMPT_HASH, ATTEMPT, TEXT, ERROR)
    answers = [dict.fromkeys(STORED.names) | dict(zip(names, (hash_of(row[0]), *row[1:]), strict=True)) for row in rows]
    return pa.Table.from_pylist(answers, schema=STORED)


def expected(rows: Sequence[Row], name: str) -> tuple[str | None, bool]:
    """Text of the prompt's first usable answer, or none; and whether its last failure is one of the engine."""
    own = sorted((row for row in rows if row[0] == name), key=lambda row: row[1])
    usable = [row[2] for row in own if row[2] in USABLE and row[3] is None]
    if usable:
        return usable[0], False
    return None, bool(own) and own[-1][3] == "no memory"


@settings(deadline=None, max_examples=40)
@given(rows=ROWS, items=PROMPTS, users=PROMPTS, data=st.data())
def test_many_files_and_groups_are_joined_like_one_dictionary(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], items: list[str], users: list[str], data: Any
) -> None:
    folder = RunFolder(str(tmp_path_factory.mktemp("run"))).stage("profile")
    doubles = data.draw(st.lists(st.sampled_from(rows), max_size=6)) if rows else []
    mixed = data.draw(st.permutations([*rows, *doubles]))
    store, num_compacted = AnswerStore(folder, RULES), data.draw(st.integers(0, len(mixed)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "ROWS_PER_GROUP", 3)
        for start in range(0, num_compacted, 2):
            store.commit([stored(mixed[start : min(start + 2, num_compacted)])])
        store.compact()
    for start in range(num_compacted, len(mixed), 4):
        store.commit([stored(mixed[start : start + 4])])

    names, shards = {"items": items, "users": users}, []
    for kind in KINDS:
        for start in range(0, len(names[kind]), 3):
            own = names[kind][start : start + 3]
            shards.append(PromptShard(kind=kind, keys=np.arange(start, start + len(own))))
            prompts = [Prompt(kind, start + place, [7], hash_of(name)) for place, name in enumerate(own)]
            write_prompts(folder, shards[-1], iter(prompts))
    hashes = packed(pa.array([hash_of(name) for name in [*items, *users]], pa.string()))
    write_tables(Tasks(num_workers=0), folder, shards, hashes, store.best(), "m", RULES)

    for kind in KINDS:
        tables = [folder.read_table(shard.answers.name) for shard in shards if shard.kind == kind]
        found = [(row[PROMPT_HASH], row[TEXT], row[ERROR]) for table in tables for row in table.to_pylist()]
        assert [hash_ for hash_, _, _ in found] == [hash_of(name) for name in names[kind]]
        for name, (_, text, error) in zip(names[kind], found, strict=True):
            own_text, is_of_engine = expected(rows, name)
            assert text == own_text
            assert (error is None) == (own_text is not None)
            assert (error == "no memory") == is_of_engine
            assert (error == "no answer was received") == (name not in {row[0] for row in rows})


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6), wanted=st.sets(st.integers(0, 29)))
def test_some_rows_of_many_groups_are_those_of_the_table(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], wanted: set[int]
) -> None:
    folder, ends = RunFolder(str(tmp_path_factory.mktemp("run"))).stage("profile"), np.cumsum(sizes).tolist()
    table = pa.table({"number": pa.array(range(ends[-1]), pa.int64())})
    pieces = (table.slice(end - size, size) for size, end in zip(sizes, ends, strict=True))
    folder.write_tables("some.parquet", table.schema, pieces)
    rows = np.array(sorted(row for row in wanted if row < ends[-1]), np.int64)
    assert folder.read_rows("some.parquet", rows)["number"].to_pylist() == rows.tolist()
