"""Small parts of the page: texts, numbers, samples and plots."""

import re

import numpy as np
import pytest

from sracl_dist.report import lookups
from sracl_dist.report.elements import clipped, count, decimal, details_table, metric, moment, percent, words
from sracl_dist.report.lookups import spread
from sracl_dist.report.plots import histogram, line_chart


@pytest.mark.parametrize(
    ("text", "limit", "result"),
    [
        ("plain", 10, "plain"),
        ("exactly 10", 10, "exactly 10"),
        ("eleven char", 10, "eleven ch\u2026"),
        ("a\n\tb\x00c  d", 10, "a b c d"),
        ("\u202eabc\u2066", 10, "abc"),
        (" " * 500 + "far", 10, "\u2026"),
        ("", 10, ""),
        (7, 10, "7"),
    ],
)
def test_clipped(text: object, limit: int, result: str) -> None:
    assert clipped(text, limit) == result


def test_numbers() -> None:
    assert (count(1234567), count(None)) == ("1,234,567", "\u2013")
    assert (metric(0.12345), metric(None)) == ("0.1235", "\u2013")
    assert (decimal(12345.6), decimal(0.0012345), decimal(3.0)) == ("12,346", "0.001234", "3")
    assert (percent(1, 3), percent(0, 0)) == ("33.3 %", "\u2013")


def test_words() -> None:
    names = ("num_failed", "hr@20", "mrr", "generate_s", "next_item", "cpus")
    assert [words(name) for name in names] == ["failed", "HR@20", "MRR", "generate (s)", "next item", "cpus"]


def test_details_of_any_depth_become_rows() -> None:
    table = details_table({"a": {"b_c": 1500, "d": {"e": True}}, "f": None, "g": [1, 2], "h": 0.25})
    assert table.rows == [["a: b c", "1,500"], ["a: d: e", "yes"], ["f", "\u2013"], ["g", "[1, 2]"], ["h", "0.25"]]


def test_moments() -> None:
    assert moment(1_400_000_000) == "2014-05-13 16:53 UTC (1400000000)"
    assert moment(1_400_000_000_000) == "2014-05-13 16:53 UTC (1400000000000)"
    assert moment(17) == "17"


def test_samples_run_from_the_highest_count_to_the_lowest() -> None:
    keys = np.array([1, 2, 3, 4, 5])
    counts = np.array([10, 50, 50, 0, 30])
    assert spread(keys, counts, 3) == [2, 5, 4]
    assert spread(keys, counts, 1) == [2]
    assert spread(keys, counts, 99) == [2, 3, 5, 1, 4]
    assert spread(keys[:0], counts[:0], 3) == []


def test_the_histogram_counts_everything_once() -> None:
    values = np.array([0, 1, 2, 4, 5, 9, 10, 1000])
    svg = histogram(values, "Lengths", x_label="items", y_label="users").svg
    labels = re.findall(r">([\d,]+(?:\u2013[\d,]+)?)</text>", svg)
    assert labels[:5] == ["0", "1", "2\u20134", "5\u20139", "10\u201319"]
    assert labels[labels.index("500\u2013999") + 1] == "1,000\u20131,999"


@pytest.mark.parametrize("values", [[], [0], [5, 5, 5], [10**9]])
def test_a_histogram_of_anything(values: list[int]) -> None:
    assert "<svg" in histogram(np.array(values, dtype=np.int64), "x", x_label="x", y_label="y").svg


def test_plots_take_the_pages_colours_and_escape_labels() -> None:
    svg = line_chart([("<a & b>", [1, 2], [3.0, 4.0]), ("c", [1], [2.0])], 'A "b"', x_label="epoch", mark_x=1).svg
    assert "var(--series-1)" in svg
    assert "var(--series-2)" in svg
    assert re.findall("#0[0-9a-f]{5}", svg) == []
    assert "&lt;a &amp; b&gt;" in svg
    assert 'aria-label="A &#34;b&#34;"' in svg


def test_files_are_named_as_the_stages_name_them() -> None:
    from sracl_dist.evaluate import job
    from sracl_dist.model import sracl
    from sracl_dist.neighbours import job as neighbours
    from sracl_dist.recommend import RECOMMENDATIONS
    from sracl_dist.report import results
    from sracl_dist.train import launch

    assert (lookups.METRICS_FILE, lookups.RANKS) == (job.METRICS, job.RANKS)
    assert (lookups.RECOMMENDATIONS, lookups.CURVE_FILE) == (RECOMMENDATIONS, launch.METRICS)
    assert (lookups.QUALITY_FILE, results.TOTAL) == (neighbours.QUALITY, sracl.TOTAL)
