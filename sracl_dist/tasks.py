"""Tasks of a stage: in this process where there is little to do, on Ray's workers where there is much."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sracl_dist.config.sections import ClusterConfig
from sracl_dist.observe import Progress

Task = TypeVar("Task")


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """Runs the tasks of one step after the other."""

    num_workers: int
    """Processes that share the tasks; 0 runs them in this one."""

    def run(
        self,
        label: str,
        make: Callable[..., Callable[[Task], Any]],
        arguments: tuple[Any, ...],
        tasks: Sequence[Task],
        *,
        size: Callable[[Task], int],
        is_done: Callable[[Task], bool],
        unit: str = "rows",
        on_result: Callable[[Task, Any], None] | None = None,
    ) -> None:
        """Do the tasks that are not done yet, with a progress line.

        Args:
            label: what the progress line says.
            make: `make(*arguments)` returns the function that does a task and commits what came of it.
            arguments: see `make`.
            tasks: all tasks of the step.
            size: how large a task is, for the progress line.
            is_done: whether a task was committed before.
            unit: of the size.
            on_result: takes what a task returned.
        """
        pending = [task for task in tasks if not is_done(task)]
        total = sum(map(size, tasks))
        progress = Progress(label, total, unit, done=total - sum(map(size, pending)))

        def finish(task: Task, result: Any) -> None:
            if on_result is not None:
                on_result(task, result)
            progress.update(size(task))

        if self.num_workers:
            from sracl_dist.cluster import map_shards  # a small log is prepared before Ray is even imported

            map_shards(
                make,
                arguments,
                pending,
                finish,
                num_workers=self.num_workers,
            )
        elif pending:
            process = make(*arguments)
            for task in pending:
                finish(task, process(task))
        if pending:
            progress.close()


@contextlib.contextmanager
def open_tasks(config: ClusterConfig, *, on_ray: bool) -> Iterator[Tasks]:
    """What runs the tasks; Ray is there for the duration of the block where they are to run on it.

    Raises:
        SetupError: the cluster cannot be reached or started, or no node with a CPU for work has come in time.
    """
    if not on_ray:
        yield Tasks(num_workers=0)
        return
    from sracl_dist.cluster import connected

    with connected(config) as cluster:
        yield Tasks(num_workers=cluster.num_single_workers())
