"""tune: search for better settings, judged on validation, and keep what every trial brought."""

import shlex
import sys
import time
from typing import Any

import ray

from sracl_dist.cluster import Cluster, connected
from sracl_dist.config import Config
from sracl_dist.errors import StageError, was_interrupted
from sracl_dist.model.encoders import encoder_class
from sracl_dist.observe import duration, say
from sracl_dist.room import require_room
from sracl_dist.run_folder import Manifest, RunFolder, StageFolder
from sracl_dist.run_folder.locations import shown_location
from sracl_dist.sequences import load_sequences
from sracl_dist.stages import STAGES, require_inputs, whole_inputs
from sracl_dist.train.loop import make_batches, require_trainable
from sracl_dist.tune.board import Board
from sracl_dist.tune.outputs import BEST_CONFIG, shown_values, write_best, write_table
from sracl_dist.tune.plots import write_plots
from sracl_dist.tune.proposals import num_trials
from sracl_dist.tune.records import (
    ENDS,
    FOLDER,
    SEARCH,
    SESSION,
    TABLE,
    Records,
    fingerprint_of,
    made_for,
    require_same_search,
)
from sracl_dist.tune.space import Space, parse_space
from sracl_dist.tune.trial import SLOTS, Checkpoints

VERSION = 1


def tune(config: Config, run: RunFolder) -> None:
    """Search, or go on with a search that was interrupted or given more trials.

    Raises:
        ConfigError: the space is wrong; nothing has run then.
        StageOrderError: a stage whose tables the trials read is not done, or the folder holds another search.
        SetupError: the cluster can never hold a trial.
        StageError: no trial has brought a metric.
        StorageError: a record is damaged, or the run folder cannot be written.
    """
    space = parse_space(config)
    encoder_class(config.model.encoder)
    require_inputs(STAGES["train"], config, run)
    sequences = load_sequences(run)
    require_trainable(sequences, make_batches(config, sequences))
    inputs = whole_inputs(STAGES["train"], run)
    wanted = made_for(config, {name: manifest.fingerprint for name, manifest in inputs.items()})
    fingerprint = fingerprint_of(wanted)
    require_same_search(run.stage(FOLDER), wanted)
    with run.reading(inputs), run.working_on(FOLDER, fingerprint, libraries=(f"{SESSION}/",)) as folder:
        folder.write_json(SEARCH, wanted)
        started, records = time.monotonic(), Records(folder)
        board = Board(config, space, folder, records)
        if board.num_left:
            _forget_state(folder, records)
            _search(config, run, board)
        else:
            say(f"tune: done before, all {num_trials(config, space)} trials have ended")
        _publish(config, folder, space, records)
        if not board.num_left:
            manifest = Manifest(
                stage=FOLDER,
                fingerprint=fingerprint,
                version=VERSION,
                config=wanted,
                external={},
                inputs={name: own.fingerprint for name, own in inputs.items()},
                **_outcome(records),
                finished_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                wall_s=round(time.monotonic() - started, 2),
            )
            folder.commit(manifest)
    _tell(config, folder, space, records)


def _forget_state(folder: StageFolder, records: Records) -> None:
    """Delete what ended trials would need to go on, where the search was killed just before it did so.

    Checkpoints of which a file was damaged go as a whole.
    """
    for name in folder.damaged_before:
        checkpoint = name.rpartition("/")[0]
        if f"{checkpoint}/".endswith(SLOTS):
            folder.delete(folder.files(checkpoint))
    for trial in records:
        if trial.is_done:
            Checkpoints(folder, trial.number).forget_state()


def _search(config: Config, run: RunFolder, board: Board) -> None:
    from sracl_dist.tune.launch import count_placement_groups, run_trials

    with connected(config.cluster) as cluster:
        use_gpu = cluster.num_gpus > 0 and config.train.gpus_per_worker == 1
        most = _room(config, use_gpu)
        say(f"tune: {board.num_left} trials to go, {most} side by side; {_described(config, cluster)}")
        try:
            run_trials(config, run, board, max_concurrent=most, use_gpu=use_gpu)
        except BaseException as error:
            if was_interrupted(error):
                say(f"tune: interrupted; go on with python jobs/tune.py {_arguments()}")
            raise
        finally:
            board.close()
        left = count_placement_groups()
        say(f"tune: {left} placement groups left over")
    if left:
        raise StageError(
            f"{left} placement groups of ended trials are still there and hold their CPUs; restart the cluster, and "
            f"report this as a defect."
        )


def _described(config: Config, cluster: Cluster) -> str:
    train = config.train
    return f"workers of a trial: {train.num_workers}, CPUs of a worker: {train.cpus_per_worker} of {cluster.num_cpus}"


def _room(config: Config, use_gpu: bool) -> int:
    """Trials that fit into the cluster side by side, at most tune.max_concurrent.

    Raises:
        SetupError: not even one fits.
    """
    train = config.train
    require_room(train.num_workers, train.cpus_per_worker, int(use_gpu), "train.num_workers")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": train.cpus_per_worker, **({"GPU": 1} if use_gpu else {})}
    workers = sum(min(int(node.get(name, 0) // amount) for name, amount in wanted.items()) for node in nodes)
    fitting = workers // train.num_workers
    asked = config.tune.max_concurrent
    if asked is not None and asked > fitting:
        say(f"tune: tune.max_concurrent is {asked}, and the cluster has room for {fitting} trials side by side")
    return min(fitting, asked or fitting)


def _publish(config: Config, folder: StageFolder, space: Space, records: Records) -> None:
    """Write the table, the best configuration and the plots.

    Raises:
        StageError: no trial has brought a metric.
    """
    write_table(config, folder, space, records)
    best = records.best
    if best is None:
        reasons = [trial.reason.rstrip(".") for trial in records if trial.reason]
        why = f"the first failed with: {reasons[0]}" if reasons else "none came as far as its first epoch"
        raise StageError(f"No trial has brought a metric ({why}); change the space, or give it more time.")
    write_best(config, folder, best)
    write_plots(config, folder, space, records)


def _outcome(records: Records) -> dict[str, Any]:
    """What the manifest says of the trials."""
    best = records.best
    details = {name: records.count(name) for name in ENDS}
    return {"rows": {"trials": len(records.trials)}, "details": {**details, "best_trial": best.id if best else None}}


def _tell(config: Config, folder: StageFolder, space: Space, records: Records) -> None:
    best = records.best
    total, ended = num_trials(config, space), records.count(*ENDS)
    seconds = sum(sum(trial.wall_s) for trial in records)
    say(
        f"tune: {records.count('finished')} trials finished, {records.count('stopped')} stopped early, "
        f"{records.count('failed')} failed, {duration(seconds)} of training; all in {folder.path(TABLE)}"
    )
    if best is not None and best.best_value is not None:
        metric = f"{config.train.metric} ({config.train.protocol.replace('_', ' ')})"
        say(f"tune: best is trial {best.id}, validation {metric} {best.best_value:.4f}: {shown_values(best.values)}")
        say(f"tune: next is python jobs/train.py --config {shlex.quote(folder.path(BEST_CONFIG))}")
    if ended < total:
        say(f"tune: the time is up with {total - ended} trials to go; go on with python jobs/tune.py {_arguments()}")


def _arguments() -> str:
    return shlex.join(shown_location(word) for word in sys.argv[1:])
