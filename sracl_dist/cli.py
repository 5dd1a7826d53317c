"""What every job does around its stage: arguments, configuration, skipping, messages and exit status."""

import argparse
import errno
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sracl_dist.config import Config, load_config
from sracl_dist.errors import ConfigError, SraclError, brief, was_interrupted
from sracl_dist.observe import duration, quiet_libraries, say, show_bug
from sracl_dist.run_folder import RunFolder
from sracl_dist.run_folder.locations import shown_location
from sracl_dist.stages import STAGES, Stage, require_inputs, run_stage, stage_status
from sracl_dist.temporary import own_folder
from sracl_dist.visible import visible

STORAGE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
"""What a full or protected disk raises outside the run folder, for example in the folder for temporary files."""
NEXT_OVERRIDE = re.compile(r"\s+(?=\w+(?:\.\w+)+=)")

Work = Callable[[Config, RunFolder], object]
Trial = Callable[[RunFolder, Sequence[tuple[str, Config]], int], object]
"""From the run, the configurations to compare (what differs, in words, and the whole) and the number of rows."""


class ArgumentParser(argparse.ArgumentParser):
    """One that keeps the manual's lines, and repeats a person's words cleaned as `say` does."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter} | settings)

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and exit with status 2."""
        super().error(visible(message))


def stage_job(
    name: str,
    manual: str | None,
    argv: Sequence[str] | None = None,
    *,
    dry_run: Work | None = None,
    trial: Trial | None = None,
) -> int:
    """Run one stage as a program, or in its place `dry_run` or `trial`, where --dry-run or --trial is given.

    Returns:
        The exit status.
    """
    stage = STAGES[name]
    options = parse_arguments(manual, argv, offers_dry_run=dry_run is not None, offers_trial=trial is not None)

    def try_out() -> None:
        texts = ["", *options.variants]
        variants = [(text, load_config(options.config, [*options.overrides, *_of_stage(name, text)])) for text in texts]
        config = variants[0][1]
        run = RunFolder(config.run.dir, config.run.tables)
        require_inputs(stage, config, run)
        if trial is not None:
            trial(run, variants, options.trial)

    if trial is not None and options.trial is not None:
        return exit_status(try_out)

    def only_tell(config: Config, run: RunFolder) -> None:
        require_inputs(stage, config, run)
        if dry_run is not None:
            dry_run(config, run)

    return job(
        manual,
        argv,
        lambda config, run: run_one(stage, config, run),
        dry_run=None if dry_run is None else only_tell,
        arguments=options,
    )


def _of_stage(name: str, text: str) -> list[str]:
    """The overrides of a --with, which may only be of the stage's own section.

    A new one begins where white space comes before a key and its equals sign, so values keep their blanks and quotes.
    """
    overrides = [override.strip() for override in NEXT_OVERRIDE.split(text) if override.strip()]
    for override in overrides:
        if not override.startswith(f"{name}."):
            raise ConfigError(f"--with names {brief(override)}; name settings of {name}. only.")
    return overrides


def job(
    manual: str | None,
    argv: Sequence[str] | None,
    work: Work,
    *,
    dry_run: Work | None = None,
    arguments: argparse.Namespace | None = None,
) -> int:
    """Parse arguments unless they are given, load the configuration and do `work`; returns as `exit_status` does."""
    if arguments is None:
        arguments = parse_arguments(manual, argv, offers_dry_run=dry_run is not None)

    def load_and_work() -> None:
        config = load_config(arguments.config, arguments.overrides)
        run = RunFolder(config.run.dir, config.run.tables)
        if dry_run is not None and arguments.dry_run:
            dry_run(config, run)
        else:
            work(config, run)

    return exit_status(load_and_work)


def exit_status(work: Callable[[], object]) -> int:
    """Do `work` and return the exit status; a user's error becomes one sentence and status 1."""
    _hide_jobs_from_imports()
    quiet_libraries()
    sys.excepthook = show_bug
    try:
        with own_folder():
            work()
    except BaseException as error:
        if was_interrupted(error):
            say("interrupted; run the same command again to go on")
            return 130
        if isinstance(error, SraclError):
            say(f"error: {error}")
            return 1
        if isinstance(error, OSError) and error.errno in STORAGE_ERRNOS:
            place = error.filename or "a file"
            say(f"error: {place} cannot be written ({error.strerror}); make room, or mend its rights.")
            return 1
        raise
    return 0


def _hide_jobs_from_imports() -> None:
    """Take the folder of the running program off the import path, here and in the workers that Ray starts.

    Python puts it there, and the standard library's module `profile` would be found in jobs/profile.py.
    """
    program = Path(sys.argv[0]).resolve()
    if program.is_file():  # and not what `python -c` says in its place
        sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != program.parent]


def parse_arguments(
    manual: str | None, argv: Sequence[str] | None, *, offers_dry_run: bool = False, offers_trial: bool = False
) -> argparse.Namespace:
    """The two arguments of every job, a configuration file and overrides, and those of what else the job offers."""
    parser = ArgumentParser(description=manual)
    parser.add_argument("--config", required=True, help="YAML file; its keys are described in docs/configuration.md")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings that override the file")
    if offers_dry_run:
        parser.add_argument("--dry-run", action="store_true", help="say what the stage would do and cost, and stop")
    if not offers_trial:
        return parser.parse_intermixed_args(argv)
    parser.add_argument("--trial", type=int, metavar="ROWS", help="do it for so many items and users, and measure them")
    with_help = "--trial: compare with these settings, such as 'profile.model=...'; may be given several times"
    parser.add_argument("--with", dest="variants", action="append", default=[], metavar="KEY=VALUE ...", help=with_help)
    arguments = parser.parse_intermixed_args(argv)
    if arguments.trial is not None and arguments.trial < 1:
        parser.error(f"--trial is {arguments.trial}; use 1 or more")
    if arguments.trial is None and arguments.variants:
        parser.error("--with compares variants of a trial; add --trial ROWS")
    if arguments.trial is not None and offers_dry_run and arguments.dry_run:
        parser.error("--trial and --dry-run exclude each other; leave one of them out")
    return arguments


def run_one(stage: Stage, config: Config, run: RunFolder) -> bool:
    """Run a stage unless it is done, telling what is read, written and next; returns whether it ran."""
    require_inputs(stage, config, run)
    status = stage_status(stage, config, run, thorough=True)
    folder = run.stage(stage.name)
    if status.done:
        say(f"{stage.name}: done before, {folder.shown()} is up to date")
        return False
    reads = ", ".join(run.stage(name).shown() for name in stage.inputs) or "the raw log"
    say(f"{stage.name}: {stage.purpose} ({status.why})")
    say(f"{stage.name}: reads {reads}; writes {folder.shown()}")
    result = run_stage(stage, config, run, status.draft)
    for line in result.summary:
        say(f"{stage.name}: {line}")
    rows = ", ".join(f"{table} {num:,}" for table, num in result.rows.items())
    say(f"{stage.name}: wrote {rows} in {duration(status.draft.wall_s)}")
    following = list(STAGES)[list(STAGES).index(stage.name) + 1 :]
    if following:
        arguments = shlex.join(shown_location(word) for word in sys.argv[1:])
        say(f"{stage.name}: next is python jobs/{following[0]}.py {arguments}")
    return True
