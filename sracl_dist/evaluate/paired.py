"""Whether one recommender ranks better than another: a paired t-test over the users of the same test items.

The value of a user is the mean of its metric over the seeds that were trained. The test therefore says whether other
users from where these came from, ranked by these very trainings, would show the difference again. It does not cover how
much trainings with other seeds would differ: for that, look at the standard deviation over seeds beside it.

U users.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import RANK_SEEN_KEPT, RANK_SEEN_REMOVED, TARGET, USER
from sracl_dist.errors import StageError
from sracl_dist.evaluate.metrics import METRICS, per_user_metrics

PROTOCOLS = {"seen_kept": RANK_SEEN_KEPT, "seen_removed": RANK_SEEN_REMOVED}
"""Column of the ranks under each protocol."""
Z_95 = 1.959963984540054
"""Quantile of the normal distribution that leaves 2.5 % on either side."""


@dataclass(frozen=True, kw_only=True)
class UserMetrics:
    """Metrics of one recommender by user, averaged over its seeds; rows are in the order of `users_U`."""

    name: str
    users_U: NDArray[np.int64]
    """Dense ids, ascending."""
    targets_U: NDArray[np.int32]
    values: dict[str, dict[str, NDArray[np.float64]]]
    """[U] by protocol and metric."""


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Outcome of a paired t-test, with the normal distribution for that of t, which takes a hundred users or more."""

    num_users: int
    difference: float
    """Mean over users of the first minus the second."""
    low: float
    """Lower end of the difference's 95 % confidence interval."""
    high: float
    t: float
    """Difference by its standard error; infinite where every user differs by the same amount."""
    p_value: float
    """Two-sided: how often chance alone would yield a difference at least this large."""


def user_metrics(name: str, ranks: Sequence[pa.Table], num_items: int) -> UserMetrics:
    """Average every user's metrics over seeds.

    Args:
        name: of the recommender, for messages.
        ranks: per seed a table with columns user, target, rank_seen_kept and rank_seen_removed, in any order of rows.
        num_items: catalogue size.

    Raises:
        StageError: there is no table, or the seeds have other users or other targets.
    """
    if not ranks:
        raise StageError(f"{name} has no ranks to average; run its stage evaluate.")
    tables = [table.sort_by(USER) for table in ranks]
    users_U, targets_U = tables[0][USER].to_numpy(), tables[0][TARGET].to_numpy()
    for table in tables[1:]:
        _require_same(name, users_U, targets_U, name, table[USER].to_numpy(), table[TARGET].to_numpy())
    values = {}
    for protocol, column in PROTOCOLS.items():
        seeds = [per_user_metrics(table[column].to_numpy(), num_items) for table in tables]
        values[protocol] = {metric: np.mean([seed[metric] for seed in seeds], axis=0) for metric in METRICS}
    return UserMetrics(name=name, users_U=users_U, targets_U=targets_U, values=values)


def compare(first: UserMetrics, second: UserMetrics, protocol: str, metric: str) -> PairedTest:
    """Test whether `first` differs from `second`; a positive difference says that `first` is better.

    Raises:
        StageError: they were evaluated on other users or other targets, or on fewer than two users.
    """
    _require_same(first.name, first.users_U, first.targets_U, second.name, second.users_U, second.targets_U)
    if len(first.users_U) < 2:
        raise StageError(f"{first.name} was evaluated on {len(first.users_U)} users; a paired test takes two or more.")
    return paired_test(first.values[protocol][metric] - second.values[protocol][metric])


def paired_test(difference_U: NDArray[np.float64]) -> PairedTest:
    """Test whether the mean of at least two differences is other than zero."""
    num_users, difference = len(difference_U), float(difference_U.mean())
    error = float(difference_U.std(ddof=1)) / math.sqrt(num_users)
    if error > 0:
        t = difference / error
    elif difference:
        t = math.copysign(math.inf, difference)
    else:
        t = 0.0
    return PairedTest(
        num_users=num_users,
        difference=difference,
        low=difference - Z_95 * error,
        high=difference + Z_95 * error,
        t=t,
        p_value=math.erfc(abs(t) / math.sqrt(2)),
    )


def _require_same(
    first: str,
    first_users: NDArray[np.int64],
    first_targets: NDArray[np.int32],
    second: str,
    second_users: NDArray[np.int64],
    second_targets: NDArray[np.int32],
) -> None:
    """Refuse ranks that cannot be paired."""
    names = f"of {first} and {second}" if first != second else f"of the seeds of {first}"
    mend = "evaluate them with the same tables of the stage prepare"
    if not np.array_equal(first_users, second_users):
        raise StageError(
            f"The ranks {names} are of other users ({len(first_users):,} and {len(second_users):,}, of them "
            f"{len(np.intersect1d(first_users, second_users)):,} in both); {mend}."
        )
    differing = np.flatnonzero(first_targets != second_targets)
    if len(differing):
        row = differing[0]
        raise StageError(
            f"The ranks {names} are of other test items for {len(differing):,} users, the first user "
            f"{first_users[row]} with items {first_targets[row]} and {second_targets[row]}; {mend}."
        )
