"""docs/configuration.md says what the dataclasses say."""

from pathlib import Path

import sracl_dist
from sracl_dist.config.reference import field_docstrings, main, reference, stages_changed_by
from sracl_dist.config.schema import all_keys

PAGE = Path(sracl_dist.__file__).parent.parent / "docs" / "configuration.md"


def test_the_committed_page_is_current() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == reference(), f"run python -m sracl_dist.config.reference {PAGE.name}"


def test_every_key_is_described_and_ends_with_a_full_stop() -> None:
    for key in all_keys():
        meaning = field_docstrings(key.owner).get(key.name.rpartition(".")[2])
        assert meaning, f"{key.name} has no docstring"
        assert meaning.endswith("."), key.name


def test_a_key_names_the_stages_that_run_again() -> None:
    keys = {key.name: key for key in all_keys()}
    assert stages_changed_by(keys["run.seed"]) == ["train"]
    assert stages_changed_by(keys["run.tables"]) == []
    assert stages_changed_by(keys["objectives.cross_sequence.weight"]) == ["train"]
    assert stages_changed_by(keys["train.num_workers"]) == []


def test_the_program_writes_the_page(tmp_path: Path) -> None:
    assert main([str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == reference()
    assert main([]) == 2


def test_every_row_of_the_page_has_five_cells() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) == len(all_keys())
    assert {row.replace("\\|", "").count("|") for row in rows} == {6}
