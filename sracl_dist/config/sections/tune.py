"""The search for better settings."""

from dataclasses import dataclass, field
from typing import Any, Literal

from sracl_dist.config.sections.fields import NEUTRAL, neutral, require


@dataclass(kw_only=True)
class TuneConfig:
    """tune: train with many settings and keep the best by validation; see docs/tuning.md."""

    space: dict[str, Any] = field(default_factory=dict, metadata={NEUTRAL: True})
    """What is searched, by key of model, objectives or train: {uniform: [low, high]}, {log_uniform: [low, high]},
    {int: [low, high]} or {choice: [...]}; with `when: {other.key: value}` only where the other key has the value."""
    algorithm: Literal["random", "grid", "optuna"] = neutral("optuna")
    """random draws, every combination of a grid, or the tree-structured Parzen estimator of Optuna."""
    num_random: int = neutral(10)
    """optuna: trials that are drawn at random before it learns from them."""
    scheduler: Literal["none", "asha", "hyperband"] = neutral("asha")
    """asha: stop trials that are behind (asynchronous successive halving); hyperband: the same with several grace
    periods side by side; none: train each to its end."""
    num_trials: int = neutral(16)
    """Trials of the whole search; raising it continues a finished one."""
    max_concurrent: int | None = neutral(None)
    """Trials that train side by side at most; null takes as many as the cluster has room for."""
    time_budget_s: float | None = neutral(None)
    """Seconds after which an invocation ends; trials that are cut short go on in the next one."""
    grace_epochs: int = neutral(1)
    """asha, hyperband: epochs that every trial gets."""
    reduction_factor: float = neutral(3.0)
    """asha, hyperband: one in so many trials is taken further at every step, and a step lasts so many times longer."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("num_trials", "num_random", "grace_epochs"):
            require(getattr(self, name) >= 1, f"tune.{name}", getattr(self, name), "use 1 or more")
        most = self.max_concurrent
        require(most is None or most >= 1, "tune.max_concurrent", most, "use 1 or more, or null")
        budget = self.time_budget_s
        require(budget is None or budget > 0, "tune.time_budget_s", budget, "use above 0, or null")
        require(self.reduction_factor > 1, "tune.reduction_factor", self.reduction_factor, "use above 1")
