"""Each public set in the format of its publisher: fetched, found again, accepted as a local copy, and prepared."""

import gzip
import io
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from file_server import FileServer, serve
from public_samples import SAMPLES, Sample

from sracl_dist import packaged
from sracl_dist.config import parse_config
from sracl_dist.config.sections import DataConfig
from sracl_dist.data import sources
from sracl_dist.data.public_sets import PublicSet, item_kind, names, num_lines_of, public_set
from sracl_dist.data.sources import file_facts, resolve
from sracl_dist.errors import ConfigError, InputError, SetupError

BY_HAND = ("retailrocket", "yelp")
FETCHED = [name for name in SAMPLES if name not in BY_HAND]


def as_bytes(content):
    return content.encode() if isinstance(content, str) else content


def paths(files):
    return [Path(file.path) for file in files]


def put(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = as_bytes(content)
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def published(sample):
    """What a server offers."""
    if sample.archive is None:
        return {name: gzip.compress(as_bytes(content)) for name, content in sample.files.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as content:
        for name, text in sample.files.items():
            content.writestr(name, as_bytes(text))
    return {sample.archive: buffer.getvalue()}


def config(**data):
    return parse_config({"run": {"dir": "unused"}, "data": data})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    def no_registry(wheel, destination, suffixes):
        raise SetupError(f"{wheel.name} cannot be fetched; check the network and pip.")

    monkeypatch.setenv("SRACL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packaged, "unpack", no_registry)
    return tmp_path / "cache" / "data"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve({}) as server:
        yield server


def small(public: PublicSet, sample: Sample) -> PublicSet:
    """The set with the numbers of lines of the sample."""
    counts = {name: as_bytes(text).count(b"\n") for name, text in sample.files.items()}
    num_lines = {name: range(count, count + 1) for name, count in counts.items()}
    downloads = [
        replace(
            download,
            members={name: num_lines[name] for name in download.members},
            num_lines=download.num_lines and num_lines[download.url],
        )
        for download in public.downloads
    ]
    return replace(public, downloads=tuple(downloads))


@pytest.fixture
def offered(server, monkeypatch):
    """Offer a set on a local server in the place of its publisher's."""

    def offer(name, *, true_counts=False):
        sample = SAMPLES[name]
        server.files = published(sample)
        public = replace(public_set(name), base_url=server.url)
        monkeypatch.setattr(sources, "public_set", lambda _: public if true_counts else small(public, sample))
        return public

    return offer


@pytest.mark.parametrize("name", FETCHED)
def test_every_set_is_fetched_once_and_found_in_the_cache(offered, server, cache, name):
    public = offered(name)
    settings = config(source=name)
    before = file_facts(settings)
    source = resolve(settings)
    assert [path.parent for path in paths(source.log_files + source.text_files)] == [cache / public.folder] * (
        1 if SAMPLES[name].items is None else 2
    )
    for path in paths(source.log_files + source.text_files):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert content in map(as_bytes, SAMPLES[name].files.values())
    assert [path.name for path in cache.iterdir()] == [public.folder]
    server.asked.clear()
    assert resolve(settings) == source
    assert server.asked == []
    assert file_facts(settings) == before == {name: public.version}


@pytest.mark.parametrize("name", FETCHED)
def test_other_files_under_the_same_address_are_refused(offered, cache, name):
    public = offered(name, true_counts=True)
    with pytest.raises(InputError, match=r"has \d+ lines, not \d"):
        resolve(config(source=name))
    assert [path.name for path in cache.rglob("*") if path.is_file()] == [f".{public.folder}.lock"]


@pytest.mark.parametrize("name", FETCHED)
def test_an_interrupted_set_goes_on(offered, server, cache, name):
    public = offered(name)
    for file, content in server.files.items():
        server.tags[file] = '"one"'
        server.break_after[file] = [len(content) // 2]
    source = resolve(config(source=name))
    assert [path.name for path in cache.iterdir()] == [public.folder]
    assert all(path.is_file() for path in paths(source.log_files))
    assert sorted({part is not None for _, part in server.asked}) == [False, True]


@pytest.mark.parametrize("by_path", [True, False])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_local_copy_is_taken_flat_or_as_its_archive_makes_it(tmp_path, monkeypatch, name, packed, flat, by_path):
    files = {}
    for path, content in SAMPLES[name].files.items():
        plain = path.removesuffix(".gz")
        files[(plain.rsplit("/", 1)[-1] if flat else plain) + (".gz" if packed else "")] = content
    folder = put(tmp_path / "copies" / public_set(name).folder, files)
    if not by_path:
        monkeypatch.setenv("SRACL_DATA", str(tmp_path / "copies"))
    settings = config(source=name, path=str(folder) if by_path else None)
    source = resolve(settings)
    found = paths(source.log_files + source.text_files)
    assert {str(path.relative_to(folder)) for path in found} <= set(files)
    assert len(source.text_files) == (SAMPLES[name].items is not None)
    assert set(file_facts(settings)) == set(map(str, found))


def test_the_page_on_data_names_every_set():
    page = (Path(__file__).parents[2] / "docs" / "data-format.md").read_text()
    assert [name for name in names() if f"`{name}`" not in page] == []


@pytest.mark.parametrize("folder", ["", "benchmark/5core/rating_only/", "benchmark/0core/rating_only/"])
def test_tables_of_ratings_stand_in_for_the_reviews_of_amazon_2023(tmp_path, folder):
    put(tmp_path / "set", {f"{folder}Video_Games.csv.gz": "x", "meta_Video_Games.jsonl.gz": "x"})
    source = resolve(config(source="amazon-2023:video games", path=str(tmp_path / "set"), min_rating=3))
    assert paths(source.log_files) == [tmp_path / "set" / f"{folder}Video_Games.csv.gz"]
    assert (source.columns.user_id, source.columns.item_id, source.columns.time) == (
        "user_id",
        "parent_asin",
        "timestamp",
    )


def test_steam_reviews_may_have_the_name_stored_inside_the_archive(tmp_path):
    put(tmp_path / "set", {"steam_new.json": "x", "steam_games.json": "x"})
    source = resolve(config(source="steam", path=str(tmp_path / "set")))
    assert [path.name for path in paths(source.log_files + source.text_files)] == ["steam_new.json", "steam_games.json"]


@pytest.mark.parametrize("name", BY_HAND)
def test_sets_behind_an_account_say_where_to_get_them(name):
    with pytest.raises(InputError, match=rf"without an account; get .*https://.* \$SRACL_DATA/{name}\."):
        resolve(config(source=name))


@pytest.mark.parametrize(
    ("figure", "first", "last"),
    [
        ("701.5K", 701_450, 701_550),
        ("2.0M", 1_950_000, 2_050_000),
        (1_682, 1_682, 1_682),
        ("1682", 1_682, 1_682),
        ([5, 7], 5, 7),
    ],
)
def test_a_figure_allows_itself_or_what_rounds_to_it(figure, first, last):
    assert (num_lines_of(figure)[0], num_lines_of(figure)[-1]) == (first, last)


@pytest.mark.parametrize(
    ("name", "num_lines"),
    [
        ("movielens-20m", {"ml-20m/ratings.csv": 20_000_264, "ml-20m/movies.csv": 27_279}),
        ("movielens-32m", {"ml-32m/ratings.csv": 32_000_205, "ml-32m/movies.csv": 87_586}),
    ],
)
def test_published_counts_and_a_header_line(name, num_lines):
    (download,) = public_set(name).downloads
    assert {member: list(counts) for member, counts in download.members.items()} == {
        member: [count] for member, count in num_lines.items()
    }


def test_kinds_of_event_are_for_the_user_to_choose(tmp_path):
    folder = str(put(tmp_path / "set", SAMPLES["retailrocket"].files))
    source = resolve(config(source="retailrocket", path=folder, events=["addtocart", "transaction"]))
    assert source.columns.event == "event"
    with pytest.raises(ConfigError, match=r"data\.events names 'purchase' .* view, addtocart, transaction"):
        resolve(config(source="retailrocket", path=folder, events=["view", "purchase"]))
    folder = str(put(tmp_path / "other", SAMPLES["yelp"].files))
    with pytest.raises(ConfigError, match=r"data\.events is \['view'\] but this log has one kind"):
        resolve(config(source="yelp", path=folder, events=["view"]))


@pytest.mark.parametrize(
    "setting", [{"format": {"separator": ";"}}, {"item_format": {"encoding": "latin-1"}}, {"columns": {"time": "when"}}]
)
def test_formats_are_the_set_s_own(tmp_path, setting):
    folder = str(put(tmp_path / "set", SAMPLES["gowalla"].files))
    with pytest.raises(ConfigError, match=rf"data\.{next(iter(setting))} is set but data\.source=gowalla"):
        resolve(config(source="gowalla", path=folder, **setting))


PREPARED = [
    *((name, (), SAMPLES[name].histories) for name in SAMPLES),
    ("retailrocket", ("addtocart", "transaction"), {"7": ["12", "11", "14", "13"]}),
]


@pytest.mark.parametrize(("name", "events", "histories"), PREPARED)
def test_every_set_is_prepared(tmp_path, prepared, name, events, histories):
    sample = SAMPLES[name]
    done = prepared(source=name, path=str(put(tmp_path / "set", sample.files)), events=list(events))
    assert done.histories() == histories
    items = {
        row["item_id"]: (row["title"], row["brand"], row["categories"], row["description"])
        for row in done.table("items").to_pylist()
    }
    if sample.items is None:
        assert set(items.values()) == {(None, None, None, None)}
    else:
        assert items == sample.items


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("movielens-1m", "films"),
        ("amazon-2014:beauty", "beauty products"),
        ("amazon-2014:Sports & Outdoors", "sports and outdoor products"),
        ("amazon-2023:unknown", "items"),
        ("retailrocket", "items"),
        ("files", "items"),
    ],
)
def test_what_the_items_are(source, kind):
    assert item_kind(DataConfig(source=source)) == kind
    assert item_kind(DataConfig(source=source, item_kind=" cups ")) == "cups"
