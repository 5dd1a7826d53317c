"""Where a public set is looked for, what its facts are, and which settings contradict it."""

from urllib.error import URLError

import pytest

from sracl_dist import fetch as fetch_module
from sracl_dist import packaged
from sracl_dist.config import parse_config
from sracl_dist.data import sources
from sracl_dist.data.sources import file_facts, public_set, resolve
from sracl_dist.errors import ConfigError, InputError, SetupError


def config(**data):
    return parse_config({"run": {"dir": "unused"}, "data": data})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SRACL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("x")
    return folder


@pytest.mark.parametrize("name", ["beauty", "Beauty", "sports & outdoors", "Sports_and_Outdoors", "cds and vinyl"])
def test_categories_are_found_however_they_are_written(name):
    assert public_set(f"amazon-2014:{name}").name.startswith("amazon-2014:")


@pytest.mark.parametrize("name", ["movielens", "amazon", "amazon-2014:", "amazon-2014:nothing", ""])
def test_unknown_sources_are_named(name):
    with pytest.raises(ConfigError, match=r"data\.source"):
        public_set(name)


@pytest.mark.parametrize("folder", ["sports_and_outdoors", "sports_outdoors"])
def test_sracl_data_is_looked_at_first(tmp_path, monkeypatch, folder):
    put(tmp_path / "local" / folder, "interactions.tsv", "items.tsv")
    monkeypatch.setenv("SRACL_DATA", str(tmp_path / "local"))
    source = resolve(config(source="amazon-2014:sports & outdoors"))
    assert [file.path for file in source.log_files] == [str(tmp_path / "local" / folder / "interactions.tsv")]
    assert source.columns.time == "position"
    assert not source.has_clock


def test_raw_amazon_files_bring_their_columns(tmp_path):
    put(tmp_path / "raw", "reviews_Beauty_5.json.gz", "meta_Beauty.json")
    source = resolve(config(source="amazon-2014:beauty", path=str(tmp_path / "raw"), min_rating=4))
    assert [file.source for file in source.log_files + source.text_files] == [
        "reviews_Beauty_5.json.gz",
        "meta_Beauty.json",
    ]
    assert (source.columns.user_id, source.columns.item_id, source.columns.rating) == ("reviewerID", "asin", "overall")


def test_the_cache_is_used_before_fetching(cache):
    put(cache / "movielens-1m", "ratings.dat", "movies.dat")
    assert resolve(config(source="movielens-1m")).log_files[0].path == str(cache / "movielens-1m" / "ratings.dat")


def test_facts_of_a_set_stay_the_same_when_it_is_fetched(cache, monkeypatch):
    def arrive(name, base_url, downloads, destination):
        return put(destination, "ratings.dat", "movies.dat")

    monkeypatch.setattr(sources, "fetch", arrive)
    settings = config(source="movielens-1m")
    before = file_facts(settings)
    resolve(settings)
    assert before == file_facts(settings) == {"movielens-1m": "ml-1m 2003"}


def test_facts_of_local_files_change_with_them(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("a")
    settings = config(interactions=[str(tmp_path / "*.csv")])
    before = file_facts(settings)
    assert list(before) == [str(log)]
    assert before == file_facts(settings)
    log.write_text("ab")
    assert file_facts(settings) != before


def test_facts_of_what_is_missing_are_empty_and_no_error(tmp_path):
    assert file_facts(config(interactions=[str(tmp_path / "none.csv")])) == {}
    assert file_facts(config(source="movielens-1m", path=str(tmp_path / "none"))) == {}
    assert file_facts(config(source="yelp", path=str(put(tmp_path / "empty")))) == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"path": "missing"}, "missing is not a folder"),
        ({"path": "empty"}, r"empty does not hold movielens-1m: it needs ratings\.dat and movies\.dat"),
    ],
)
def test_a_folder_without_the_set(tmp_path, monkeypatch, data, message):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "empty", "ratings.dat")
    with pytest.raises(InputError, match=message):
        resolve(config(source="movielens-1m", **data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"columns": {"time": "when"}}, r"data\.columns is set but data\.source=amazon-2014:beauty"),
        ({"category_separator": ";"}, r"data\.category_separator is set"),
        ({"min_rating": 4}, "this log has no ratings"),
        ({"split": "global_time"}, "this log has no times, only an order"),
    ],
)
def test_settings_that_contradict_the_set(tmp_path, data, message):
    put(tmp_path / "beauty", "interactions.tsv", "items.tsv")
    with pytest.raises(ConfigError, match=message):
        resolve(config(source="amazon-2014:beauty", path=str(tmp_path / "beauty"), **data))


def test_a_cache_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SRACL_CACHE", str(tmp_path / "file"))
    for name in ("movielens-100k", "movielens-1m"):
        with pytest.raises(SetupError, match="set SRACL_CACHE"):
            resolve(config(source=name))


@pytest.fixture
def no_registry(monkeypatch):
    def fail(wheel, destination, suffixes):
        raise SetupError("recbole==1.2.1 cannot be fetched; check the network and pip.")

    monkeypatch.setattr(packaged, "unpack", fail)


def test_movielens_100k_comes_from_its_publisher_where_there_is_no_registry(cache, monkeypatch, capsys, no_registry):
    asked = []

    def arrive(name, base_url, downloads, destination):
        asked.extend(base_url + download.url for download in downloads)
        return put(destination, "u.data", "u.item")

    monkeypatch.setattr(sources, "fetch", arrive)
    settings = config(source="movielens-100k", min_rating=3)
    before = file_facts(settings)
    source = resolve(settings)
    assert asked == ["https://files.grouplens.org/datasets/movielens/ml-100k.zip"]
    assert [file.source for file in source.log_files + source.text_files] == ["u.data", "u.item"]
    assert file_facts(settings) == before
    assert "recbole==1.2.1 cannot be fetched" in capsys.readouterr().err


def test_movielens_100k_without_any_network(monkeypatch, no_registry):
    def refuse(request, timeout):
        raise URLError("no route")

    monkeypatch.setattr(fetch_module.urllib.request, "urlopen", refuse)
    with pytest.raises(
        InputError, match=r"ml-100k\.zip \(no route\); check the network and try again, or put .* set data\.path"
    ):
        resolve(config(source="movielens-100k"))


def test_a_folder_without_movielens_100k_names_both_forms(tmp_path):
    with pytest.raises(InputError, match=r"needs ml-100k\.inter and ml-100k\.item or u\.data and u\.item"):
        resolve(config(source="movielens-100k", path=str(put(tmp_path / "half", "u.data", "ml-100k.item"))))
