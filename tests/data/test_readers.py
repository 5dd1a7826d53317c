"""Every format gives the same rows, and every broken line or file is told in one sentence or one reject."""

import bz2
import contextlib
import csv
import datetime
import decimal
import gzip
import io
import json
import lzma
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sracl_dist.config.sections import FileFormat
from sracl_dist.data import delimited, json_lines, lines
from sracl_dist.data.files import find_files
from sracl_dist.data.readers import read_rows
from sracl_dist.data.rejects import EXCERPT_CHARS, Rejects
from sracl_dist.data.rows import INVALID, Reading
from sracl_dist.errors import InputError

WANTED = {"user_id": "user", "item_id": "item", "time": "when"}
ROWS = [("u1", "i1", "5"), ("u2", "i2", "7"), ("\u00fc3", "i 3", "9")]
NUMBERED = [(number, *row) for number, row in enumerate(ROWS, 1)]
UTF = ("utf-8", "utf-16")
QUOTE, FIELDS, JSON = "inside an unclosed quote", "wrong number of fields", "not a JSON object"


def read(path, wanted=WANTED, *, flags=(), **how):
    """Rows with their numbers, and the rejects as tuples."""
    (file,) = find_files([str(path)], "data.interactions")
    how = {"format": FileFormat(**how), "flags": flags, "setting": "data.columns.{}", "format_setting": "data.format"}
    reading = Reading(file=file, wanted=wanted, rejects=Rejects(), **how)
    found = []
    for rows in read_rows(reading):
        found += list(zip(rows.numbers.tolist(), *(rows.columns[name].to_pylist() for name in wanted), strict=True))
    assert reading.num_rows == reading.rejects.num_read == len(found) + len(reading.rejects)
    return found, [tuple(row.values()) for row in reading.rejects.table().to_pylist()]


@contextlib.contextmanager
def blocks_of(num_bytes, first=None):
    """Text is read in blocks of so many bytes, the first one of another size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "CHUNK_BYTES", num_bytes)
        patch.setattr(lines, "_SNIFFED_BYTES", first or num_bytes)
        yield patch


def as_text(delimiter=",", header="user,x,item,when"):
    rows = [header.replace(",", delimiter)] if header else []
    rows += [delimiter.join((user, "unused", item, when)) for user, item, when in ROWS]
    return "\n".join(rows) + "\n"


OBJECTS = [{"user": user, "item": item, "when": int(when)} for user, item, when in ROWS]
AS_JSON = "".join(json.dumps(row) + "\n" for row in OBJECTS)
CONTENTS = {
    "log.csv": as_text(),
    "semicolons.csv": as_text(";"),
    "bars.txt": as_text("|"),
    "colons.dat": as_text("::"),
    "tabs": as_text("\t"),
    "commas.inter": as_text(),
    "log.tsv": as_text("\t"),
    "log.inter": as_text("\t", "user:token,x:float,item:token,when:float"),
    "log.jsonl": AS_JSON,
    "json.txt": AS_JSON,
    "log.json": json.dumps(OBJECTS),
    "pretty.json": json.dumps(OBJECTS, indent=2, ensure_ascii=False),
    "literal.json": "".join(f"{row}\n" for row in OBJECTS),
    "windows.csv": as_text().replace("\n", "\r\n"),
    "mac.csv": as_text().replace("\n", "\r"),
    "no_last_break.csv": as_text().rstrip("\n"),
    "twice.csv": as_text().replace("\n", "\r\r\n"),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1"])
def test_text_formats_and_encodings_agree(write, name, encoding):
    assert read(write(name, CONTENTS[name].encode(encoding))) == (NUMBERED, [])


def zstd(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACKED = {"gzip": gzip.compress, "zstd": zstd, "bzip2": bz2.compress, "xz": lzma.compress, "not": bytes}


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.jsonl", "log.gz"])
@pytest.mark.parametrize("how", PACKED)
def test_packing_is_known_by_the_content(write, name, how):
    content = (AS_JSON if "json" in name else as_text()).encode()
    assert read(write(name, PACKED[how](content))) == (NUMBERED, [])


def test_a_gzip_file_may_have_several_members(write):
    parts = [gzip.compress(line.encode()) for line in as_text().splitlines(keepends=True)]
    assert read(write("log.csv.gz", b"".join(parts))) == (NUMBERED, [])


def test_a_layout_that_is_set_is_taken(write):
    how = {"separator": "<>", "header": ["user", "x", "item", "when"], "encoding": "cp437"}
    assert read(write("log.csv", as_text("<>", "").encode("cp437")), **how) == (NUMBERED, [])
    # The separator may be left to be found, and one that Arrow cannot take in its place may be in the text.
    text = as_text("::", "").replace("unused", "un\x1fused")
    assert read(write("log.txt", text), header=how["header"]) == (NUMBERED, [])


def test_latin1_is_told_and_a_few_bad_bytes_are_rejected(write, capsys):
    good = b"\xc3\xa9,x,i4,4\n"
    text = b"user,x,item,when\nu1,\xff,i1,1\nu2,\xc3\xa9,\xc3(,2\nu3\xff\n" + 3 * good
    found, rejected = read(write("log.csv", text))
    assert found[:3] == [(1, "u1", "i1", "1"), (2, "u2", f"{INVALID}(", "2"), (4, "\u00e9", "i4", "4")]
    assert [row[1:3] for row in rejected] == [(3, FIELDS)]
    assert "Latin-1" not in capsys.readouterr().err
    read(write("latin.csv", as_text().encode("latin-1")))
    assert "Latin-1" in capsys.readouterr().err
    assert read(write("log.csv", as_text().encode("latin-1")), encoding="utf-8")[0][2][1] == f"{INVALID}3"
    assert read(write("u16.csv", as_text().encode("utf-16-le") + b"\x00\xd8\n\x00"))[1][0][2] == FIELDS


def parquet(tmp_path, **columns):
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    return tmp_path / "log.parquet"


UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")
D = decimal.Decimal
IDS = {
    "text": (pa.array(["a", None, "NaN"], pa.large_string()), ["a", None, None]),
    "view": (pa.array(["a", None], pa.string_view()), ["a", None]),
    "dictionary": (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
    "bytes": (pa.array([b"a", b"\xff", None], pa.large_binary()), ["a", INVALID, None]),
    "fixed bytes": (pa.array([b"ab", None], pa.binary(2)), ["ab", None]),
    "uuid": (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([UUID.bytes, None], pa.binary(16))), [str(UUID), None]),
    "16 bytes": (pa.array([UUID.bytes], pa.binary(16)), [str(UUID)]),
    "unsigned": (pa.array([2**64 - 1, 0], pa.uint64()), ["18446744073709551615", "0"]),
    "float": (pa.array([12.0, 0.5, float("nan"), float("inf"), None]), ["12", "0.5", None, None, None]),
    "half": (pa.array([0.1, 2], pa.float32()), ["0.1", "2"]),
    "decimal": (pa.array([D("1.00"), D("1.50"), None], pa.decimal128(38, 2)), ["1", "1.5", None]),
    "large decimal": (pa.array([D(100)], pa.decimal256(60, 0)), ["100"]),
    "small decimal": (pa.array([D("1E-9"), D(20)], pa.decimal128(30, 10)), ["0.000000001", "20"]),
    "date": (pa.array([datetime.date(2024, 3, 1)]), ["2024-03-01"]),
    "timestamp": (pa.array([datetime.datetime(2024, 3, 1, 9)], pa.timestamp("ms")), ["2024-03-01T09:00:00.000"]),
    "null": (pa.nulls(2), [None, None]),
}


TIMES = {
    "time32": (pa.array([datetime.time(0, 0, 2)], pa.time32("ms")), [2000]),
    "duration": (pa.array([7], pa.duration("us")), [7]),
    "double": (pa.array([1.25, float("nan")]), [1.25, None]),
    "decimal": (pa.array([D("1.250")], pa.decimal128(10, 3)), ["1.25"]),
    "int": (pa.array([5], pa.int16()), [5]),
}


@pytest.mark.parametrize(
    ("name", "case"), [*(("item_id", case) for case in IDS.values()), *(("time", case) for case in TIMES.values())]
)
def test_parquet_ids_of_every_type_are_text_and_times_keep_their_digits(tmp_path, name, case):
    assert read(parquet(tmp_path, x=case[0]), {name: "x"})[0] == list(enumerate(case[1], 1))


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, pa.list_view, lambda kind: pa.list_(kind, 2)])
def test_parquet_lists_are_flat_categories_and_joined_texts(tmp_path, kind):
    values = pa.array([["a", "b"], None, ["c", None]], kind(pa.string()))
    found, _ = read(parquet(tmp_path, x=values), {"categories": "x", "description": "x"})
    assert [(one or [], two or None) for _, one, two in found] == [(["a", "b"], "a b"), ([], None), (["c"], "c")]


def test_nested_lists_of_parquet_are_flat_categories(tmp_path):
    nested = pa.array([[["a", "b"], ["c"]], None, [], [[], ["d"]]], pa.list_(pa.list_(pa.string())))
    found, _ = read(parquet(tmp_path, x=nested), {"categories": "x"})
    assert [row[1] or [] for row in found] == [["a", "b", "c"], [], [], ["d"]]


@pytest.mark.parametrize("value", [{"a": 1}, ["a"], True])
def test_parquet_column_of_an_unusable_type(tmp_path, value):
    with pytest.raises(InputError, match=r"log\.parquet has the column 'user' of type"):
        read(parquet(tmp_path, user=[value], item=["i"], when=[1]))


def test_parquet_is_known_by_its_content(tmp_path):
    path = parquet(tmp_path, user=["u"], item=["i"], when=[1]).rename(tmp_path / "log.csv")
    assert read(path)[0] == [(1, "u", "i", 1)]


def test_rows_with_a_wrong_number_of_fields_are_rejected_with_their_number(write):
    text = "user,item,when\nu1,i1,1\nu2,i2\n\n\r\nu3,i3,3\nu4,i4,4,4\n \nu5,i\0,nan\n"
    found, rejected = read(write("log.csv", text))
    assert found == [(1, "u1", "i1", "1"), (3, "u3", "i3", "3"), (6, "u5", "i\0", None)]
    assert [row[1:] for row in rejected] == [(2, FIELDS, "u2,i2"), (4, FIELDS, "u4,i4,4,4"), (5, FIELDS, " ")]


@pytest.mark.parametrize("quote", ["", '"'])
def test_numbers_stay_right_over_many_blocks(write, quote):
    bad = {3, 4, 50, 51, 52, 199, 200}
    rows = [
        f"u{n}" if n in bad else f'u{n},i{n},{quote}{n}\n"' if quote and n == 60 else f"u{n},i{n},{n}"
        for n in range(1, 201)
    ]
    with blocks_of(100, 50):
        found, rejected = read(write("log.csv", "user,item,when\n" + "\n".join(rows)))
    assert [(row[0], row[1]) for row in found] == [(n, f"u{n}") for n in range(1, 201) if n not in bad]
    assert [(row[1], row[3]) for row in rejected] == [(n, f"u{n}") for n in sorted(bad)]


@pytest.mark.parametrize("name", ["log.csv", "log.tsv"])
def test_long_lines_are_rejected_and_the_rest_is_read(write, name):
    tab = "," if name.endswith("csv") else "\t"
    sizes = [2, 3 * lines.MAX_LINE_BYTES, lines.MAX_LINE_BYTES - 5, 2]
    rows = [("user", "item", "when"), *((f"u{n}", "i" * size, str(n)) for n, size in enumerate(sizes, 1))]
    found, rejected = read(write(name, "\n".join(map(tab.join, rows)) + "\n"))
    assert [row[:2] for row in found] == [(1, "u1"), (3, "u3"), (4, "u4")]
    assert [row[:3] for row in rejected] == [(name, 2, "line too long")]
    assert rejected[0][3].startswith(f"u2{tab}iii".replace("\t", " "))


def test_long_and_broken_json_lines_are_rejected(write):
    good = '{"user": "u", "item": "i", "when": 1}'
    long = '{"user": "' + "u" * (lines.MAX_LINE_BYTES + 1) + '"}'
    text = "\n".join([good, "", "{oops", long, "[1, 2]", "{'a': __import__('os')}", "[" * 50_000, good]) + "\n"
    found, rejected = read(write("log.jsonl", text))
    assert [row[0] for row in found] == [1, 8]
    assert [(row[1], row[2]) for row in rejected] == [(3, JSON), (4, "line too long"), (5, JSON), (6, JSON), (7, JSON)]
    assert all(len(row[3]) <= EXCERPT_CHARS for row in rejected)


@pytest.mark.parametrize("chunk", [1, 7, 4 << 20])
def test_a_json_array_is_read_object_by_object(write, chunk):
    good = '{"user": "\u00fc]", "item": "}, {", "when": [1]}'
    broken, long = '{"user": tru}', '{"user": "' + "u" * 100 + '"}'
    text = f" [\n{good},{broken},\n{good}, 5, {long} ,{good},{good[:9]}"
    with blocks_of(chunk, 20) as patch:
        patch.setattr(json_lines, "MAX_LINE_BYTES", 60)
        (found, rejected), second = (read(write("log.json", text.encode(name)), encoding=name) for name in UTF)
    assert (found, rejected) == second
    assert [row[:2] for row in found] == [(1, "\u00fc]"), (3, "\u00fc]"), (6, "\u00fc]")]
    assert [row[1:3] for row in rejected] == [(2, JSON), (4, JSON), (5, "line too long"), (7, JSON)]
    assert read(write("empty.json", "[]")) == read(write("header.csv", "user,item,when\n\n\n")) == ([], [])


def test_json_values_of_other_kinds(write):
    text = (
        '{"user": 12.0, "item": 3.5, "when": 1389657600.1234567890, "cats": [["a", ["b"]], 4, null], "title": ["x"]}\n'
        '{"user": true, "item": {"a": 1}, "when": [1], "cats": "p|q", "title": NaN}\n'
        '{"user": NaN, "item": 1e400, "when": -Infinity, "cats": NaN, "title": "nan"}\n'
        '{"user": "\\ud800", "item": 1e2, "when": 1e2}\n'
    )
    found, _ = read(write("log.jsonl", text), {**WANTED, "categories": "cats", "title": "title"})
    assert found == [
        (1, "12", "3.5", "1389657600.1234567890", ["a", "b", "4"], "x"),
        (2, None, None, None, ["p", "q"], None),
        (3, None, None, None, None, None),
        (4, INVALID, "100", "1e2", None, None),
    ]


def test_quoted_fields_may_hold_delimiters_quotes_and_line_breaks(write):
    text = 'user,item,when\n"u,1","i ""1""\n\nx",1\nu2,i"2"x,2\n"one\ntwo",i3,3\n'
    found, rejected = read(write("log.csv", text))
    assert found == [(1, "u,1", 'i "1"\n\nx', "1"), (2, "u2", 'i"2"x', "2"), (3, "one\ntwo", "i3", "3")]
    assert rejected == []


OPEN = {  # lines behind the header, numbers of the rows, numbers of the rejects
    "to the end": ('u1,i1,1\n"u2,i2,2\nu3,i3,3\nu4,i4,4', [1], [2, 3, 4]),
    "in the last column": ('u1,i1,1\nu2,i2,"2\n\nu3,i3,3\nu4,i4,4', [1], [2, 3, 4]),
    "on the last line": ('u1,i1,1\nu2,i2,"2', [1], [2]),
    "closed by a stray quote": ('u1,i1,"1\nu2,i2,2\n"u3",i3,3\nu4,i4,4', [4], [1, 2, 3]),
    "closed at the end of a line": ('u1,i1,"1\nu2,i2,2\nu3,i3,3"\nu4,i4,4', [4], [1, 2, 3]),
    "closed within the next line": ('u1,"i1,1\nu2,i2",2\nu3,i3,3', [3], [1, 2]),
    "more fields": ('u1,i1,"1\nu2",i2,2\nu3,i3,3', [3], [1, 2]),
}


@pytest.mark.parametrize("case", OPEN)
def test_an_open_quote_rejects_every_line_it_swallows(write, case):
    text, kept, lost = OPEN[case]
    found, rejected = read(write("log.csv", f"user,item,when\n{text}\n"))
    assert [row[0] for row in found] == kept
    assert [row[1:3] for row in rejected] == [(number, QUOTE) for number in lost]


def test_an_open_quote_costs_no_more_than_the_longest_record_and_a_block(write):
    with blocks_of(100) as patch:
        patch.setattr(delimited, "MAX_RECORD_BYTES", 256)
        found, rejected = read(write("log.csv", 'user,item,when\n"u0,i2,2\n' + "u3,i3,3\n" * 500))
    assert 256 / len("u3,i3,3\n") <= len(rejected) <= (256 + 100) / len("u3,i3,3\n")
    assert len(found) == 501 - len(rejected)


def test_quotes_mean_nothing_in_tsv(write):
    assert read(write("log.tsv", 'user\titem\twhen\n"u1\t12" ruler\t1\n'))[0] == [(1, '"u1', '12" ruler', "1")]


def test_flags_become_categories(write):
    path = write("items", "1|A|1|0|1\n2|B|0|0|0\n")
    header = ["item", "name", "War", "Film-Noir", "Drama"]
    wanted = {"item_id": "item", "categories": "categories"}
    assert read(path, wanted, header=header, flags=tuple(header[2:]))[0] == [(1, "1", ["War", "Drama"]), (2, "2", [])]


NOT_WHOLE = "is not a whole packed file"
LONG = as_text().encode() * 50
BAD_FILES = {  # name, content, part of the message
    "missing column": ("log.csv", b"user,item\nu,i\n", "no column 'when' (it has: user, item); set data.columns.time"),
    "missing column in JSON": ("log.jsonl", b'{"user": "u", "item": "i"}\n', "has no column 'when'"),
    "column twice": ("log.csv", b"user,item,when,user\nu,i,1,u\n", "has the column 'user' 2 times"),
    "a row as a header": ("log.csv", b"u,i,5.0,138\n", "name all its columns in order in data.format.header"),
    "texts as a header": ("log.csv", b"u,i\nu,j\n", "if its first line is a row"),
    "no byte": ("log.csv", b"", "is empty"),
    "blank first line": ("log.tsv", b"\nu\ti\t1\n", "no header line"),
    "truncated gzip": ("log.csv.gz", gzip.compress(LONG)[:-20], NOT_WHOLE),
    "truncated xz": ("log.csv.xz", lzma.compress(LONG)[:-20], NOT_WHOLE),
    "truncated zstd": ("log.csv.zst", zstd(LONG)[:-9], NOT_WHOLE),
    "corrupt gzip": ("log.csv.gz", gzip.compress(b"user,item,when\n")[:10] + b"\xff" * 30, NOT_WHOLE),
    "not Parquet": ("log.parquet", b"user,item,when\n", "cannot be read"),
    "empty Parquet": ("log.parquet", b"", "cannot be read"),
    "workbook": ("log.csv", b"PK\x03\x04", "save the workbook as CSV"),
    "tar": ("log.tar.gz", gzip.compress(b"a".ljust(257, b"\0") + b"ustar"), "unpack it"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_end_in_one_sentence(write, case):
    name, content, message = BAD_FILES[case]
    path = write(name, content)
    with pytest.raises(InputError) as caught:
        read(path)
    text = str(caught.value)
    assert path in text
    assert message in text
    assert "\n" not in text
    assert text.endswith(".")


cells = st.lists(st.sampled_from([*'ab,;|:" \t\u00e9x', "\n", "\r\n", "\r"]), max_size=6).map("".join)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(cells, cells), max_size=20),
    separator=st.sampled_from(",;|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252", "utf-32"]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
    chunk=st.integers(1, 60),
)
def test_what_the_csv_module_writes_is_read(tmp_path, rows, separator, encoding, line_end, quoting, chunk):
    buffer = io.StringIO()
    if quoting == csv.QUOTE_MINIMAL:  # leaves a carriage return without quotes
        rows = [[cell.replace("\r", "") for cell in row] for row in rows]
    table = [(f"{number}", *row) for number, row in enumerate(rows)]
    csv.writer(buffer, delimiter=separator, lineterminator=line_end, quoting=quoting).writerows(
        [("when", "user", "item"), *table]
    )
    path = tmp_path / "log.txt"
    path.write_bytes(buffer.getvalue().encode(encoding))
    with blocks_of(chunk, 30):
        found, rejected = read(path, encoding=encoding)
    assert [(time, user, item) for _, user, item, time in found] == table
    assert rejected == []


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    num_rows=st.integers(1, 25),
    quoted=st.sets(st.integers(0, 24)),
    strays=st.dictionaries(st.integers(0, 24), st.integers(0, 20), min_size=1, max_size=4),
    chunk=st.integers(1, 200),
)
def test_stray_quotes_lose_no_line(tmp_path, num_rows, quoted, strays, chunk):
    rows = [(f"u{n}", f"i, {n}" if n in quoted else f"i{n}", str(n)) for n in range(num_rows)]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    written = buffer.getvalue().splitlines()
    for row, at in strays.items():
        if row < num_rows:
            written[row] = written[row][:at] + '"' + written[row][at:]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user,item,when", *written]) + "\n")
    with blocks_of(chunk, 1):
        found, rejected = read(path)
    assert len(found) + len(rejected) == num_rows
    plain = {tuple(value.replace('"', "") for value in row) for row in rows}
    assert {tuple(value.replace('"', "") for value in row[1:]) for row in found} <= plain


@settings(deadline=None, max_examples=100)
@given(
    content=st.lists(st.sampled_from([b"a", b"bcd", b"\n", b"x" * 30, b"\n\n"]), max_size=40).map(b"".join),
    chunk=st.integers(1, 50),
)
def test_pieces_of_whole_lines_equal_a_plain_loop(content, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "MAX_LINE_BYTES", 20)
        blocks = (content[at : at + chunk] for at in range(0, len(content), chunk))
        pieces = list(lines.whole_lines(blocks))
    expected = [lines.TOO_LONG + line if len(line) > 20 else line for line in content.split(b"\n")]
    if expected[-1] == b"":
        expected.pop()
    assert all(piece.endswith(b"\n") for piece in pieces)
    found, most = b"".join(pieces).split(b"\n")[:-1], len(lines.TOO_LONG) + 20
    assert [line[:most] for line in found] == [line[:most] for line in expected]


TOKENS = [b'{"user": 1, "item": "i", "when": 5}', b"user,item,when\n", b"u,i,1\n", b'u,"i', b"nan", b"\xef\xbb\xbf"]
pieces = st.sampled_from(
    [*TOKENS, b"\xc3\xa9", b"::", b"\x1f\x8b", *(b'a,\n\r"\t\0\xff\xfe1{}['[n : n + 1] for n in range(13))]
)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from([b"", b"user,item,when\n", b'{"user": 1, "item": 2, "when": 3}\n', b"[{", b"\xff\xfe"]),
    content=st.lists(pieces, max_size=30).map(b"".join),
    name=st.sampled_from(["log.csv", "log.json", "log.txt"]),
    chunk=st.integers(1, 40),
)
def test_any_bytes_are_rows_or_rejects_or_an_error(tmp_path, start, content, name, chunk):
    (tmp_path / name).write_bytes(start + content)
    with blocks_of(chunk, 40), contextlib.suppress(InputError):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("columns", "text", "kept", "rejected"),
    [
        ("user,item,note,when", 'u1,i1,"hello,\nu2,i2,x",100\nu3,i3,x,5', [3], [1, 2]),
        ("user,item,note,when", 'u1,i1,"x,\nu2,i2,y,2024-03-01 9:00 am\nu3,i3",x,5\nu4,i4,x,5', [4], [1, 2, 3]),
        ("user,item,note,when", 'u1,i1,"x,\nu2,i2,y,NULL\nu3,i3",x,5\nu4,i4,x,5', [4], [1, 2, 3]),
        ("user,item,when", 'u 0,"i 0,1\nu 1,i 1,2\nu 2,i 2",3\nu 3,i 3,4', [4], [1, 2, 3]),
    ],
)
def test_two_stray_quotes_swallow_no_row_whatever_its_cells(write, columns, text, kept, rejected):
    found, rejects = read(write("log.csv", f"{columns}\n{text}\n"))
    assert [row[0] for row in found] == kept
    assert [(row[1], row[2]) for row in rejects] == [(number, QUOTE) for number in rejected]


def test_a_quoted_line_that_is_too_long_takes_no_other_with_it(write):
    long = "y" * (lines.MAX_LINE_BYTES + 1)
    rows = "".join(f"u{number},i,{number},x\n" for number in range(50))
    found, rejects = read(write("log.csv", f'user,item,when,note\nu,i,1,"{long}"\n{rows}'))
    assert len(found) == 50
    assert [row[1:3] for row in rejects] == [(1, "line too long")]


@pytest.mark.parametrize("end", [",", "", "\n"])
def test_an_array_without_its_end_is_refused(write, end):
    one = '{"user": "u", "item": "i", "when": 1}'
    with pytest.raises(InputError, match=r"log\.json is a JSON array without its end"):
        read(write("log.json", f"[{one},{one}{end}"))
    assert len(read(write("log.json", f"[{one},{one}]{end.strip(',')}"))[0]) == 2


def test_a_damaged_object_on_its_own_lines_takes_no_other_with_it(write):
    nested = '{"user": "u0", "when": ,\n  "more": [{"user": "no", "item": "i", "when": 1}, {"user": "no"}]}'
    one = '{"user": "u1", "item": "i", "when": 1}'
    found, rejects = read(write("log.json", f"[\n{one},\n{nested},\n{one}\n]\n"))
    assert [row[1] for row in found] == ["u1", "u1"]
    assert [row[1:3] for row in rejects] == [(2, JSON)]
