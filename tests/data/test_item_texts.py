"""Cleaning of texts, and which row describes which item."""

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sracl_dist.config.sections import FileFormat, ItemColumns
from sracl_dist.data.files import find_files
from sracl_dist.data.item_texts import clean_categories, clean_text, clean_texts, read_item_texts, require_items
from sracl_dist.data.rejects import Rejects
from sracl_dist.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("<b>bold</b> and <a href='x>y'>link</a>", "bold and y'>link"),
        ("AT&amp;T &lt;b&gt;x&lt;/b&gt;", "AT&T x"),
        ("&amp;lt;i&amp;gt;deep", "deep"),
        ("two\nlines\r\n\tand\x00more\u2028end", "two lines and more end"),
        ("3 < 4 and 5 > 2", "3 < 4 and 5 > 2"),
        ("<!-- hidden --->shown<script>alert(1)</script>!<STYLE>p{}</style>", "shown !"),
        ("<!-- never closed", "<!-- never closed"),
        ("e\u0301", "\u00e9"),
        ("  a   b  ", "a b"),
        ("<br>", ""),
        ("", ""),
        ("I\u0307<script>x</script>y", "\u0130 y"),
        ("answer {{ secret }} </s><|im_end|> %s {0}", "answer {{ secret }} <|im_end|> %s {0}"),
    ],
)
def test_cleaning_by_hand(text, expected):
    assert clean_text(text, 100) == expected


@pytest.mark.parametrize(
    "piece", ["a", "<", "<a", "&amp;", "<!--", "<script", "<!-- -->", "e\u0301", "\n", "&lt;b&gt;"]
)
def test_a_hundred_thousand_characters_are_cut(piece):
    assert len(clean_text(piece * (100_000 // len(piece)), 2000)) <= 2000


PIECES = ["<", ">", "b", "&", "amp;", "lt;", "gt", ";", "#60;", "/", " ", "\n", "!--", "-->", "\u0338", "e\u0301"]
nasty = st.lists(st.sampled_from(PIECES) | st.characters(codec="utf-8"), max_size=25).map("".join)


@settings(deadline=None, max_examples=300)
@given(text=nasty, max_chars=st.integers(1, 30))
def test_clean_texts_are_short_on_one_line_stay_clean_and_are_the_same_in_bulk(text, max_chars):
    cleaned = clean_text(text, max_chars)
    assert len(cleaned) <= max_chars
    assert cleaned == " ".join(cleaned.split())
    assert not any(unicodedata.category(character) == "Cc" for character in cleaned)
    whole = clean_text(text, 1000)
    assert clean_text(whole, 1000) == whole == unicodedata.normalize("NFC", whole)
    assert clean_texts(pa.array([text, None, "x"]), max_chars).to_pylist() == [cleaned or None, None, "x"]


def test_categories_keep_their_order_and_lose_repeats():
    assert clean_categories(["b ", "<i>a</i>", "", "b", "  "], 50) == ["b", "a"]
    assert clean_categories(["", " "], 50) is None
    assert clean_categories(None, 50) is None


def load(path, ids, columns=None, **more):
    rejects = Rejects()
    files = find_files([str(path)], "data.item_texts")
    texts = read_item_texts(files, columns or ItemColumns(), pa.array(ids), rejects, **more)
    require_items(texts, pa.array(ids), rejects)
    return texts, [(row["row"], row["reason"]) for row in rejects.table().to_pylist()]


HEADER = "item_id,title,brand,categories,description\n"


def test_rows_are_matched_by_id_and_all_others_rejected(write):
    text = HEADER + "b,<b>Tea</b>,Brew,Drinks|Hot|Drinks,\nx,Unknown,,,\n,No id,,,\na,Cake &amp; more,,,Sweet\n"
    text += "b,Second tea,,,\nd\nc, ,,|,\n"
    texts, rejected = load(write("items.csv", text), ["a", "b", "c", "d"])
    nothing = dict.fromkeys(("title", "brand", "categories", "description"))
    assert texts.table.to_pylist() == [
        nothing | {"title": "Cake & more", "description": "Sweet"},
        nothing | {"title": "Tea", "brand": "Brew", "categories": ["Drinks", "Hot"]},
        nothing,
        nothing,
    ]
    assert sorted(rejected) == [
        (2, "text of an item without interactions"),
        (3, "empty item id"),
        (5, "text of an item that an earlier row describes"),
        (6, "wrong number of fields"),
    ]
    counts = {f"items_without_{name}": num for name, num in zip([*nothing, "text"], [2, 3, 3, 3, 2], strict=True)}
    assert texts.counts() == counts
    assert texts.num_read == 7


def test_invalid_utf8_rejects_the_row_so_that_a_later_one_may_describe_the_item(write):
    path = write("items.csv", HEADER.encode() + b"a,\xff,,,\na,fine,,,\n")
    texts, rejected = load(path, ["a"], text_format=FileFormat(encoding="utf-8"))
    assert texts.table["title"].to_pylist() == ["fine"]
    assert rejected == [(1, "invalid UTF-8")]
    path = write("items.jsonl", '{"item_id": "a", "categories": ["x", "\\udc00"]}\n')
    texts, rejected = load(path, ["a"], ItemColumns(title=None, brand=None, description=None))
    assert rejected == [(1, "invalid UTF-8")]
    assert texts.table["categories"].to_pylist() == [None]


def test_amazon_item_file_with_python_literals_and_nested_categories(write):
    more = "'categories': [['Beauty', 'Hair'], ['Beauty', 'Wigs']], 'brand': 'B', 'description': '<p>x</p>'"
    path = write("meta.json", f"{{'asin': 'a', 'title': \"It's\", {more}}}\n")
    texts, rejected = load(path, ["a"], ItemColumns(item_id="asin"))
    assert texts.table.to_pylist() == [
        {"title": "It's", "brand": "B", "categories": ["Beauty", "Hair", "Wigs"], "description": "x"}
    ]
    assert rejected == []


def test_separator_and_length_are_settings(write):
    path = write("items.csv", HEADER + f'a,abcdef ghi,,"x, y,x",\nb,"{"long title" * 10_000}",,,\n')
    texts, _ = load(path, ["a"], separator=",", max_chars=7)
    assert texts.table["title"].to_pylist() == ["abcdef"]
    assert texts.table["categories"].to_pylist() == [["x", "y"]]
    assert len(load(path, ["b"])[0].table["title"][0].as_py()) == 2000


def test_a_column_has_room_for_texts_of_more_than_two_gigabytes(write):
    texts, _ = load(write("items.csv", HEADER + "a,Tea,Brew,Hot|Drinks,\n"), ["a", "b"])
    none = read_item_texts([], ItemColumns(), pa.array(["a", "b"]), Rejects())
    assert (none.counts()["items_without_text"], none.table.num_rows) == (2, 2)
    for table in (texts.table, none.table):
        for name in ("title", "brand", "description"):
            assert table[name].type == pa.large_string()
        assert table["categories"].type == pa.list_(pa.large_string())


def test_a_missing_column_names_its_setting(write):
    with pytest.raises(InputError, match=r"no column 'brand' .* set data.item_columns.brand"):
        load(write("items.csv", "item_id,title\na,x\n"), ["a"])


def test_few_items_with_a_row_are_told(write, capsys):
    path = write("items.csv", HEADER + "0108,x,,,\na,nan,,,\n")
    texts, _ = load(path, ["a", "b", "c"])
    assert texts.table["title"].null_count == 3
    assert "only 1 of 3 items have a row in the item texts: the log has 'b', the texts have" in capsys.readouterr().err
    load(path, ["a", "b"])
    load(write("few.csv", HEADER + "a,x,,,\n"), ["a", "b", "c"])
    assert "only" not in capsys.readouterr().err


@settings(deadline=None, max_examples=50)
@given(ids=st.lists(st.sampled_from("abcdef"), max_size=12))
def test_the_first_row_of_an_item_counts(tmp_path_factory, ids):
    path = tmp_path_factory.mktemp("items") / "items.csv"
    path.write_text(HEADER + "".join(f"{item},t{number},,,\n" for number, item in enumerate(ids)))
    if ids and not set(ids) & set("abc"):
        with pytest.raises(InputError, match=rf"has 'a', the texts have '{ids[0]}'.*data\.item_columns\.item_id"):
            load(path, ["a", "b", "c"])
        return
    texts, rejected = load(path, ["a", "b", "c"])
    expected = [f"t{ids.index(item)}" if item in ids else None for item in "abc"]
    assert texts.table["title"].to_pylist() == expected
    assert len(rejected) == len(ids) - sum(title is not None for title in expected)
