"""How public files are fetched from a real server, how that fails, and how it goes on."""

import gzip
import io
import threading
import time
import zipfile
from collections.abc import Iterator
from urllib.error import URLError

import pytest
from file_server import FileServer, serve

from sracl_dist import fetch as fetch_module
from sracl_dist.errors import InputError, SetupError
from sracl_dist.fetch import Download, fetch


def archive(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        for name, text in members.items():
            content.writestr(name, text)
    return buffer.getvalue()


RATINGS, MOVIES = "1::1::5::1\n2::1::5::2\n", "1::A::B"
GOOD = archive({"set/ratings.dat": RATINGS, "set/movies.dat": MOVIES})
LINES = gzip.compress(b"{}\n" * 3)
BIG = gzip.compress(bytes(range(256)) * 4096, compresslevel=0)
ZIP = Download(url="good.zip", members={"set/ratings.dat": range(2, 3), "set/movies.dat": range(1, 2)})
GZIP = Download(url="good.json.gz", num_lines=range(3, 4))
LARGE = Download(url="deep/big.gz")


@pytest.fixture
def server() -> Iterator[FileServer]:
    files = {
        "good.zip": GOOD,
        "good.json.gz": LINES,
        "deep/big.gz": BIG,
        "damaged.zip": GOOD[:-40],
        "page.zip": b"<html>sign in</html>",
        "cut.json.gz": LINES[:-4],
        "short.zip": GOOD,
    }
    with serve(files) as server:
        server.lengths["short.zip"] = len(GOOD) + 20
        yield server


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_good_files_arrive_whole_and_nothing_else_stays(server, tmp_path):
    folder = fetch("set", server.url, [ZIP, GZIP, LARGE], tmp_path / "cache" / "set")
    assert names(folder) == ["big.gz", "good.json.gz", "movies.dat", "ratings.dat"]
    assert (folder / "ratings.dat").read_text() == RATINGS
    assert (folder / "movies.dat").read_text() == MOVIES
    assert (folder / "big.gz").read_bytes() == BIG
    assert names(tmp_path / "cache") == ["set"]


@pytest.mark.parametrize(
    ("download", "reason"),
    [
        (Download(url="gone.zip", members={"a": range(9)}), "the server answers 404"),
        (Download(url="short.zip", members={"a": range(9)}), f"only {len(GOOD):,} of {len(GOOD) + 20:,} bytes came"),
        (Download(url="damaged.zip", members={"set/ratings.dat": range(9)}), "what came is damaged"),
        (Download(url="page.zip", members={"a": range(9)}), "what came is damaged"),
        (Download(url="good.zip", members={"set/nothing.dat": range(9)}), "what came is damaged"),
        (Download(url="good.zip", members={"set/movies.dat": range(9, 10)}), "movies.dat has 1 lines, not 9"),
        (Download(url="cut.json.gz"), "what came is damaged"),
        (Download(url="good.json.gz", num_lines=range(4, 5)), "has 3 lines, not 4"),
        (Download(url="good.json.gz", num_lines=range(1_000, 1_002)), "has 3 lines, not 1,000 to 1,001"),
    ],
)
def test_bad_answers_end_in_one_sentence_and_leave_no_set(server, tmp_path, download, reason):
    with pytest.raises(InputError) as caught:
        fetch("set", server.url, [download], tmp_path / "cache" / "set")
    text = str(caught.value)
    assert reason in text
    assert download.url in text
    assert "set data.path" in text
    assert "\n" not in text
    left = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()} - {".set.lock"}
    assert left == ({"short.zip.part", "short.zip.part.version"} if download.url == "short.zip" else set())


def test_whole_files_of_a_failed_attempt_are_not_fetched_again(server, tmp_path):
    absent = Download(url="late.json.gz")
    with pytest.raises(InputError, match="404"):
        fetch("set", server.url, [ZIP, GZIP, absent], tmp_path / "set")
    assert names(tmp_path) == [".set.lock", ".set.part"]
    server.files["late.json.gz"] = LINES
    server.asked.clear()
    assert names(fetch("set", server.url, [ZIP, GZIP, absent], tmp_path / "set")) == [
        "good.json.gz",
        "late.json.gz",
        "movies.dat",
        "ratings.dat",
    ]
    assert server.asked == [("late.json.gz", None)]
    assert names(tmp_path) == ["set"]


@pytest.mark.parametrize("tag", ['"one"', "Mon, 13 Nov 2017 20:00:00 GMT"])
def test_a_connection_that_breaks_off_goes_on_where_it_was(server, tmp_path, capsys, tag):
    server.tags["deep/big.gz"] = tag
    server.break_after["deep/big.gz"] = [400_000, 300_000]
    folder = fetch("set", server.url, [LARGE], tmp_path / "set")
    assert (folder / "big.gz").read_bytes() == BIG
    assert [part for _, part in server.asked] == [None, "bytes=400000-", "bytes=700000-"]
    assert "broke off" in capsys.readouterr().err


def test_the_next_attempt_goes_on_where_the_last_ended(server, tmp_path):
    server.tags["deep/big.gz"] = '"one"'
    server.break_after["deep/big.gz"] = [400_000, 0]
    with pytest.raises(InputError, match=r"only 400,000 of 1,0\d\d,\d\d\d bytes came"):
        fetch("set", server.url, [LARGE], tmp_path / "set")
    assert not (tmp_path / "set").exists()
    server.asked.clear()
    folder = fetch("set", server.url, [LARGE], tmp_path / "set")
    assert (folder / "big.gz").read_bytes() == BIG
    assert server.asked == [("deep/big.gz", "bytes=400000-")]


@pytest.mark.parametrize("tag", ['"two"', None, 'W/"one"'])
def test_a_file_that_has_changed_is_fetched_from_its_beginning(server, tmp_path, tag):
    server.tags["deep/big.gz"] = '"one"'
    server.break_after["deep/big.gz"] = [400_000, 0]
    with pytest.raises(InputError):
        fetch("set", server.url, [LARGE], tmp_path / "set")
    server.files["deep/big.gz"] = other = gzip.compress(b"other\n" * 200_000, compresslevel=0)
    del server.tags["deep/big.gz"]
    if tag:
        server.tags["deep/big.gz"] = tag
    folder = fetch("set", server.url, [LARGE], tmp_path / "set")
    assert (folder / "big.gz").read_bytes() == other


@pytest.mark.parametrize("tags", [{}, {"deep/big.gz": 'W/"one"'}])
def test_without_a_sure_version_of_the_file_it_is_fetched_from_its_beginning(server, tmp_path, tags):
    server.tags = tags
    server.break_after["deep/big.gz"] = [400_000]
    folder = fetch("set", server.url, [LARGE], tmp_path / "set")
    assert (folder / "big.gz").read_bytes() == BIG
    assert [part for _, part in server.asked] == [None, None]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server, tmp_path):
    server.tags["good.json.gz"] = '"one"'
    work = tmp_path / ".set.part"
    work.mkdir()
    (work / "good.json.gz.part").write_bytes(b"x" * 1000)
    (work / "good.json.gz.part.version").write_text('"one"')
    folder = fetch("set", server.url, [GZIP], tmp_path / "set")
    assert (folder / "good.json.gz").read_bytes() == LINES


def test_damage_is_not_kept_for_the_next_attempt(server, tmp_path):
    server.files["good.zip"], whole = GOOD[:-40], GOOD
    with pytest.raises(InputError, match="damaged"):
        fetch("set", server.url, [GZIP, ZIP], tmp_path / "set")
    server.files["good.zip"] = whole
    assert names(fetch("set", server.url, [GZIP, ZIP], tmp_path / "set")) == [
        "good.json.gz",
        "movies.dat",
        "ratings.dat",
    ]


def test_an_attempt_that_was_killed_while_it_unpacked_goes_on(server, tmp_path):
    work = tmp_path / ".set.part"
    for name, content in {"good.zip": GOOD, "set/ratings.dat": b"1::1", "whole/movies.dat": MOVIES.encode()}.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(content)
    folder = fetch("set", server.url, [ZIP], tmp_path / "set")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"ratings.dat": RATINGS, "movies.dat": MOVIES}
    assert server.asked == []
    assert names(tmp_path) == ["set"]


@pytest.mark.parametrize("first_fails", [False, True])
def test_two_that_fetch_the_same_set_fetch_it_once(server, tmp_path, capsys, first_fails):
    release = threading.Event()
    original = fetch_module.urllib.request.urlopen

    def slow(request, timeout):
        release.wait(10)
        if failures:
            raise failures.pop()
        return original(request, timeout=timeout)

    failures = [URLError("no route")] if first_fails else []
    results, errors = [], []

    def run():
        try:
            results.append(fetch("set", server.url, [GZIP], tmp_path / "set"))
        except InputError as error:
            errors.append(str(error))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch_module.urllib.request, "urlopen", slow)
        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 10
        said = ""
        while "waiting for it" not in said and time.monotonic() < until:
            time.sleep(0.02)
            said += capsys.readouterr().err
        release.set()
        for thread in threads:
            thread.join()
    assert "another process is fetching set; waiting for it" in said
    assert ["no route" in error for error in errors] == [True] * first_fails
    assert results == [tmp_path / "set"] * (2 - first_fails)
    assert server.asked == [("good.json.gz", None)]
    assert names(tmp_path) == ["set"]


def test_no_server_and_no_answer(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="Connection refused"):
        fetch("set", "http://127.0.0.1:9/", [ZIP], tmp_path / "set")

    def slow(request, timeout):
        raise TimeoutError

    monkeypatch.setattr(fetch_module.urllib.request, "urlopen", slow)
    with pytest.raises(InputError, match="no answer for 60 s"):
        fetch("set", "http://127.0.0.1:9/", [ZIP], tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_network_error_in_the_middle_is_not_taken_for_one_of_the_disk(server, tmp_path, monkeypatch):
    def fail(answer):
        raise OSError(5, "decryption failed")

    monkeypatch.setattr(fetch_module.http.client.HTTPResponse, "read", lambda self, amount=None: fail(self))
    with pytest.raises(InputError, match="decryption failed"):
        fetch("set", server.url, [GZIP], tmp_path / "set")


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="set SRACL_CACHE"):
        fetch("set", server.url, [GZIP], tmp_path / "file" / "set")
