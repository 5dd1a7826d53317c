"""results: train and evaluate every configuration with every seed, and tell what came out in one page."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sracl_dist.errors import ConfigError, StageError
from sracl_dist.observe import put_out, say
from sracl_dist.results.collect import Results, collect
from sracl_dist.results.plan import plan_runs
from sracl_dist.results.replicate import replicate
from sracl_dist.results.table import markdown
from sracl_dist.secrets import masked


def make_results(
    files: Sequence[str],
    seeds: Sequence[int],
    jobs: Path,
    output: str,
    *,
    against: str | None = None,
    overrides: Sequence[str] = (),
    parallel: int = 1,
) -> Results:
    """Run what is not done, print the page, and write it to `output` and as JSON beside it.

    Args:
        files: configurations.
        seeds: every one is trained with each of them.
        jobs: folder with a program per stage.
        output: the page, a file that ends with .md.
        against: configuration that the others are tested against; it is trained too where `files` lack it.
        overrides: KEY=VALUE for every configuration.
        parallel: runs that train side by side.

    Raises:
        ConfigError: an argument or a configuration is wrong; nothing has run then.
        StageError: a run failed, or two could not be tested; everything else was done, printed and written.
    """
    page_file = _output_file(output)
    if parallel < 1:
        raise ConfigError(f"--parallel is {parallel}; use 1 or more.")
    files = list(files)
    if against is not None and Path(against).resolve() not in [Path(file).resolve() for file in files]:
        files.append(against)
    runs = plan_runs(files, seeds, overrides)
    failed = replicate(runs, jobs, parallel=parallel)
    results = collect(runs, failed, Path(against).stem if against is not None else None)
    page = markdown(results)
    put_out(page)
    _write(page_file, page)
    _write(page_file.with_suffix(".json"), json.dumps(_plain(asdict(results)), indent=2, ensure_ascii=False) + "\n")
    say(f"results: written to {page_file} and, with every number, to {page_file.with_suffix('.json')}")
    _require_complete(results, len(runs))
    return results


def _output_file(output: str) -> Path:
    """The file to write to; what cannot be written is found out now and not after hours of training."""
    file = Path(output)
    if file.suffix != ".md" or "://" in output:
        raise ConfigError(f"--output is {output!r}; name a file on this machine that ends with .md.")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--output is {output!r}, whose folder cannot be made ({error.strerror}); name another."
        ) from None
    if not os.access(file.parent, os.W_OK):
        raise ConfigError(f"--output is {output!r}, whose folder cannot be written; name another.")
    return file


def _write(file: Path, text: str) -> None:
    """Write a file that nobody ever sees half."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


def _plain(value: Any) -> Any:
    """Without secrets and without infinities, which JSON lacks: null stands for them."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else masked(value)


def _require_complete(results: Results, num_runs: int) -> None:
    failed = [f"{variant.name} seed {seed}" for variant in results.variants for seed in variant.failures]
    if failed:
        raise StageError(
            f"{len(failed)} of {num_runs} runs failed ({', '.join(failed)}); mend what is said above and run the same "
            f"command again, which goes on where it stopped."
        )
    untested = [variant.name for variant in results.variants if variant.untested]
    if untested:
        raise StageError(f"{', '.join(untested)} could not be tested against {results.against}; the page says why.")
