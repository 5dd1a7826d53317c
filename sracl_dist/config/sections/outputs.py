"""What is made of a trained recommender: metrics, recommendations, a page."""

from dataclasses import dataclass

from sracl_dist.config.sections.fields import neutral, require


@dataclass(kw_only=True)
class EvaluateConfig:
    """evaluate: rank the whole catalogue for every user with a test item."""

    shard_users: int = neutral(8192)
    """Users that are ranked and committed together."""
    num_workers: int = neutral(1)
    """Processes that rank side by side, one GPU each where the cluster has GPUs."""
    cpus_per_worker: int = neutral(1)
    """CPU cores of one process, each with users of its own."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("shard_users", "num_workers", "cpus_per_worker"):
            require(getattr(self, name) >= 1, f"evaluate.{name}", getattr(self, name), "use 1 or more")


@dataclass(kw_only=True)
class RecommendConfig:
    """recommend: the best new items for every user, from the whole history."""

    num_items: int = 20
    """Length of every recommendation list."""
    remove_seen: bool = True
    """Leave out items that the user already has."""
    shard_users: int = neutral(8192)
    """Users that are served and committed together."""
    num_workers: int = neutral(1)
    """Processes that work side by side, one GPU each where the cluster has GPUs."""
    cpus_per_worker: int = neutral(1)
    """CPU cores of one process, each with users of its own."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("num_items", "shard_users", "num_workers", "cpus_per_worker"):
            require(getattr(self, name) >= 1, f"recommend.{name}", getattr(self, name), "use 1 or more")


@dataclass(kw_only=True)
class ReportConfig:
    """report: one HTML page about the run."""

    title: str = "SRA-CL run"
    """Heading of the page."""
    num_samples: int = 6
    """How many items and users are shown with profile, neighbours and recommendations."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        require(self.num_samples >= 1, "report.num_samples", self.num_samples, "use 1 or more")
