"""From a file and overrides to a validated configuration; every refusal names the key, the value and the mend."""

import json
import re
from pathlib import Path

import pytest

from sracl_dist.config import Config, flatten, load_config, parse_config, with_values
from sracl_dist.config.schema import all_keys
from sracl_dist.errors import ConfigError

MINIMAL = {"run": {"dir": "runs/test"}, "data": {"interactions": ["log.csv"]}}


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(MINIMAL, overrides)
    return str(caught.value)


def test_file_over_defaults_and_overrides_over_file(tmp_path: Path) -> None:
    path = written(tmp_path, "run: {dir: here}\ndata: {interactions: [a.csv]}\ntrain: {epochs: 7, patience: 2}\n")
    config = load_config(path, ["train.epochs=3", "data.columns.time=null", "train.learning_rate=1e-4"])
    assert isinstance(config, Config)
    assert (config.train.epochs, config.train.patience, config.train.learning_rate) == (3, 2, 1e-4)
    assert config.data.columns.time is None
    assert config.model.width == 64


def test_lists_and_sections_can_be_overridden() -> None:
    config = parse_config(MINIMAL, ["data.interactions=[a.csv, b.csv]", "train={epochs: 4}"])
    assert config.data.interactions == ["a.csv", "b.csv"]
    assert (config.train.epochs, config.train.patience) == (4, 10)


def test_the_later_override_wins() -> None:
    assert parse_config(MINIMAL, ["train.epochs=3", "train.epochs=5"]).train.epochs == 5


def test_a_value_may_hold_an_equals_sign() -> None:
    assert parse_config(MINIMAL, ["run.dir=runs/lr=0.1"]).run.dir == "runs/lr=0.1"


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.epoks=3", "train.epochs"),
        ("train.learning_rte=3", "train.learning_rate"),
        ("trian={}", "train"),
        ("model.widht=8", "model.width"),
        ("train={epoks: 3}", "train.epochs"),
        ("train.epochs.x=3", "train.epochs"),
        ("data.interactions[0]=x", "data.interactions"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_valid_one(override: str, nearest: str) -> None:
    assert refusal(override).endswith(f"is unknown; did you mean {nearest}?")


def test_an_unknown_key_in_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"The key modle\.width is unknown; did you mean model\.width\?"):
        load_config(written(tmp_path, "modle: {width: 8}\n"))


def test_an_unknown_key_that_resembles_nothing_points_to_the_reference() -> None:
    assert refusal("qqqqqqqq=1") == "The key qqqqqqqq is unknown; see docs/configuration.md."


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train=3", "train is 3; it is a section, so set its keys, for example train.epochs."),
        ("train=null", "train is None; it is a section, so set its keys, for example train.epochs."),
        ("data.columns=x", "data.columns is 'x'; it is a section, so set its keys, for example data.columns.user_id."),
        ("data.interactions=x", "data.interactions is 'x'; use a list such as [a, b]."),
        ("data.interactions={}", "data.interactions is {}; use a list such as [a, b]."),
        ("train.epochs=many", "train.epochs is 'many'; use a whole number."),
        ("train.epochs=1.5", "train.epochs is 1.5; use a whole number."),
        ("train.epochs=true", "train.epochs is True; use a whole number."),
        ("train.epochs=null", "train.epochs is None; use a whole number."),
        ("train.learning_rate=fast", "train.learning_rate is 'fast'; use a number."),
        ("recommend.remove_seen=maybe", "recommend.remove_seen is 'maybe'; use true or false."),
        ("cluster.num_cpus=all", "cluster.num_cpus is 'all'; use a whole number, or null."),
        ("data.split=random", "data.split is 'random'; use one of leave_last_out, global_time."),
        ("run.dir=null", "run.dir is None; use text."),
        ("run.dir='${nowhere.at_all}'", "run.dir is '${nowhere.at_all}'; refer to another key."),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(override: str, message: str) -> None:
    assert refusal(override) == message


@pytest.mark.parametrize("value", [3, None, [1], "x"])
def test_a_section_in_the_file_that_is_no_mapping_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"train is {value!r}; it is a section")):
        parse_config({**MINIMAL, "train": value})


@pytest.mark.parametrize("override", ["train.epochs", "=3", ""])
def test_an_override_without_key_or_value_is_refused(override: str) -> None:
    assert refusal(override) == f"The override {override!r} is not KEY=VALUE; write for example train.epochs=3."


def test_an_override_with_broken_yaml_is_refused() -> None:
    assert "'train.metric=['" in refusal("train.metric=[")


def test_run_dir_must_be_given() -> None:
    with pytest.raises(
        ConfigError, match=r"^run\.dir has no value; set it in the file, or as an override KEY=VALUE\.$"
    ):
        parse_config({"data": {"interactions": ["log.csv"]}})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml cannot be read \(No such file or directory\)"):
        load_config(tmp_path / "absent.yaml")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        load_config(tmp_path)


def test_broken_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not valid YAML in line 3 \(.+\); mend its syntax\.$"):
        load_config(written(tmp_path, "run:\n  dir: x\n bad\n"))


def test_a_key_written_twice_is_refused(tmp_path: Path) -> None:
    text = "train: {epochs: 1}\nrun: {dir: x}\ntrain: {patience: 1}\n"
    with pytest.raises(ConfigError, match=r"in line 3 \(found duplicate key train\)"):
        load_config(written(tmp_path, text))


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not UTF-8 text; save it as UTF-8"):
        load_config(written(tmp_path, b"run: {dir: \xff\xfe}\n"))


@pytest.mark.parametrize("text", ["just words\n", "- run\n- data\n", "3\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a mapping of sections|is unknown"):
        load_config(written(tmp_path, text))


def test_an_empty_file_takes_all_from_overrides(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, ""), ["run.dir=x", "data.source=movielens-100k"])
    assert config.run.dir == "x"


def test_text_outside_ascii_is_kept(tmp_path: Path) -> None:
    folder, log = "l\u00e4ufe/\u6771\u4eac", "\u0436\u0443\u0440\u043d\u0430\u043b.csv"
    text = f"run: {{dir: {folder}}}\ndata: {{interactions: [{log}]}}\n"
    config = load_config(written(tmp_path, text))
    assert (config.run.dir, config.data.interactions) == (folder, [log])


def test_flatten_has_every_key_with_its_value() -> None:
    flat = flatten(parse_config(MINIMAL, ["model.width=8"]))
    assert list(flat) == [key.name for key in all_keys()]
    assert (flat["model.width"], flat["data.interactions"]) == (8, ["log.csv"])


def test_flatten_limits_to_sections_and_keys() -> None:
    flat = flatten(parse_config(MINIMAL), ["recommend", "run.seed"], with_neutral=False)
    assert set(flat) == {"recommend.num_items", "recommend.remove_seen", "run.seed"}


def test_flatten_can_be_loaded_again() -> None:
    config = parse_config(MINIMAL, ["train.epochs=3", "data.min_rating=null"])
    again = parse_config({}, [f"{key}={json.dumps(value)}" for key, value in flatten(config).items()])
    assert again == config


SECRET = "hf_0123456789"


def test_a_secret_is_for_use_and_not_for_showing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    config = parse_config(MINIMAL, ["profile.endpoint.request_fields=['user=\"${oc.env:HF_TOKEN}\"']"])
    key = "profile.endpoint.request_fields"
    assert config.profile.endpoint.request_fields == [f'user="{SECRET}"']
    assert flatten(config, [key]) == {key: ['user="***"']}
    assert flatten(config, [key], with_secrets=True) == {key: [f'user="{SECRET}"']}
    assert with_values(config, {"train.epochs": 3}).profile == config.profile


@pytest.mark.parametrize(
    "override",
    [
        "profile.endpoint.request_fields=['${oc.env:HF_TOKEN}']",
        "profile.endpoint.url=${oc.env:HF_TOKEN}",
        "train.epochs=${oc.env:HF_TOKEN}",
        f"train.epochs={SECRET}",
        f"{SECRET}=1",
        f"train={SECRET}",
        f"train.metric=[{SECRET}",
    ],
)
def test_no_refusal_shows_a_secret(override: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert SECRET not in refusal(override)
