"""bench: measure a part of the package on this machine, against what it is compared with.

A table goes to standard error; the last line of standard output is one JSON object with the keys bench, figures and
settings.

    python jobs/bench.py train
    python jobs/bench.py train threads=4 rounds=9
    python jobs/bench.py train --help       every setting, with its default
"""

import json
import sys
from collections.abc import Sequence

from sracl_dist.bench import BENCHES
from sracl_dist.bench.run import describe_settings, run_bench
from sracl_dist.cli import ArgumentParser, exit_status
from sracl_dist.observe import put_out


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = ArgumentParser(description=__doc__)
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME", help=f"one of {', '.join(BENCHES)}")
    for name in BENCHES:
        described = f"settings, with their defaults:\n{describe_settings(name)}" if name in words else None
        one = names.add_parser(name, epilog=described)
        one.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_args(words)
    return exit_status(lambda: put_out(json.dumps(run_bench(arguments.name, arguments.settings)) + "\n"))


if __name__ == "__main__":
    sys.exit(main())
