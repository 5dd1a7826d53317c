"""Which values the next trial gets: a function of the space, the run's seed and the records, and of nothing else.

A search that was killed therefore proposes what it would have proposed undisturbed, and there is no state of an
algorithm to keep. Optuna is imported where it is used only.
"""

import itertools
import json
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from sracl_dist.config import Config
from sracl_dist.tune.records import Trial
from sracl_dist.tune.space import Parameter, Space

if TYPE_CHECKING:
    import optuna


def num_trials(config: Config, space: Space) -> int:
    """Trials of the whole search: tune.num_trials, or the size of the grid where that is smaller."""
    most = config.tune.num_trials
    if config.tune.algorithm != "grid":
        return most
    return sum(1 for _ in itertools.islice(space.grid(), most))


def propose(config: Config, space: Space, number: int, trials: Iterable[Trial]) -> dict[str, Any]:
    """Values of trial `number`, by key.

    Args:
        config: its tune section and run.seed.
        space: from `parse_space`.
        number: of the new trial, from 0.
        trials: all others, also those that are still training.
    """
    if config.tune.algorithm == "grid":
        return next(itertools.islice(space.grid(), number, None))
    if config.tune.algorithm == "random" or number < config.tune.num_random:
        return space.draw(np.random.default_rng([config.run.seed, number]))
    seed = int(np.random.SeedSequence([config.run.seed, number]).generate_state(1)[0])
    return _ask_optuna(space, list(trials), seed)


def _ask_optuna(space: Space, trials: list[Trial], seed: int) -> dict[str, Any]:
    import optuna

    # Trials that train now count as bad ones, so that those side by side differ.
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, constant_liar=True)
    study = make_study(space, trials, sampler)
    asked = study.ask()
    chosen: dict[str, Any] = {}
    for parameter in space.parameters:
        if parameter.exists(chosen):
            chosen[parameter.key] = _suggest(asked, parameter)
    return chosen


def make_study(
    space: Space, trials: Iterable[Trial], sampler: "optuna.samplers.BaseSampler | None" = None
) -> "optuna.Study":
    """The records as a study of Optuna, in memory; trials that failed teach nothing and are left out."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    states = {
        "finished": optuna.trial.TrialState.COMPLETE,
        "stopped": optuna.trial.TrialState.PRUNED,
        "running": optuna.trial.TrialState.RUNNING,
    }
    for trial in sorted(trials, key=lambda each: each.number):
        if trial.status == "failed":
            continue
        own = [parameter for parameter in space.parameters if parameter.key in trial.values]
        study.add_trial(
            optuna.trial.create_trial(
                state=states[trial.status],
                params={each.key: _stored(each, trial.values[each.key]) for each in own},
                distributions={each.key: _distribution(each) for each in own},
                value=trial.best_value if trial.status == "finished" else None,
                intermediate_values=dict(enumerate(itertools.accumulate(trial.curve, max), start=1)),
            )
        )
    return study


def _suggest(asked: "optuna.Trial", parameter: Parameter) -> Any:
    if parameter.kind == "choice":
        return json.loads(asked.suggest_categorical(parameter.key, [json.dumps(each) for each in parameter.values]))
    low, high = parameter.values
    if parameter.kind == "int":
        return asked.suggest_int(parameter.key, low, high)
    return parameter.rounded(asked.suggest_float(parameter.key, low, high, log=parameter.kind == "log_uniform"))


def _distribution(parameter: Parameter) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.kind == "choice":
        return CategoricalDistribution([json.dumps(each) for each in parameter.values])
    low, high = parameter.values
    if parameter.kind == "int":
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=parameter.kind == "log_uniform")


def _stored(parameter: Parameter, value: Any) -> Any:
    """A value as Optuna holds it: choices as text, since it knows no lists."""
    return json.dumps(value) if parameter.kind == "choice" else value


def importances(space: Space, trials: Iterable[Trial]) -> dict[str, float]:
    """Share of each parameter in how good trials differ from the rest (PED-ANOVA), highest first.

    A trial that was stopped counts with what it had reached. Empty where trials are too few or all alike.
    """
    import optuna

    reached = [
        Trial(number=trial.number, values=trial.values, status="finished", curve=trial.curve, wall_s=trial.wall_s)
        for trial in trials
        if trial.status in ("finished", "stopped") and trial.curve
    ]
    if len({trial.best_value for trial in reached}) < 2:
        return {}
    found = optuna.importance.get_param_importances(make_study(space, reached))
    return {key: float(share) for key, share in found.items() if math.isfinite(share)}
