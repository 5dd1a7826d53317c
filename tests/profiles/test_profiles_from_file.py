"""profile.engine=file: profiles come from files by id, and every row of these is accounted for."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from object_store import BUCKET, CREDENTIALS, s3_server
from small_run import NUM_ITEMS, NUM_USERS, small_config, write_log

from sracl_dist.columns import ERROR, FLAWS, KEY, MODEL, PROMPT_HASH, REASON, ROW, SOURCE, TEXT, VALUE
from sracl_dist.config import Config
from sracl_dist.data.by_id import IdPlaces
from sracl_dist.data.rejects import BROKEN_ID, EMPTY_ITEM, EMPTY_TEXT, INVALID_UTF8, OTHER_TEXT, UNKNOWN_ID
from sracl_dist.errors import ConfigError, InputError
from sracl_dist.ids import load_item_ids
from sracl_dist.profiles.from_file import PROFILES
from sracl_dist.profiles.generate import estimate_profiles, generate_profiles
from sracl_dist.profiles.store import STORED
from sracl_dist.profiles.table import read_profiles
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES, run_stage, stage_status


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared run; the stage profile may be written again and again."""
    folder = tmp_path_factory.mktemp("files")
    write_log(folder)
    config = small_config(folder)
    run_stage(STAGES["prepare"], config, RunFolder(config.run.dir), draft_of("prepare", config))
    return folder


def draft_of(name: str, config: Config) -> Any:
    return stage_status(STAGES[name], config, RunFolder(config.run.dir)).draft


def config_of(folder: Path, items: list[str] | None = None, users: list[str] | None = None, *more: str) -> Config:
    lists = [
        f"profile.files.{kind}={json.dumps(names)}" for kind, names in (("items", items), ("users", users)) if names
    ]
    return small_config(folder, "profile.engine=file", *lists, *more)


def taken(folder: Path, *args: Any) -> tuple[dict[str, Any], dict[str, str], list[tuple[Any, ...]]]:
    """Details of the items, their texts by id, and the rejects."""
    config = config_of(folder, *args)
    run = RunFolder(config.run.dir)
    result = generate_profiles(config, run)
    table = run.stage("profile").read_shards("items/", [KEY, TEXT])
    assert table[KEY].to_pylist() == sorted(table[KEY].to_pylist())
    texts = dict(
        zip(load_item_ids(run).external(table[KEY].to_pylist()).to_pylist(), table[TEXT].to_pylist(), strict=True)
    )
    rejects = run.stage("profile").read_table("rejects.parquet")
    counts = result.details["items"]
    assert counts["rows_read"] == len(texts) + counts["rows_repeated"] + sum(counts["rows_rejected"].values())
    return counts, texts, [tuple(row[name] for name in (SOURCE, ROW, REASON, VALUE)) for row in rejects.to_pylist()]


def test_every_row_is_accounted_for(folder: Path) -> None:
    (folder / "one.tsv").write_bytes(
        b"item_id\ttext\n"
        b"i03\tThird  <b>film</b>&amp; more\n"
        b"i01\t \n"
        b"x\tUnknown\n"
        b"i03\tThird film & more\n"
        b"i03\tSomething else\n"
        b"\tNobody's\n"
        b"i04\tbroken \xff\n"
        b"i05\tFifth\n"
    )
    (folder / "two.tsv").write_text("item_id\ttext\ni01\tFirst\ni05\tOther\ni05\tFifth\n")
    counts, texts, rejects = taken(folder, [str(folder / "one.tsv"), str(folder / "two.tsv")], None, *UTF_8)
    assert texts == {"i01": "First", "i03": "Third film & more", "i05": "Fifth"}
    assert sorted(rejects) == [
        ("one.tsv", 2, EMPTY_TEXT, "i01"),
        ("one.tsv", 3, UNKNOWN_ID, "x"),
        ("one.tsv", 5, OTHER_TEXT, "i03"),
        ("one.tsv", 6, EMPTY_ITEM, ""),
        ("one.tsv", 7, INVALID_UTF8, "i04"),
        ("two.tsv", 2, OTHER_TEXT, "i05"),
    ]
    assert (counts["rows_repeated"], counts["with_profile"], counts["without_profile"]) == (2, 3, NUM_ITEMS - 3)


def test_the_tables_are_those_of_a_model(folder: Path) -> None:
    (folder / "users.csv").write_text("who,text\nu05,Likes films\n")
    config = config_of(folder, None, [str(folder / "users.csv")], "profile.files.user_id_column=who")
    run = RunFolder(config.run.dir)
    result = generate_profiles(config, run)
    assert result.rows == {"items": 0, "users": 1}
    profile = run.stage("profile")
    assert not profile.files("items/")
    table = profile.read_shards("users/", PROFILES.names)
    of_model = {KEY, PROMPT_HASH, TEXT, "finish_reason", "num_prompt_tokens", "num_output_tokens", MODEL, FLAWS, ERROR}
    assert set(table.column_names) == of_model
    assert all(table.schema.field(name).type == STORED.field(name).type for name in STORED.names if name in of_model)
    (row,) = table.to_pylist()
    assert (row[TEXT], row[MODEL], row[FLAWS], row[ERROR]) == ("Likes films", "users.csv", [], None)
    assert read_profiles(run, "users", 0, NUM_USERS) == [None] * row[KEY] + ["Likes films"] + [None] * (
        NUM_USERS - 1 - row[KEY]
    )


def test_texts_are_data_and_of_bounded_length(folder: Path) -> None:
    rows = [{"item_id": "i02", "text": "x" * 5000}, {"item_id": "i04", "text": "line\n</s>${oc.env:HOME}\x1b[31m"}]
    (folder / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, texts, _ = taken(folder, [str(folder / "long.jsonl")], None, "data.max_text_chars=100")
    assert texts == {"i02": "x" * 100, "i04": "line ${oc.env:HOME} [31m"}


UTF_8 = ("profile.files.format.encoding=utf-8",)
IDS = [f"i{item:02d}" for item in range(NUM_ITEMS)]
ROWS = st.dictionaries(
    st.sampled_from([*IDS, "x", "y"]), st.text("ab ,;\"'<é", min_size=1, max_size=8).map("t{}".format), min_size=3
)


@settings(deadline=None, max_examples=8)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 10), max_size=3), data=st.data())
def test_order_and_format_of_files_do_not_matter(
    folder: Path, rows: dict[str, str], cuts: list[int], data: Any
) -> None:
    rows["i07"] = "seventh"
    order = data.draw(st.permutations(list(rows)))
    bounds = [0, *sorted(min(cut, len(order)) for cut in cuts), len(order)]
    names = []
    for number, (start, stop) in enumerate(pairwise(bounds)):
        own = [(name, rows[name]) for name in order[start:stop]]
        names.append(write_rows(folder, f"part{number}", data.draw(st.sampled_from(["csv", "jsonl", "parquet"])), own))
    counts, texts, rejects = taken(folder, names)
    assert texts == {name: " ".join(text.split()) for name, text in rows.items() if name in IDS}
    assert {row[3] for row in rejects} == rows.keys() - set(IDS)
    assert counts["rows_repeated"] == 0


def write_rows(folder: Path, name: str, ending: str, rows: list[tuple[str, str]]) -> str:
    path = folder / f"{name}.{ending}"
    if ending == "csv":
        quoted = ["".join(('"', text.replace('"', '""'), '"')) for _, text in rows]
        path.write_text(
            "item_id,text\n" + "".join(f"{own},{text}\n" for (own, _), text in zip(rows, quoted, strict=True))
        )
    elif ending == "jsonl":
        path.write_text("".join(json.dumps({"text": text, "item_id": own}) + "\n" for own, text in rows))
    else:
        columns = {"text": [text for _, text in rows], "item_id": [own for own, _ in rows]}
        pq.write_table(pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()}), path)
    return str(path)


def test_numbers_are_the_ids_that_the_log_spells_with_digits(tmp_path: Path) -> None:
    lines = [f"{user},{100 + item},{item}" for user in range(6) for item in range(6)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    table = pa.table({"item_id": [101.0, 105.0, None, 104.5], "text": ["a", "b", "c", "d"]})
    pq.write_table(table, tmp_path / "profiles.parquet")
    config = config_of(tmp_path, [str(tmp_path / "profiles.parquet")], None, "data.item_texts=[]")
    run_stage(STAGES["prepare"], config, RunFolder(config.run.dir), draft_of("prepare", config))
    _, texts, rejects = taken(tmp_path, [str(tmp_path / "profiles.parquet")], None, "data.item_texts=[]")
    assert texts == {"101": "a", "105": "b"}
    assert [row[1:] for row in rejects] == [(3, EMPTY_ITEM, ""), (4, UNKNOWN_ID, "104.5")]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("item_id,text\n03,a\n", ["'03'", "'i0"]),
        ("item_id,text\n", ["no row"]),
        ("item_id,text\ni03,\n", [EMPTY_TEXT]),
        ("item_id,words\ni03,a\n", ["profile.files.text_column", "words"]),
        ("id,text\ni03,a\n", ["profile.files.item_id_column"]),
        ("", ["empty"]),
        ("1,a\n2,b\n", ["profile.files.format.header"]),
    ],
)
def test_files_without_any_profile_are_refused(folder: Path, content: str, named: list[str]) -> None:
    (folder / "none.csv").write_text(content)
    with pytest.raises(InputError) as refused:
        taken(folder, [str(folder / "none.csv")])
    assert all(word in str(refused.value) for word in named)


def test_quotes_around_a_text_of_a_tsv_are_none_of_it(folder: Path) -> None:
    lines = ['i01\t"One, ""quoted"" word"', 'i02\t"Two" and "three"', 'i03\tIt is 5"', 'i04\t""']
    (folder / "quoted.tsv").write_text("\n".join(["item_id\ttext", *lines]) + "\n")
    _, texts, rejects = taken(folder, [str(folder / "quoted.tsv")])
    assert texts == {"i01": 'One, "quoted" word', "i02": '"Two" and "three"', "i03": 'It is 5"'}
    assert [row[2:] for row in rejects] == [(EMPTY_TEXT, "i04")]


def test_a_line_break_in_an_id_is_broken(folder: Path) -> None:
    pq.write_table(pa.table({"item_id": ["i01\n", "i02"], "text": ["a", "b"]}), folder / "broken.parquet")
    assert [row[2] for row in taken(folder, [str(folder / "broken.parquet")])[2]] == [BROKEN_ID]


def test_a_changed_file_makes_the_stage_run_again(folder: Path) -> None:
    path = folder / "changing.csv"
    path.write_text("item_id,text\ni03,a\n")
    config, stage = config_of(folder, [str(path)]), STAGES["profile"]
    run = RunFolder(config.run.dir)
    run_stage(stage, config, run, draft_of("profile", config))
    assert stage_status(stage, config, run).done
    path.write_text("item_id,text\ni03,ab\n")
    assert not stage_status(stage, config, run).done
    run_stage(stage, config, run, draft_of("profile", config))
    assert stage_status(stage, config, run).done


def test_no_model_is_loaded(folder: Path) -> None:
    (folder / "few.csv").write_text("item_id,text\ni03,a\n")
    program = (
        "import sys; sys.path[:0] = ['tests']; from pathlib import Path; from small_run import small_config\n"
        "from sracl_dist.profiles.generate import generate_profiles; from sracl_dist.run_folder import RunFolder\n"
        f"folder = Path({str(folder)!r})\n"
        "config = small_config(folder, 'profile.engine=file', f'profile.files.items=[{folder}/few.csv]')\n"
        "assert generate_profiles(config, RunFolder(config.run.dir)).rows['items'] == 1\n"
        "assert not {'torch', 'transformers', 'vllm', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
    estimate_profiles(config_of(folder, [str(folder / "few.csv")]), RunFolder(str(folder / "nowhere")))


def test_what_contradicts_the_engine_is_refused(folder: Path) -> None:
    for override in ("profile.max_items=3", "profile.files.items=[]"):
        with pytest.raises(ConfigError, match=override.partition("=")[0].removesuffix(".items")):
            config_of(folder, ["some.csv"], None, override)
    config = config_of(folder, None, None, "embed.items=[a]", "embed.users=[b]")
    assert generate_profiles(config, RunFolder(config.run.dir)).rows == {"items": 0, "users": 0}


def test_files_in_an_object_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as port:
        from sracl_dist.run_folder.locations import open_location

        query = f"?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        filesystem, root = open_location(f"s3://{BUCKET}/{query}", "run.dir")
        with filesystem.open_output_stream(f"{root.rstrip('/')}/profiles/a.csv") as stream:
            stream.write(b"item_id,text\ni03,far\n")
        assert taken(folder, [f"s3://{BUCKET}/profiles/*.csv{query}"])[1] == {"i03": "far"}


@given(ids=st.lists(st.text(max_size=3), unique=True, max_size=8), asked=st.lists(st.none() | st.text(max_size=3)))
def test_places_of_ids_equal_those_of_a_dict(ids: list[str], asked: list[str | None]) -> None:
    own = dict(zip(ids, range(len(ids)), strict=True))
    found = IdPlaces(pa.array(ids, pa.string())).of(pa.array(asked, pa.string()))
    assert found.tolist() == [-1 if one is None else own.get(one, -1) for one in asked]


def test_ids_with_the_same_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setattr(
        "sracl_dist.data.by_id._hashes", lambda ids: np.array([len(text.as_py()) for text in ids], np.uint64)
    )
    places = IdPlaces(pa.array(["a", "bb", "c", "dd", "e"]))
    assert places.of(pa.array(["e", "c", "dd", "x", "yyy"])).tolist() == [4, 2, 3, -1, -1]
