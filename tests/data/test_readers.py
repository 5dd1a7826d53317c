"""Every format gives the same rows, and every broken line or file is told in one sentence or one reject."""

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sracl_dist.data import delimited, lines, readers
from sracl_dist.data.readers import find_files, read_files
from sracl_dist.data.rejects import EXCERPT_CHARS, Rejects
from sracl_dist.errors import InputError

WANTED = {"user_id": "user", "item_id": "item", "time": "when"}
ROWS = [("u1", "i1", "5"), ("u2", "i2", "7"), ("\u00fc3", "i 3", "9")]


def read(paths, wanted=WANTED, separator="|"):
    """Rows with their numbers, and the rejects as tuples."""
    rejects = Rejects()
    found = []
    for _, rows in read_files([Path(path) for path in paths], wanted, "data.columns", rejects, "test", separator):
        values = [rows.columns[name].to_pylist() for name in wanted]
        found += list(zip(rows.numbers.tolist(), *values, strict=True))
    assert rejects.num_read == len(found) + len(rejects)
    return found, [tuple(row.values()) for row in rejects.table().to_pylist()]


def as_text(delimiter, header="user,x,item,when"):
    rows = [header.replace(",", delimiter)]
    rows += [delimiter.join((user, "unused", item, when)) for user, item, when in ROWS]
    return "\n".join(rows) + "\n"


def as_json():
    return "".join(json.dumps({"user": user, "item": item, "when": int(when)}) + "\n" for user, item, when in ROWS)


CONTENTS = {
    "log.csv": as_text(","),
    "log.tsv": as_text("\t"),
    "log.inter": as_text("\t", "user:token,x:float,item:token,when:float"),
    "log.jsonl": as_json(),
    "log.json": as_json(),
    "literal.json": "".join(str({"user": u, "item": i, "when": int(t)}) + "\n" for u, i, t in ROWS),
    "bom.csv": "\ufeff" + as_text(","),
    "windows.csv": as_text(",").replace("\n", "\r\n"),
    "no_last_break.csv": as_text(",").rstrip("\n"),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("packed", [False, True])
def test_text_formats_agree(write, name, packed):
    content = CONTENTS[name].encode()
    path = write(name + ".gz", gzip.compress(content)) if packed else write(name, content)
    assert read([path]) == ([(number, *row) for number, row in enumerate(ROWS, 1)], [])


def test_parquet_gives_the_same_rows_whatever_the_types(tmp_path):
    table = pa.table(
        {
            "user": pa.array([row[0] for row in ROWS]).dictionary_encode(),
            "item": pa.array([row[1] for row in ROWS], pa.large_string()),
            "when": pa.array([5, 7, 9], pa.uint32()),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    assert read([tmp_path / "log.parquet"])[0] == [(number, *row) for number, row in enumerate(ROWS, 1)]


def test_parquet_numbers_as_ids_and_bytes_that_are_not_utf8(tmp_path):
    broken = pa.array([b"a", b"\xff", None], pa.binary())
    table = pa.table({"user": pa.array([1.0, 2.0, None]), "item": broken, "when": pa.array([1, 2, 3], pa.int16())})
    pq.write_table(table, tmp_path / "log.parquet")
    found, _ = read([tmp_path / "log.parquet"])
    assert found == [(1, "1", "a", 1), (2, "2", lines.INVALID, 2), (3, None, None, 3)]


def test_parquet_nested_lists_are_flattened(tmp_path):
    nested = pa.array([[["a", "b"], ["c"]], None, [], [[], ["d"]]], pa.list_(pa.list_(pa.string())))
    pq.write_table(pa.table({"id": ["1", "2", "3", "4"], "cats": nested}), tmp_path / "items.parquet")
    found, _ = read([tmp_path / "items.parquet"], {"item_id": "id", "categories": "cats"})
    assert [row[2] or [] for row in found] == [["a", "b", "c"], [], [], ["d"]]


def test_several_files_and_patterns_are_read_in_order(write, tmp_path):
    for name, user in (("b1.csv", "x"), ("b2.csv", "y"), ("a.csv", "z")):
        write(name, f"user,item,when\n{user},i,1\n")
    paths = find_files(
        [str(tmp_path / "b*.csv"), str(tmp_path / "a.csv"), str(tmp_path / "b1.csv")], "data.interactions"
    )
    assert [row[1] for row in read(paths)[0]] == ["x", "y", "z"]


def test_rows_with_a_wrong_number_of_fields_are_rejected_with_their_number(write):
    text = "user,item,when\nu1,i1,1\nu2,i2\n\nu3,i3,3\nu4,i4,4,4\nu5,i5,5\n"
    found, rejected = read([write("log.csv", text)])
    assert [row[0] for row in found] == [1, 3, 5]
    reason = "wrong number of fields"
    assert rejected == [("log.csv", 2, reason, "u2,i2"), ("log.csv", 4, reason, "u4,i4,4,4")]


def test_numbers_stay_right_over_many_blocks(write, monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 256)
    monkeypatch.setattr(lines, "CHUNK_BYTES", 100)
    bad = {3, 4, 50, 51, 52, 199, 200}
    rows = [f"u{n}" if n in bad else f"u{n},i{n},{n}" for n in range(1, 201)]
    found, rejected = read([write("log.csv", "user,item,when\n" + "\n".join(rows))])
    assert [(row[0], row[1]) for row in found] == [(n, f"u{n}") for n in range(1, 201) if n not in bad]
    assert sorted(row[1] for row in rejected) == sorted(bad)
    assert all(row[3] == f"u{row[1]}" for row in rejected)


def test_invalid_utf8_is_marked_in_used_columns_only(write):
    text = b"user,x,item,when\nu1,\xff,i1,1\nu2,x,\xc3(,2\nu3\xff\n\xc3\xa9,x,i4,4\n"
    found, rejected = read([write("log.csv", text)])
    assert found == [(1, "u1", "i1", "1"), (2, "u2", f"{lines.INVALID}(", "2"), (4, "\u00e9", "i4", "4")]
    assert [row[1:3] for row in rejected] == [(3, "wrong number of fields")]


def test_half_a_surrogate_pair_in_json_is_marked(write):
    text = '{"user": "\\ud800", "item": "i", "when": 1}\n'
    assert lines.INVALID in read([write("log.jsonl", text)])[0][0][1]


@pytest.mark.parametrize("name", ["log.csv", "log.tsv"])
def test_long_lines_are_rejected_and_the_rest_is_read(write, name):
    tab = "," if name.endswith("csv") else "\t"
    long = tab.join(("u2", "i" * (3 * lines.MAX_LINE_BYTES), "2"))
    at_limit = tab.join(("u3", "i" * (lines.MAX_LINE_BYTES - 5), "3"))
    rows = [
        tab.join(("user", "item", "when")),
        tab.join(("u1", "i1", "1")),
        long,
        at_limit,
        tab.join(("u4", "i4", "4")),
    ]
    found, rejected = read([write(name, "\n".join(rows) + "\n")])
    assert [row[:2] for row in found] == [(1, "u1"), (3, "u3"), (4, "u4")]
    assert [row[:3] for row in rejected] == [(name, 2, "line too long")]
    assert rejected[0][3].startswith("u2 iii")


def test_long_and_broken_json_lines_are_rejected(write):
    good = '{"user": "u", "item": "i", "when": 1}'
    long = '{"user": "' + "u" * (lines.MAX_LINE_BYTES + 1) + '"}'
    deep = "[" * 50_000
    text = "\n".join([good, "", "{oops", long, "[1, 2]", "{'a': __import__('os')}", deep, good]) + "\n"
    found, rejected = read([write("log.jsonl", text)])
    assert [row[0] for row in found] == [1, 8]
    reasons = [(row[1], row[2]) for row in rejected]
    assert reasons == [(3, "not a JSON object"), (4, "line too long"), *((n, "not a JSON object") for n in (5, 6, 7))]
    assert all(len(row[3]) <= EXCERPT_CHARS for row in rejected)


def test_quoted_fields_may_hold_delimiters_quotes_and_line_breaks(write):
    text = 'user,item,when\n"u,1","i ""1""\nx",1\nu2,i2,2\n'
    assert read([write("log.csv", text)])[0] == [(1, "u,1", 'i "1"\nx', "1"), (2, "u2", "i2", "2")]


def test_an_open_quote_rejects_every_line_it_swallows(write):
    text = 'user,item,when\nu1,i1,1\n"u2,i2,2\nu3,i3,3\nu4,i4,4\n'
    found, rejected = read([write("log.csv", text)])
    assert [row[0] for row in found] == [1]
    assert [row[1:3] for row in rejected] == [(n, "inside an unclosed quote") for n in (2, 3, 4)]


def test_an_open_quote_in_a_large_file_is_an_error(write, monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 256)
    text = 'user,item,when\n"u2,i2,2\n' + "u3,i3,3\n" * 500
    with pytest.raises(InputError, match="close the quote"):
        read([write("log.csv", text)])


def test_quotes_mean_nothing_in_tsv(write):
    text = 'user\titem\twhen\n"u1\t12" ruler\t1\n'
    assert read([write("log.tsv", text)])[0] == [(1, '"u1', '12" ruler', "1")]


def test_json_values_of_other_kinds(write):
    rows = [
        {"user": 12, "item": 3.5, "when": None, "cats": [["a", ["b"]], "c", 4, None], "title": ["x", "y"]},
        {"user": True, "item": {"a": 1}, "when": [1], "cats": "p|q", "title": {"a": 1}},
    ]
    wanted = {**WANTED, "categories": "cats", "title": "title"}
    found, _ = read([write("log.jsonl", "\n".join(map(json.dumps, rows)))], wanted)
    assert found == [
        (1, "12", "3.5", None, ["a", "b", "c", "4"], "x y"),
        (2, None, None, None, ["p", "q"], None),
    ]


def test_movielens_dat(write):
    found, _ = read([write("movies.dat", b"1::Caf\xe9 (1999)::Drama|War\n")], {"item_id": "item_id", "title": "title"})
    assert found == [(1, "1", "Caf\u00e9 (1999)")]


BAD_FILES = {
    "missing column": ("log.csv", b"user,item\nu,i\n", "has no column 'when'"),
    "missing column in JSON": ("log.jsonl", b'{"user": "u", "item": "i"}\n', "has no column 'when'"),
    "column twice": ("log.csv", b"user,item,when,user\nu,i,1,u\n", "has the column 'user' 2 times"),
    "no byte": ("log.csv", b"", "is empty"),
    "blank first line": ("log.tsv", b"\nu\ti\t1\n", "no header line"),
    "not gzip": ("log.csv.gz", b"user,item,when\n", "is not a whole gzip file"),
    "truncated gzip": ("log.csv.gz", gzip.compress(as_text(",").encode() * 50)[:-20], "is not a whole gzip file"),
    "truncated JSON gzip": ("log.jsonl.gz", gzip.compress(as_json().encode() * 50)[:-20], "is not a whole gzip file"),
    "corrupt gzip": ("log.csv.gz", gzip.compress(b"user,item,when\n")[:10] + b"\xff" * 30, "is not a whole gzip file"),
    "not Parquet": ("log.parquet", b"user,item,when\n", "cannot be read"),
    "empty Parquet": ("log.parquet", b"", "cannot be read"),
    "unknown ending": ("log.xlsx", b"x", "unknown ending '.xlsx'"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_end_in_one_sentence(write, case):
    name, content, message = BAD_FILES[case]
    path = write(name, content)
    with pytest.raises(InputError) as caught:
        read([path])
    text = str(caught.value)
    assert path in text
    assert message in text
    assert "\n" not in text
    assert text.endswith(".")


def test_truncated_parquet(write, tmp_path):
    pq.write_table(pa.table({"user": ["u"], "item": ["i"], "when": [1]}), tmp_path / "whole.parquet")
    half = write("log.parquet", (tmp_path / "whole.parquet").read_bytes()[:-30])
    with pytest.raises(InputError, match="cannot be read"):
        read([half])


def test_parquet_column_of_an_unusable_type(tmp_path):
    pq.write_table(pa.table({"user": [{"a": 1}], "item": ["i"], "when": [1]}), tmp_path / "log.parquet")
    with pytest.raises(InputError, match="column 'user' of type struct"):
        read([tmp_path / "log.parquet"])


def test_files_that_do_not_exist(tmp_path):
    with pytest.raises(InputError, match=r"matches no file; check data\.interactions"):
        find_files([str(tmp_path / "none*.csv")], "data.interactions")
    with pytest.raises(InputError, match="is a folder"):
        find_files([str(tmp_path)], "data.interactions")
    with pytest.raises(InputError, match="does not exist"):
        read([tmp_path / "gone.csv"])


def test_header_only_has_no_rows(write):
    assert read([write("log.csv", "user,item,when\n")]) == ([], [])
    assert read([write("log.csv", "user,item,when\n\n\n")]) == ([], [])


fields = st.text(st.characters(codec="utf-8", exclude_characters="\0\r" + lines.INVALID), max_size=8)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(fields, min_size=1, max_size=4).filter(lambda row: row not in ([""],)), max_size=20))
def test_csv_agrees_with_the_standard_library(tmp_path, rows):
    """Rows of three fields are read as Python's own module reads them, all others are rejected."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([["user", "item", "when"], *rows])
    path = tmp_path / "log.csv"
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    found, rejected = read([path])
    assert [row[1:] for row in found] == [tuple(row) for row in rows if len(row) == 3]
    assert len(rejected) >= sum(len(row) != 3 for row in rows)


@settings(deadline=None, max_examples=100)
@given(
    content=st.lists(st.sampled_from([b"a", b"bcd", b"\n", b"x" * 30, b"\n\n"]), max_size=40).map(b"".join),
    chunk=st.integers(1, 50),
)
def test_pieces_of_whole_lines_equal_a_plain_loop(content, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "MAX_LINE_BYTES", 20)
        patch.setattr(lines, "CHUNK_BYTES", chunk)
        stream = io.BytesIO(content)
        pieces = list(lines._whole_lines(stream.read, lambda line: b"LONG"))
    expected = [b"LONG" if len(line) > 20 else line for line in content.split(b"\n")]
    if expected[-1] == b"":
        expected.pop()
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert b"".join(pieces) == b"".join(line + b"\n" for line in expected)


def test_readers_name_every_format():
    assert all(suffix in readers.FORMATS for suffix in readers._DELIMITED)
