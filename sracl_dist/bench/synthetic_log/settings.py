"""What a generated log is like."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from sracl_dist.bench.synthetic_log.words import MAX_INTERESTS
from sracl_dist.config.sections import NEUTRAL, neutral, require

BLOCK_ITEMS = 16
"""Items of an interest that follow each other in a cycle, appear at the same time and share a subcategory."""
MS_PER_DAY = 86_400_000
MAX_IDS = 1_000_000_000
_SHARES = ("bot_share", "duplicate_share", "late_share", "outside_share", "follow_share", "new_item_share")


@dataclass(kw_only=True)
class SyntheticLogSettings:
    """Size and planted structure of a generated log."""

    num_events: int = 1_000_000
    """Rows of the log, bots and duplicates included."""
    num_users: int = 50_000
    """Users, bots included; each has at least one event."""
    num_items: int = 10_000
    """Items; each has at least one event."""
    seed: int = 0
    """Seed of every random choice."""
    num_interests: int = 24
    """Latent groups of items."""
    interests_per_user: int = 3
    """Interests of a user; each weighs half of the one before, and some may coincide."""
    outside_share: float = 0.1
    """Share of the sessions that are about any interest, not one of the user's own."""
    item_exponent: float = 0.9
    """Within an interest the r-th item is visited in proportion to r to the power of minus this."""
    user_exponent: float = 0.6
    """The r-th most active user is active in proportion to r to the power of minus this."""
    session_events: float = 4.0
    """Mean events of a session, whose number is geometric."""
    gap_s: float = 40.0
    """Mean time between the events of a session."""
    follow_share: float = 0.5
    """Share of the steps within a session that lead to a successor of the item; the others lead anywhere in the
    interest, by popularity."""
    days: float = 180.0
    """Time that the log covers."""
    start: str = "2024-01-01"
    """ISO date or date-time (UTC) at which it begins."""
    new_item_share: float = 0.3
    """Share of the items that appear while the log goes on."""
    half_life_days: float = 90.0
    """Time after which an item is visited half as often, down to a twentieth."""
    interest_drift: float = 0.5
    """How much the interests' popularity shifts: a wave on the logarithm with this amplitude and the log's length."""
    num_bots: int = 3
    """Users that visit any item, at any time."""
    bot_share: float = 0.01
    """Share of the events that are theirs, divided evenly."""
    duplicate_share: float = 0.005
    """Share of the rows that repeat another one (user, item and time), soon after it."""
    late_share: float = 0.02
    """Share of the sessions that arrive late, behind later events."""
    late_hours: float = 6.0
    """Mean delay of these; a delay never exceeds two shards."""
    events_per_shard: int = 1_000_000
    """Rows of a file at most, which is what is held in memory."""
    num_processes: int = neutral(1)
    """Processes that write side by side; what they write does not depend on it."""

    @property
    def num_shards(self) -> int:
        """Files of the log; their numbers of rows differ by one at most."""
        return -(-self.num_events // self.events_per_shard)

    @property
    def num_blocks(self) -> int:
        """Blocks of items, the last ones of every interest possibly short or empty."""
        return -(-self.num_items // (self.num_interests * BLOCK_ITEMS)) * self.num_interests

    @property
    def num_humans(self) -> int:
        """Users who are no bots."""
        return self.num_users - self.num_bots

    @property
    def start_ms(self) -> int:
        """Begin of the log."""
        start = datetime.fromisoformat(self.start)
        return int((start if start.tzinfo else start.replace(tzinfo=UTC)).timestamp() * 1000) // 4 * 4

    def part_of(self, total: int, shard: int) -> int:
        """How many of `total` things fall to a shard when they are divided evenly, to the last one."""
        return total * (shard + 1) // self.num_shards - total * shard // self.num_shards

    def identity(self) -> dict[str, Any]:
        """The settings that the tables depend on."""
        return {each.name: getattr(self, each.name) for each in fields(self) if not each.metadata.get(NEUTRAL)}

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("num_events", "num_users", "num_items", "interests_per_user", "events_per_shard", "num_processes"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use 1 or more")
        for name in ("num_users", "num_items"):
            require(getattr(self, name) <= MAX_IDS, name, getattr(self, name), f"use {MAX_IDS:,} or fewer")
        for name in _SHARES:
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "use a share of at least 0 and below 1")
        for name in ("item_exponent", "user_exponent", "interest_drift", "num_bots", "seed"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "use 0 or more")
        for name in ("gap_s", "days", "half_life_days", "late_hours"):
            require(getattr(self, name) > 0, name, getattr(self, name), "use more than 0")
        require(self.session_events >= 1, "session_events", self.session_events, "use 1 or more")
        interests = self.num_interests
        require(2 <= interests <= MAX_INTERESTS, "num_interests", interests, f"use 2 to {MAX_INTERESTS}")
        require(self.num_items >= interests, "num_items", self.num_items, f"use {interests} (num_interests) or more")
        least = interests + self.num_bots
        require(self.num_users >= least, "num_users", self.num_users, f"use {least} (num_interests + num_bots) or more")
        try:
            datetime.fromisoformat(self.start)
        except ValueError:
            require(False, "start", self.start, "use an ISO date such as 2024-01-01")
        self._check_room()

    def _check_room(self) -> None:
        """Every shard must hold what is certain to be in it, and last long enough for its rows to differ."""
        shards = self.num_shards
        certain = (
            -(-self.num_humans // shards)
            + -(-self.num_blocks // shards) * BLOCK_ITEMS
            + int(self.num_events * (self.bot_share + self.duplicate_share)) // shards
            + 2
        )
        room = self.num_events // shards
        mend = (
            f"a file would have {room:,} rows, and {certain:,} of them are certain (one event of each user and item, "
            f"bots, duplicates); use more events, or larger files, or fewer users and items"
        )
        require(2 * certain <= room, "num_events", self.num_events, mend)
        bot_events = int(self.num_events * self.bot_share)
        require(bot_events >= self.num_bots, "bot_share", self.bot_share, "use a larger one, or num_bots=0")
        require(bot_events == 0 or self.num_bots > 0, "num_bots", self.num_bots, "use 1 or more, or bot_share=0")
        least_days = shards * 4_000 / MS_PER_DAY
        require(self.days >= least_days, "days", self.days, f"use {least_days:.1g} or more, or larger files")
