"""Writes docs/configuration.md: every key with type, default and meaning, taken from the dataclasses themselves.

python -m sracl_dist.config.reference docs/configuration.md
"""

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path

from sracl_dist.config.schema import Key, all_keys, all_sections, in_words
from sracl_dist.stages import STAGES

INTRODUCTION = """\
# Configuration

A run is described by one YAML file; every job takes it with `--config`, and any key can be overridden behind it:

    python jobs/train.py --config configs/demo.yaml train.epochs=3 'data.interactions=[a.csv, b.csv]'

A key that is left out has its default. An unknown key, a wrong type or an impossible value ends the job with one
sentence. `${section.key}` refers to another key and `${oc.env:NAME}` to an environment variable.

The file has at most 1 MB and 10,000 values, nested at most 50 deep, without tags such as `!!int`; where a log has more
files than that, use globs. A reference names its key, and does not make the name out of another reference.

Where a variable is named like a secret (a word of its name ends in KEY, TOKEN, SECRET, PASSWORD, PASSWD, PASSPHRASE,
CREDENTIAL or CREDENTIALS, or it ends in _PASS or _PWD) and its value has 6 characters or more, that value is `***` in
messages, manifests, checkpoints, reports and trackers, and `${oc.env:NAME}` in the configurations that a search
writes. A secret that changes makes no stage run again.

A finished stage runs again when a key changes that can change its result; the last column says which stages those are,
and the stages that read them follow. A key with "none" there only changes how fast or where the work is done.

This page is written by `python -m sracl_dist.config.reference docs/configuration.md`.
"""


def reference() -> str:
    """The page as Markdown."""
    keys = all_keys()
    parts = [INTRODUCTION]
    for section in all_sections(keys):
        own = [key for key in keys if key.name.rpartition(".")[0] == section]
        if own:
            parts.append(_section(section, own))
    return "\n".join(parts)


def field_docstrings(owner: type) -> dict[str, str]:
    """The string below each field of a dataclass, inherited ones included."""
    texts = {}
    for declaring in filter(is_dataclass, reversed(owner.__mro__)):
        body = ast.parse(textwrap.dedent(inspect.getsource(declaring))).body[0]
        for statement, following in zip(body.body, body.body[1:], strict=False):  # type: ignore[attr-defined]
            if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
                texts[ast.unparse(statement.target)] = " ".join(ast.literal_eval(following.value).split())
    return texts


def stages_changed_by(key: Key) -> list[str]:
    """Stages that run again when the key changes."""
    if key.is_neutral:
        return []
    return [
        stage.name
        for stage in STAGES.values()
        if any(key.name == name or key.name.startswith(name + ".") for name in stage.settings)
        and key.name not in stage.ignored
    ]


def _section(name: str, keys: Sequence[Key]) -> str:
    owner = keys[0].owner
    meanings = field_docstrings(owner)
    lines = [f"## {name}", "", inspect.cleandoc(owner.__doc__ or ""), ""]
    lines += ["| key | type | default | meaning | runs again |", "|---|---|---|---|---|"]
    for key in keys:
        meaning = meanings[key.name.rpartition(".")[2]]
        again = ", ".join(stages_changed_by(key)) or "none"
        cells = (f"`{key.name}`", in_words(key.hint), _default(key), meaning.replace("<", "&lt;"), again)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _default(key: Key) -> str:
    return "required" if key.default == "???" else f"`{json.dumps(key.default)}`"


def main(argv: Sequence[str]) -> int:
    """Write the page to the path given."""
    if len(argv) != 1:
        sys.stderr.write("usage: python -m sracl_dist.config.reference PATH\n")
        return 2
    Path(argv[0]).write_text(reference(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
