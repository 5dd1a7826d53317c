"""Which of a user's interactions are for training, for validation and for test."""

from dataclasses import dataclass
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


def leave_last_out(lengths: NDArray[np.int64]) -> Split:
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


def global_time(
    lengths: NDArray[np.int64], times: NDArray[np.int64], validation_share: float, test_share: float
) -> Split:
    """Two points in time cut the log for everybody: before the first training, before the second validation, then test.

    Nothing of the future leaks: every training event is earlier than every validation event, and those are earlier
    than every test event. Items and users that first appear later are unknown to training, and users who are active in
    one period only are not evaluated. Events at the same time stay together, so the shares are met as nearly as ties
    allow.

    Args:
        lengths: [U] interactions of each user.
        times: [E] times, user after user and ascending within a user.
        validation_share: share of all events for validation.
        test_share: share of all events for test, the latest ones.

    Raises:
        InputError: the log has too few different times to be cut.
    """
    ordered = np.sort(times)
    num_test = max(round(len(ordered) * test_share), 1)
    num_held_out = num_test + max(round(len(ordered) * validation_share), 1)
    if num_held_out >= len(ordered):
        raise InputError(f"The log has only {len(ordered)} events, too few for data.split=global_time; bring more.")
    start_validation, start_test = int(ordered[-num_held_out]), int(ordered[-num_test])
    if not ordered[0] < start_validation < start_test:
        raise InputError(
            f"The cut-off times of data.split=global_time fall together (start {ordered[0]}, validation "
            f"{start_validation}, test {start_test}); change data.validation_share and data.test_share, or bring "
            f"finer times."
        )
    users = np.repeat(np.arange(len(lengths)), lengths)
    num_train = np.bincount(users[times < start_validation], minlength=len(lengths))
    num_before_test = np.bincount(users[times < start_test], minlength=len(lengths))
    evaluated = (num_before_test > 0) & (lengths > num_before_test)
    details = {
        "method": "global_time",
        "start_validation": start_validation,
        "start_test": start_test,
        "users_not_evaluated": int((~evaluated).sum()),
    }
    return Split(
        num_train=num_train.astype(np.int32),
        num_validation=(num_before_test - num_train).astype(np.int32),
        details=details,
    )
