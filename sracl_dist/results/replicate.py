"""Runs what is not done: shared tables first and one after the other, then trainings, also side by side.

Every run is led by a process of its own, and each of its stages is one again, as in any pipeline.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from sracl_dist.errors import SraclError
from sracl_dist.observe import say
from sracl_dist.pipeline import die_with, run_pipeline
from sracl_dist.results.plan import SeedRun, tables_path
from sracl_dist.run_folder import TABLE_STAGES
from sracl_dist.run_folder.locations import shown_location
from sracl_dist.stages import STAGES, stage_status, stages_up_to

LAST_STAGE = "evaluate"


@dataclass(frozen=True, kw_only=True)
class Task:
    """Some stages of one run."""

    label: str
    run: SeedRun
    stages: tuple[str, ...]

    def is_done(self) -> bool:
        """Whether nothing is left to do; what cannot be told is left to the task's own process, which says why."""
        run, config = self.run.folder, self.run.config
        try:
            return all(stage_status(STAGES[name], config, run, thorough=True).done for name in self.stages)
        except SraclError:
            return False


def replicate(runs: Sequence[SeedRun], jobs: Path, *, parallel: int = 1) -> dict[str, str]:
    """Take every run up to the stage evaluate, skipping what is done; one that fails does not stop the others.

    Two processes must not write one folder, so the tables that runs share are made before any training starts.

    Args:
        runs: what to do; those of one configuration may share tables with others.
        jobs: folder with a program per stage.
        parallel: runs that train side by side.

    Returns:
        Label of each run that failed, with the reason.
    """
    names = stages_up_to(LAST_STAGE)
    shared = tuple(name for name in names if name in TABLE_STAGES)
    own = tuple(name for name in names if name not in TABLE_STAGES)
    writers: dict[str, Task] = {}
    for run in runs:
        label = f"tables {shown_location(str(run.config.run.tables))}"
        writers.setdefault(tables_path(run), Task(label=label, run=run, stages=shared))
    failed_tables = _run_all(list(writers.values()), jobs, 1)
    failures, tasks = {}, []
    for run in runs:
        tables = writers[tables_path(run)].label
        if tables in failed_tables:
            failures[run.label] = f"{tables}: {failed_tables[tables]}"
        else:
            tasks.append(Task(label=run.label, run=run, stages=own))
    return failures | _run_all(tasks, jobs, parallel)


def _run_all(tasks: Sequence[Task], jobs: Path, parallel: int) -> dict[str, str]:
    """Do the tasks, `parallel` at a time; returns the label of each that failed, with the reason."""
    waiting = deque((number, task) for number, task in enumerate(tasks, start=1) if not task.is_done())
    if len(waiting) < len(tasks):
        done = [task.label for task in tasks if task not in [left for _, left in waiting]]
        say(f"results: done before: {'; '.join(done)}")
    running: dict[Connection, tuple[Task, Any]] = {}
    failures: dict[str, str] = {}
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                number, task = waiting.popleft()
                say(f"results: [{number}/{len(tasks)}] {task.label}: {', '.join(task.stages)}")
                running.update([_start(task, jobs, f"[{task.label}] " if parallel > 1 else "")])
            ready = wait(list(running))
            for answers in [own for own in running if own in ready]:
                task, process = running.pop(answers)
                reason = _reason(answers, process)
                if reason is not None:
                    failures[task.label] = reason
                    say(f"results: {task.label} failed: {reason}")
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()
    return failures


def _start(task: Task, jobs: Path, label: str) -> tuple[Connection, tuple[Task, Any]]:
    # Not a fork: this process may have threads of a file system, whose locks a copy would inherit.
    context = multiprocessing.get_context("spawn")
    answers, answer = context.Pipe(duplex=False)
    process = context.Process(target=_lead, args=(task, jobs, label, os.getpid(), answer), daemon=True)
    process.start()
    answer.close()  # so that its end is seen here when the process dies
    return answers, (task, process)


def _lead(task: Task, jobs: Path, label: str, parent: int, answer: Connection) -> None:
    """What the process of a task does; it answers with None, or why it failed."""
    die_with(parent)
    run = task.run
    try:
        run_pipeline(run.config, run.folder, jobs, run.arguments, stages=task.stages, label=label)
        answer.send(None)
    except SraclError as error:
        answer.send(str(error).rstrip("."))
    except KeyboardInterrupt:
        answer.send("it was interrupted; run the same command again to go on")


def _reason(answers: Connection, process: Any) -> str | None:
    try:
        reason: str | None = answers.recv()
    except EOFError:
        process.join()
        reason = f"its process ended with status {process.exitcode}; run the same command again to go on"
    process.join()
    answers.close()
    return reason
