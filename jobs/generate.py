"""generate: write a realistic log of any size with planted structure, to test and measure with.

The folder gets interactions/part-*.parquet, items/part-*.parquet and facts.json, the planted counts. Killed, the same
command goes on with the parts that are missing.

    python jobs/generate.py runs/synthetic/log
    python jobs/generate.py big num_events=200000000 num_users=5000000 num_items=1000000 num_processes=8
    python jobs/generate.py --help       every setting, with its default
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict

from sracl_dist.bench.settings import parse_settings
from sracl_dist.bench.synthetic_log import SyntheticLogSettings, write_log
from sracl_dist.cli import ArgumentParser, exit_status
from sracl_dist.config.reference import field_docstrings
from sracl_dist.observe import say


def main(argv: Sequence[str] | None = None) -> int:
    """Write the log; returns the exit status."""
    arguments = parse(argv)
    return exit_status(lambda: generate(arguments.folder, arguments.settings))


def generate(folder: str, words: Sequence[str]) -> None:
    """Write the log and say what it holds."""
    facts = write_log(folder, parse_settings(SyntheticLogSettings, words))
    say(
        f"generate: wrote {facts['num_events']:,} events of {facts['num_users']:,} users and {facts['num_items']:,} "
        f"items from {facts['first_time'][:10]} to {facts['last_time'][:10]} to {folder}; the facts are in facts.json"
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    texts = field_docstrings(SyntheticLogSettings)
    shown = "\n".join(f"  {name}={value}: {texts[name]}" for name, value in asdict(SyntheticLogSettings()).items())
    parser = ArgumentParser(description=__doc__, epilog=f"settings, with their defaults:\n{shown}")
    parser.add_argument("folder", metavar="OUTPUT_FOLDER", help="where the log goes")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
