"""Which of a user's interactions are for training, for validation and for test."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sracl_dist.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Split:
    """A user's first num_train interactions are for training, the next num_validation for validation, the rest test."""

    num_train: NDArray[np.int32]
    """[U]"""
    num_validation: NDArray[np.int32]
    """[U]"""
    details: dict[str, Any]
    """What the manifest says about the split."""


def leave_last_out(lengths: NDArray[np.integer]) -> Split:
    """The last interaction of a user is for test, the one before for validation, the others for training.

    This is the paper's split. It leaks the future: a user's training interactions may lie later in time than another
    user's test interaction, so popularity and trends of the test period are known in training. What never leaks is a
    user's own later history. Users with fewer than three interactions are wholly for training and not evaluated.

    Args:
        lengths: [U] interactions of each user.
    """
    evaluated = lengths >= 3
    num_validation = evaluated.astype(np.int32)
    details = {"method": "leave_last_out", "users_not_evaluated": int((~evaluated).sum())}
    return Split(
        num_train=(lengths - 2 * num_validation).astype(np.int32), num_validation=num_validation, details=details
    )


@dataclass(frozen=True)
class Cuts:
    """Two points in time that cut the log for everybody."""

    start_validation: int
    """Before it is training."""
    start_test: int
    """From it on is test."""


def time_cuts(times: NDArray[np.int64], validation_share: float, test_share: float) -> Cuts:
    """Where to cut such that the shares are met as nearly as events at the same time allow, which stay together.

    Args:
        times: [E] times of all events in any order; the order is changed.
        validation_share: share of all events for validation.
        test_share: share of all events for test, the latest ones.

    Raises:
        InputError: the log has too few different times to be cut.
    """
    num_test = max(round(len(times) * test_share), 1)
    num_held_out = num_test + max(round(len(times) * validation_share), 1)
    if num_held_out >= len(times):
        raise InputError(f"The log has only {len(times)} events, too few for data.split=global_time; bring more.")
    times.partition([0, len(times) - num_held_out, len(times) - num_test])
    start, cuts = int(times[0]), Cuts(int(times[-num_held_out]), int(times[-num_test]))
    if not start < cuts.start_validation < cuts.start_test:
        raise InputError(
            f"The cut-off times of data.split=global_time fall together (start {start}, validation "
            f"{cuts.start_validation}, test {cuts.start_test}); change data.validation_share and data.test_share, or "
            f"bring finer times."
        )
    return cuts


def global_time(lengths: NDArray[np.integer], times: NDArray[np.int64], cuts: Cuts) -> Split:
    """Two points in time cut the log for everybody: before the first training, before the second validation, then test.

    Nothing of the future leaks: every training event is earlier than every validation event, and those are earlier
    than every test event. Items and users that first appear later are unknown to training, and users who are active in
    one period only are not evaluated.

    Args:
        lengths: [U] interactions of each user.
        times: [E] times, user after user.
        cuts: the points in time.
    """
    users = np.repeat(np.arange(len(lengths)), lengths)
    num_train = np.bincount(users[times < cuts.start_validation], minlength=len(lengths))
    num_before_test = np.bincount(users[times < cuts.start_test], minlength=len(lengths))
    evaluated = (num_before_test > 0) & (lengths > num_before_test)
    details = {"method": "global_time", **asdict(cuts), "users_not_evaluated": int((~evaluated).sum())}
    return Split(
        num_train=num_train.astype(np.int32),
        num_validation=(num_before_test - num_train).astype(np.int32),
        details=details,
    )
