"""How the recommender is fitted."""

from dataclasses import dataclass, field
from typing import Literal

from sracl_dist.config.sections.fields import NEUTRAL, neutral, require

TRACKER_NAMES = ("tensorboard", "mlflow")

Protocol = Literal["seen_kept", "seen_removed"]


@dataclass(kw_only=True)
class TrainConfig:
    """train: fit the recommender."""

    epochs: int = 100
    """Passes over all training targets at most."""
    patience: int = 10
    """Stop after this many epochs without a better validation metric."""
    metric: str = "ndcg@20"
    """Validation metric that selects the checkpoint: hr@, ndcg@ with 5, 10 or 20, or mrr."""
    protocol: Protocol = "seen_kept"
    """Whether items the user already has stay among the candidates of that metric."""
    batch_rows: int = 64
    """Rows (histories of at most model.max_length items) in one step over all workers together; the paper's 256
    examples are targets, of which 64 rows hold about 350 on its data."""
    accumulate_steps: int = 1
    """Parts of a step that pass through the model one after the other, so that a step larger than memory fits; the
    next-item loss stays the same, contrastive terms have the negatives of their part alone."""
    learning_rate: float = 1e-3
    """Highest learning rate of Adam."""
    warmup_epochs: float = 0.0
    """The learning rate rises linearly from 0 over so many epochs."""
    decay: Literal["none", "cosine", "linear"] = "none"
    """How the learning rate falls from its highest value to 0 at the end of train.epochs."""
    weight_decay: float = 0.0
    """Decoupled weight decay of all matrices but embeddings; biases, norms and positions have none."""
    embedding_weight_decay: float = 0.0
    """Decoupled weight decay of the item embeddings."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of products in training: on a CPU those of the full softmax, if it has AVX-512 or SVE, on a GPU all
    of them; weights, sums and evaluation stay float32."""
    max_gradient_norm: float | None = 5.0
    """Gradients are scaled down to this norm; null leaves them."""
    num_workers: int = neutral(1)
    """Processes that train together."""
    cpus_per_worker: int = neutral(1)
    """CPU cores of one worker."""
    gpus_per_worker: int = neutral(1)
    """GPUs of one worker where the cluster has GPUs: 0 or 1."""
    max_failures: int = neutral(2)
    """How often training goes on from its last checkpoint after workers died; nodes that announce their end do not
    count."""
    checkpoint_every_s: float | None = neutral(600.0)
    """Seconds after which a checkpoint is written within an epoch; null: only at the end of each."""
    min_workers: int | None = neutral(None)
    """Start with so many workers where the cluster has no room for train.num_workers, and grow when it has; null: wait
    for all of them."""
    local: bool = neutral(False)
    """Train in the job's own process, without Ray and with one worker, for a debugger; the results are the same."""
    trackers: list[str] = field(default_factory=list, metadata={NEUTRAL: True})
    """Where curves go besides metrics.jsonl: tensorboard (train/tensorboard in the run folder), mlflow (where MLflow's
    own environment variables say)."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("epochs", "patience", "batch_rows", "accumulate_steps", "num_workers", "cpus_per_worker"):
            require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "use 1 or more")
        metrics = [f"{name}@{cutoff}" for name in ("hr", "ndcg") for cutoff in (5, 10, 20)] + ["mrr"]
        require(self.metric in metrics, "train.metric", self.metric, f"use one of {', '.join(metrics)}")
        require(self.learning_rate > 0, "train.learning_rate", self.learning_rate, "use above 0")
        for name in ("warmup_epochs", "weight_decay", "embedding_weight_decay"):
            require(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "use 0 or more")
        norm = self.max_gradient_norm
        require(norm is None or norm > 0, "train.max_gradient_norm", norm, "use above 0, or null")
        require(self.gpus_per_worker in (0, 1), "train.gpus_per_worker", self.gpus_per_worker, "use 0 or 1")
        every_s = self.checkpoint_every_s
        require(every_s is None or every_s > 0, "train.checkpoint_every_s", every_s, "use above 0, or null")
        least = self.min_workers
        fits = least is None or 1 <= least <= self.num_workers
        require(fits, "train.min_workers", least, f"use 1 to train.num_workers={self.num_workers}, or null")
        alone = not self.local or self.num_workers == 1
        require(alone, "train.num_workers", self.num_workers, "use 1 with train.local=true")
        known = set(self.trackers) <= set(TRACKER_NAMES)
        require(known, "train.trackers", self.trackers, f"use any of {', '.join(TRACKER_NAMES)}")
        require(self.max_failures >= 0, "train.max_failures", self.max_failures, "use 0 or more")
        warmup, fits = self.warmup_epochs, 0 <= self.warmup_epochs <= self.epochs
        require(fits, "train.warmup_epochs", warmup, f"use 0 to train.epochs={self.epochs}")
        enough = self.batch_rows >= self.num_workers
        require(enough, "train.batch_rows", self.batch_rows, f"use train.num_workers={self.num_workers} or more")
