"""Measurements use the product, and the product works without them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import sracl_dist

PACKAGE = Path(sracl_dist.__file__).parent
BENCH = "sracl_dist.bench"


def imported(source: str) -> Iterator[str]:
    """Names of the modules that a source imports anywhere, and of what it takes from them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_product_imports_no_measurement() -> None:
    sources = [path for path in PACKAGE.rglob("*.py") if PACKAGE / "bench" not in path.parents]
    assert len(sources) > 100
    found = {
        (str(path.relative_to(PACKAGE)), name)
        for path in sources
        for name in imported(path.read_text())
        if f"{name}.".startswith(f"{BENCH}.")
    }
    assert found == set()


def test_every_way_to_import_one_is_noticed() -> None:
    ways = [
        "import sracl_dist.bench",
        "from sracl_dist import bench",
        "def f():\n    from sracl_dist.bench import train",
    ]
    assert list(imported("\n".join(ways))) == [BENCH, BENCH, f"{BENCH}.train"]
