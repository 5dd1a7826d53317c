"""What is printed never moves the cursor, hides or reorders what stands around it, and stays readable."""

import io
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sracl_dist.observe import Progress, put_out, say
from sracl_dist.visible import escaped, visible

BIDIRECTIONAL = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
HOSTILE = "\x1b[2J\x9b31m\x07\r\x00\x85\u202e\u2066\u2069\u200f\u061c\u2028\u2029\u200b\ufeff\ud800"
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from(HOSTILE + "\n\t")))


def is_unfit(character: str) -> bool:
    """By what Unicode says of it, and not by a list of ours."""
    if unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs"):
        return character != "\t"
    return unicodedata.bidirectional(character) in BIDIRECTIONAL or character in "\u200b\u200e\u200f\u061c\ufeff"


@given(TEXTS)
def test_nothing_printed_steers_a_terminal(text: str) -> None:
    assert not any(map(is_unfit, visible(text)))
    assert not any(map(is_unfit, visible(text, lines=True).replace("\n", "")))


@given(TEXTS)
def test_say_prints_one_line(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stream = io.StringIO()
        patch.setattr("sys.stderr", stream)
        say(text)
    written = stream.getvalue()
    assert written.endswith("\n")
    assert not any(map(is_unfit, written[:-1]))


@given(st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs"], exclude_characters="\\")))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text
    assert visible(f"a\t{text}") == f"a\t{text}"


@pytest.mark.parametrize(
    "text",
    [
        "\U0001f469\u200d\U0001f469\u200d\U0001f467",  # a family, whose members are joined
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian with a non-joiner
        "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
        "\u0939\u093f\u0928\u094d\u0926\u0940 \u6771\u4eac \ud55c\uae00",
    ],
)
def test_scripts_and_emoji_stay_as_they_are(text: str) -> None:
    assert visible(text) == text


def test_escapes_are_those_of_python() -> None:
    assert escaped("a\x1b[2Jb\x9b\r\n\u202ec\u2028\ud800") == r"a\x1b[2Jb\x9b\r\n\u202ec\u2028\ud800"
    assert escaped("a\r\nb", lines=True) == "a\\r\nb"
    assert escaped(escaped(HOSTILE)) == escaped(HOSTILE)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_progress_line_is_clean(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    progress = Progress(f"read {HOSTILE}a\nb", 10, f"rows{HOSTILE}", done=1, interval_s=0, stream=stream)
    progress._interval_s = 0
    progress.update(1, **{f"best{HOSTILE}": f"x{HOSTILE}"})
    progress.close()
    lines = re.split("[\r\n]" if terminal else "\n", stream.getvalue())
    assert not any(is_unfit(character) for line in lines for character in line)
    assert "\\x1b[2J" in stream.getvalue()


def test_standard_output_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    put_out("one\ntwo\x1b[2J\n")
    assert capsys.readouterr().out == "one\ntwo\\x1b[2J\n"
