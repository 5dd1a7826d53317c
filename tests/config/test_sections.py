"""Impossible values are refused, and nothing is configured that nothing reads."""

import ast
import re
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import sracl_dist
from sracl_dist.columns import TEXT_COLUMNS
from sracl_dist.config import parse_config
from sracl_dist.config.schema import all_keys, all_sections, in_words
from sracl_dist.errors import ConfigError
from sracl_dist.stages import STAGES

MINIMAL = {"run": {"dir": "runs/test"}, "data": {"interactions": ["log.csv"]}}
PACKAGE = Path(sracl_dist.__file__).parent


@pytest.mark.parametrize(
    "override",
    [
        "run.dir=''",
        "run.seed=-1",
        "run.tables=' '",
        "cluster.num_cpus=0",
        "cluster.object_store_bytes=1000",
        "data.interactions=[]",
        "data.source=movielens-100k",
        "data.min_user_interactions=0",
        "data.test_share=0.5",
        "data.validation_share=.nan",
        "data.max_reject_share=1.1",
        "data.category_separator=|",
        "data.format.separator=''",
        "data.format.encoding=klingon",
        "data.format.encoding=hex",
        "data.item_format.header=[a,a]",
        "data.min_rating=4",
        "profile.max_items=-1",
        "profile.items_per_user=0",
        "profile.max_prompt_tokens=8",
        "profile.temperature=-0.1",
        "profile.repetition_penalty=0",
        "profile.max_failed_share=2",
        "profile.retries=-1",
        "profile.max_attempts=0",
        "profile.stall_timeout_s=0",
        "profile.stall_timeout_s=.inf",
        "profile.dtype=int4",
        "profile.engine=endpoint",
        "profile={engine: endpoint, endpoint: {url: 'http://localhost/v1'}}",
        "profile.endpoint.url=localhost:8000/v1",
        "profile.endpoint.url=ftp://localhost/v1",
        "profile.endpoint.url=http://localhost:port/v1",
        "profile.endpoint.url=http://localhost/v1?version=1",
        "profile.endpoint.url=http://localhost/v1/chat/completions",
        "profile.endpoint.concurrency=0",
        "profile.endpoint.concurrency=2000",
        "profile.endpoint.requests_per_minute=0",
        "profile.endpoint.timeout_s=.nan",
        "profile.endpoint.backoff_s=.inf",
        "profile.endpoint.max_backoff_s=0",
        "profile.endpoint.max_retry_after_s=-1",
        "profile.endpoint.max_retries=-1",
        "profile.endpoint.max_failures_in_a_row=0",
        "profile.chat_options=[enable_thinking]",
        "profile.chat_options=[enable_thinking=no]",
        "profile.chat_options=[tokenize=false]",
        "data.item_kind=' '",
        'data.item_kind="films\\nand series"',
        "profile.endpoint.request_fields=[top_p]",
        "profile.endpoint.request_fields=[top_p=high]",
        "profile.endpoint.request_fields=[top_p=NaN]",
        "profile.endpoint.request_fields=[=1]",
        "profile.endpoint.request_fields=[stream=true]",
        "embed.max_tokens=1",
        "embed.batch_rows=0",
        "embed.dimensions=0",
        "embed.meter_rows=19",
        "embed.meter_rows=10001",
        "neighbours.num_neighbours=0",
        "neighbours.min_recall=-1",
        "model.width=0",
        "model.num_heads=3",
        "model.dropout=1",
        "objectives.terms=[]",
        "objectives.terms=[cross_sequence]",
        "objectives.terms=[next_item, next_item]",
        "objectives.cross_sequence.temperature=0",
        "objectives.intra_sequence.replacement_rate=1.5",
        "objectives.next_item.num_sampled=0",
        "objectives.next_item.sampling_power=2",
        "objectives.random_views.crop_share=1.1",
        "objectives.same_target.weight=-1",
        "train.epochs=0",
        "train.warmup_epochs=-1",
        "train.weight_decay=-1",
        "train.embedding_weight_decay=-1",
        "train.metric=recall@20",
        "train.learning_rate=.nan",
        "train.max_gradient_norm=0",
        "train.gpus_per_worker=2",
        "train.num_workers=1000",
        "train.accumulate_steps=0",
        "train.checkpoint_every_s=0",
        "train.min_workers=2",
        "train.min_workers=0",
        "train.trackers=[wandb]",
        "tune.num_trials=0",
        "tune.num_random=0",
        "tune.grace_epochs=0",
        "tune.max_concurrent=0",
        "tune.time_budget_s=0",
        "tune.reduction_factor=1",
        "tune.algorithm=grad",
        "evaluate.shard_users=0",
        "recommend.num_items=0",
        "report.num_samples=0",
    ],
)
def test_an_impossible_value_is_refused_with_the_mend(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(MINIMAL, [override])
    message = str(caught.value)
    section = override.split("=")[0].split(".")[0]
    assert re.fullmatch(rf"{section}\.[a-z_.]+ is .+; [^;]+\.", message), message


@pytest.mark.parametrize(
    "override",
    [
        "profile.endpoint.url=https://me:sk-secret@host/v1",
        "profile.endpoint.url=https://sk-secret@host/v1",
        "profile.endpoint.url=me:sk-secret@host/v1",
        "profile.endpoint.url=https://me:sk-secret/3@host/v1",
        "profile.endpoint.url=https://host/v1?key=sk-secret",
        "profile.endpoint.url=https://host/v1#sk-secret",
        "profile.endpoint.key_variable=sk-secret",
    ],
)
def test_a_key_in_the_wrong_place_is_refused_unseen(override: str) -> None:
    with pytest.raises(ConfigError, match=r"profile\.endpoint\.[a-z_]+ is .*\*\*\*.*; ") as caught:
        parse_config(MINIMAL, [override])
    assert "secret" not in str(caught.value)


def test_an_endpoint_needs_its_address_and_model_only() -> None:
    overrides = ["profile.engine=endpoint", "profile.model=served", "profile.endpoint.url=http://localhost:8000/v1/"]
    config = parse_config(MINIMAL, [*overrides, "profile.endpoint.request_fields=[top_p=0.9, stop=null]"])
    assert config.profile.endpoint.fields_to_add() == {"top_p": 0.9, "stop": None}


def test_a_rating_threshold_with_its_column_is_fine() -> None:
    config = parse_config(MINIMAL, ["data.min_rating=4", "data.columns.rating=stars"])
    assert config.data.min_rating == 4
    assert config.data.columns.rating == "stars"


def test_a_repeat_bias_that_would_not_be_learned_is_refused() -> None:
    overrides = ["model.repeat_bias=true", "objectives.next_item.softmax=sampled"]
    with pytest.raises(ConfigError, match=r"model\.repeat_bias is True; use false with objectives\.next_item\.softmax"):
        parse_config(MINIMAL, overrides)
    for override in overrides:
        parse_config(MINIMAL, [override])


def test_every_key_has_a_plain_type_and_a_default() -> None:
    for key in all_keys():
        assert in_words(key.hint), key.name
        assert key.default is not ..., key.name


def test_every_stage_names_sections_that_exist() -> None:
    known = {*all_sections(all_keys()), *(key.name for key in all_keys())}
    for stage in STAGES.values():
        assert set(stage.settings) <= known, stage.name
        assert set(stage.inputs) <= set(STAGES), stage.name


def test_every_key_that_is_not_neutral_belongs_to_a_stage() -> None:
    settings = [name for stage in STAGES.values() for name in stage.settings]
    orphans = [
        key.name
        for key in all_keys()
        if not key.is_neutral and not any(key.name == name or key.name.startswith(name + ".") for name in settings)
    ]
    assert orphans == []


def names_read(path: Path) -> set[str]:
    """Names and attributes that a file loads, and string constants of getattr(section, "name")."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            names.add(node.attr)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
            names.update(part.value for part in node.args if isinstance(part, ast.Constant))
    return names | (set(TEXT_COLUMNS) if "TEXT_COLUMNS" in names else set())


def test_every_key_is_read_somewhere() -> None:
    """Read means: a file outside config/ loads the name, and deals with the section that it belongs to."""
    files = [names_read(path) for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE / "config"]
    unread = []
    for key in all_keys():
        section, _, name = key.name.rpartition(".")
        inherited = {kind.__name__ for kind in key.owner.__mro__ if is_dataclass(kind)}
        owners = {section.rpartition(".")[2], *inherited}
        if not any(name in names and owners & names for names in files):
            unread.append(key.name)
    assert unread == [], "a setting that nothing reads is a bug"
