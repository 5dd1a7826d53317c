"""The run as a whole, and the cluster that does the work."""

from dataclasses import dataclass

from sracl_dist.config.sections.fields import neutral, require


@dataclass(kw_only=True)
class RunConfig:
    """The run as a whole."""

    dir: str = neutral("???")
    """Folder or URI (s3://, gs://) that holds every table of the run."""
    tables: str | None = neutral(None)
    """Run folder whose stages prepare, profile, embed and neighbours are read and written instead of those in run.dir;
    null keeps them there. Many trainings share one set of tables this way."""
    seed: int = 0
    """Seed of every random choice of the training: initial weights, batch order, dropout, substitutions."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        require(bool(self.dir.strip()), "run.dir", self.dir, "name a folder, for example runs/mine")
        has_tables = self.tables is None or bool(self.tables.strip())
        require(has_tables, "run.tables", self.tables, "name a run folder, or null to keep the tables in run.dir")
        require(0 <= self.seed < 2**32, "run.seed", self.seed, "use 0 to 4294967295")


@dataclass(kw_only=True)
class ClusterConfig:
    """The Ray cluster that does the work."""

    address: str | None = neutral(None)
    """Address of a Ray cluster; null takes RAY_ADDRESS, which `ray job submit` sets, else starts a private one here."""
    wait_s: float = neutral(0.0)
    """How long a stage waits for nodes that the cluster starts for it; 0 for a cluster of fixed size, where a stage
    that has no room stops at once."""
    use_gpus: bool | None = neutral(None)
    """Whether the stages use GPUs; null looks whether the cluster has any now, so use true where it starts them only
    when they are asked for."""
    num_cpus: int | None = neutral(None)
    """CPUs of the private cluster; null takes all that this process may use."""
    object_store_bytes: int = neutral(400_000_000)
    """Shared memory of the private cluster."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        require(self.num_cpus is None or self.num_cpus >= 1, "cluster.num_cpus", self.num_cpus, "use 1 or more")
        require(self.wait_s >= 0, "cluster.wait_s", self.wait_s, "use 0 or more")
        lowest = 80_000_000
        require(
            self.object_store_bytes >= lowest,
            "cluster.object_store_bytes",
            self.object_store_bytes,
            f"use {lowest} or more",
        )
