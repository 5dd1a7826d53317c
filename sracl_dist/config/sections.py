"""One dataclass per section of the configuration, each field with a docstring that the reference in docs/ repeats.

A section that can hold impossible values has a method `check`, which loading calls. A field made with `neutral(...)`
changes how fast or where the work is done but not what it yields, so changing it does not make a finished stage run
again.
"""

from dataclasses import MISSING, dataclass, field
from typing import Any, Literal

NEUTRAL = "neutral"
Protocol = Literal["seen_kept", "seen_removed"]
Similarity = Literal["inner_product", "cosine"]
SynthesisKind = Literal["learned", "uniform", "sampled"]
OBJECTIVE_NAMES = ("next_item", "cross_sequence", "intra_sequence", "random_views", "same_target")


def neutral(default: Any = MISSING) -> Any:
    """Declare a field whose value cannot change a stage's result."""
    return field(default=default, metadata={NEUTRAL: True})


def require(condition: bool, key: str, value: object, mend: str) -> None:
    """Raise ValueError that names the key, the value and what to do unless `condition` holds."""
    if not condition:
        raise ValueError(f"{key} is {value!r}; {mend}")


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
    num_cpus: int | None = neutral(None)
    """CPUs of the private cluster; null takes all that this process may use."""
    object_store_bytes: int = neutral(400_000_000)
    """Shared memory of the private cluster."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        require(self.num_cpus is None or self.num_cpus >= 1, "cluster.num_cpus", self.num_cpus, "use 1 or more")
        lowest = 80_000_000
        require(
            self.object_store_bytes >= lowest,
            "cluster.object_store_bytes",
            self.object_store_bytes,
            f"use {lowest} or more",
        )


@dataclass(kw_only=True)
class LogColumns:
    """Names of the columns in the interaction files."""

    user_id: str = "user_id"
    """Column with the user's id."""
    item_id: str = "item_id"
    """Column with the item's id."""
    time: str | None = "timestamp"
    """Column with the time (a number, or an ISO date-time) or the position within the user; null keeps file order."""
    rating: str | None = None
    """Column with a rating; needed only for data.min_rating."""


@dataclass(kw_only=True)
class ItemColumns:
    """Names of the columns in the item text files."""

    item_id: str = "item_id"
    """Column with the item's id."""
    title: str | None = "title"
    """Column with the title; null where there is none."""
    brand: str | None = "brand"
    """Column with the brand or maker; null where there is none."""
    categories: str | None = "categories"
    """Column with the categories, a list or a string split at data.category_separator; null where there is none."""
    description: str | None = "description"
    """Column with a longer description; null where there is none."""


@dataclass(kw_only=True)
class DataConfig:
    """prepare: from a raw log and item texts to sequences, items and id maps."""

    source: str = "files"
    """`files`, or a public set: movielens-100k, movielens-1m, amazon-2014:<category>, yelp."""
    path: str | None = None
    """Folder with a local copy of the public set; null looks in $SRACL_DATA, then the cache, then fetches it."""
    interactions: list[str] = field(default_factory=list)
    """Files or globs with the log (source `files`): .csv .tsv .jsonl .json .parquet .inter, text also as .gz."""
    item_texts: list[str] = field(default_factory=list)
    """Files or globs with one row per item (source `files`), formats as above and .item; empty where there are none."""
    columns: LogColumns = field(default_factory=LogColumns)
    """Column names in `interactions`."""
    item_columns: ItemColumns = field(default_factory=ItemColumns)
    """Column names in `item_texts`."""
    category_separator: str = "|"
    """What separates categories within one string."""
    min_rating: float | None = None
    """Rows with a lower rating are left out and counted; null takes every row as an interaction."""
    min_user_interactions: int = 5
    """k-core: users with fewer interactions are removed, repeatedly, together with the next field."""
    min_item_interactions: int = 5
    """k-core: items with fewer interactions are removed, repeatedly."""
    split: Literal["leave_last_out", "global_time"] = "leave_last_out"
    """leave_last_out: last item is test, the one before validation; global_time: two points in time for everybody."""
    validation_share: float = 0.1
    """global_time: share of all events that lie in the validation period."""
    test_share: float = 0.1
    """global_time: share of all events that lie in the test period, the latest one."""
    max_text_chars: int = 2000
    """Item texts are cut to this many characters per field, after HTML tags and line breaks are removed."""
    max_reject_share: float = 0.2
    """The stage fails when a larger share of the log's rows is unusable, naming the commonest reason."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("min_user_interactions", "min_item_interactions", "max_text_chars"):
            require(getattr(self, name) >= 1, f"data.{name}", getattr(self, name), "use 1 or more")
        for name in ("validation_share", "test_share"):
            value = getattr(self, name)
            require(0 < value < 0.5, f"data.{name}", value, "use a share above 0 and below 0.5")
        require(0 <= self.max_reject_share <= 1, "data.max_reject_share", self.max_reject_share, "use 0 to 1")
        separator = self.category_separator
        require(bool(separator), "data.category_separator", separator, "quote it in YAML, for example '|'")
        files = self.source == "files"
        require(not files or bool(self.interactions), "data.interactions", self.interactions, "name the log's files")
        require(files or not self.interactions, "data.interactions", self.interactions, "set data.source=files")
        rating = self.min_rating is None or not files or self.columns.rating is not None
        require(rating, "data.min_rating", self.min_rating, "name the rating column in data.columns.rating")


@dataclass(kw_only=True)
class ProfileConfig:
    """profile: a language model describes every item and every user, from training interactions only."""

    model: str = "package:smollm2-135m-instruct"
    """Hugging Face id, local folder, or `package:` and a name of docs/models.md."""
    item_template: str | None = None
    """File with the item prompt; null takes sracl_dist/profiles/templates/item.txt."""
    user_template: str | None = None
    """File with the user prompt; null takes sracl_dist/profiles/templates/user.txt."""
    max_items: int | None = None
    """Profile only this many items, the most frequent in training first; the others keep their raw text; null: all."""
    max_users: int | None = None
    """Profile only this many users, the longest training histories first; null: all."""
    histories_per_item: int = 10
    """Item prompt: how many training histories that contain the item are shown."""
    items_per_history: int = 10
    """Item prompt: how many items of each history are shown, those around the item first."""
    items_per_user: int = 50
    """User prompt: how many of the latest training items are shown."""
    max_prompt_tokens: int = 1024
    """Longest prompt; histories lose their oldest items and texts their ends until it fits."""
    max_output_tokens: int = 128
    """Longest answer."""
    temperature: float = 0.0
    """Sampling temperature; 0 takes the likeliest token."""
    repetition_penalty: float = 1.1
    """Above 1 discourages loops, which small models fall into at temperature 0."""
    max_failed_share: float = 0.02
    """The stage fails when a larger share of the prompts has no usable answer."""
    stop: list[str] = field(default_factory=list)
    """An answer ends behind the first of these texts, for example [". "] for one sentence; empty: the model ends it."""
    dtype: str = "bfloat16"
    """Number format of the weights: bfloat16, float16 or float32."""
    num_replicas: int = neutral(1)
    """Engines that run side by side."""
    gpus_per_replica: int = neutral(1)
    """GPUs of one engine (tensor parallel) where the cluster has GPUs."""
    cpus_per_replica: int | None = neutral(None)
    """CPU cores of one engine where the cluster has no GPU; null divides the cores of the node."""
    batch_rows: int = neutral(64)
    """Prompts handed to an engine at a time."""
    max_running_prompts: int = neutral(256)
    """Prompts that one engine decodes together."""
    kv_cache_gib: int = neutral(2)
    """Memory of an engine's key-value cache on CPU, in whole GiB."""
    commit_interval_s: float = neutral(5.0)
    """Finished answers reach the disk about this often; a kill also loses what the engines are working on."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("max_items", "max_users"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"profile.{name}", value, "use 0 or more, or null for all")
        for name in (
            "items_per_history",
            "items_per_user",
            "max_output_tokens",
            "num_replicas",
            "gpus_per_replica",
            "batch_rows",
            "max_running_prompts",
            "kv_cache_gib",
        ):
            require(getattr(self, name) >= 1, f"profile.{name}", getattr(self, name), "use 1 or more")
        require(self.histories_per_item >= 0, "profile.histories_per_item", self.histories_per_item, "use 0 or more")
        require(self.max_prompt_tokens >= 64, "profile.max_prompt_tokens", self.max_prompt_tokens, "use 64 or more")
        require(self.temperature >= 0, "profile.temperature", self.temperature, "use 0 or more")
        require(self.repetition_penalty > 0, "profile.repetition_penalty", self.repetition_penalty, "use above 0")
        require(0 <= self.max_failed_share <= 1, "profile.max_failed_share", self.max_failed_share, "use 0 to 1")
        formats = ("bfloat16", "float16", "float32")
        require(self.dtype in formats, "profile.dtype", self.dtype, f"use one of {', '.join(formats)}")


@dataclass(kw_only=True)
class EmbedConfig:
    """embed: a text encoder turns profiles and raw texts into unit vectors."""

    model: str = "package:all-minilm-l6-v2"
    """Hugging Face id, local folder, or `package:` and a name of docs/models.md."""
    text: Literal["raw_and_profile", "profile", "raw"] = "raw_and_profile"
    """What is encoded: the item's or history's own text, the profile, or both; without a profile, the raw text."""
    items_per_user: int = 20
    """How many of the latest training items stand for a user in the raw text."""
    max_tokens: int = 256
    """Texts are cut to this many tokens, which must not exceed what the encoder was trained for."""
    shard_rows: int = neutral(1024)
    """Rows that are committed together."""
    batch_rows: int = neutral(64)
    """Texts encoded at a time."""
    num_workers: int = neutral(1)
    """Encoders that run side by side, one GPU each where the cluster has GPUs."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("items_per_user", "shard_rows", "batch_rows", "num_workers"):
            require(getattr(self, name) >= 1, f"embed.{name}", getattr(self, name), "use 1 or more")
        require(self.max_tokens >= 8, "embed.max_tokens", self.max_tokens, "use 8 or more")


@dataclass(kw_only=True)
class NeighboursConfig:
    """neighbours: for every item and every user the nearest others by cosine."""

    num_neighbours: int = 10
    """Length of every neighbour list (k)."""
    num_sampled: int = 1000
    """Rows whose neighbours are searched again by plain numpy to measure recall."""
    min_recall: float = 0.99
    """The stage fails when the measured recall@k is lower."""
    num_index_shards: int = neutral(1)
    """Parts of the table held by separate workers."""
    query_block_rows: int = neutral(16_384)
    """Queries sent to every part at a time; each block is committed on its own."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("num_neighbours", "num_sampled", "num_index_shards", "query_block_rows"):
            require(getattr(self, name) >= 1, f"neighbours.{name}", getattr(self, name), "use 1 or more")
        require(0 <= self.min_recall <= 1, "neighbours.min_recall", self.min_recall, "use 0 to 1")


@dataclass(kw_only=True)
class ModelConfig:
    """The sequence encoder; paper settings are the defaults."""

    encoder: str = "sasrec"
    """Sequence encoder, by its name in sracl_dist/model/encoders/: sasrec, gru4rec or hstu."""
    width: int = 64
    """Width D of item embeddings and hidden states."""
    num_layers: int = 2
    """Layers of the encoder."""
    num_heads: int = 2
    """sasrec, hstu: attention heads; must divide width."""
    feedforward_width: int = 256
    """sasrec: width of the feed-forward layer; gru4rec: width of the recurrent state."""
    norm: Literal["post", "pre"] = "post"
    """sasrec: layer norm behind each block, as in the paper, or before it."""
    dropout: float = 0.5
    """Dropout on embeddings and hidden states, and on the weights of the synthesis."""
    attention_dropout: float = 0.5
    """sasrec: dropout on attention weights."""
    max_length: int = 20
    """Longest history the encoder sees."""
    item_text: bool = False
    """Add a projection of the item's text vector to its embedding; an item never seen in training takes the embedding
    of its nearest item by meaning."""
    repeat_bias: bool = False
    """Learn a number that is added to the score of every item that is in the history already."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("width", "num_layers", "num_heads", "feedforward_width", "max_length"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "use 1 or more")
        for name in ("dropout", "attention_dropout"):
            require(0 <= getattr(self, name) < 1, f"model.{name}", getattr(self, name), "use 0 or more and below 1")
        divides = self.width % self.num_heads == 0
        require(divides, "model.num_heads", self.num_heads, f"use a divisor of model.width={self.width}")


@dataclass(kw_only=True)
class NextItemConfig:
    """Prediction of the next item."""

    softmax: Literal["full", "sampled"] = "full"
    """Whether the softmax runs over the whole catalogue, or over the target and a sample shared by all positions."""
    num_sampled: int = 2048
    """sampled: items drawn in every step."""
    sampling_power: float = 0.5
    """sampled: items are drawn in proportion to their training interactions to this power; 0 draws uniformly."""
    horizon: int = 1
    """full: so many of the items that follow are targets of a position, not only the next one."""
    horizon_discount: float = 0.5
    """full: each further target weighs this much of the one before it."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        require(self.num_sampled >= 1, "objectives.next_item.num_sampled", self.num_sampled, "use 1 or more")
        power = self.sampling_power
        require(0 <= power <= 1, "objectives.next_item.sampling_power", power, "use 0 to 1")
        horizon, discount = self.horizon, self.horizon_discount
        require(horizon >= 1, "objectives.next_item.horizon", horizon, "use 1 or more")
        full = horizon == 1 or self.softmax == "full"
        require(full, "objectives.next_item.horizon", horizon, "use 1 with softmax=sampled")
        require(0 < discount <= 1, "objectives.next_item.horizon_discount", discount, "use above 0 and at most 1")


@dataclass(kw_only=True)
class ContrastConfig:
    """What all contrastive terms have in common."""

    weight: float = 0.1
    """Weight of this term in the loss."""
    similarity: Similarity = "cosine"
    """How two states are compared; the paper uses inner_product."""
    temperature: float = 0.2
    """Divides the similarities; the reference uses 1 with the inner product."""

    def check_contrast(self, name: str) -> None:
        """Raise ValueError for an impossible value."""
        require(self.weight >= 0, f"objectives.{name}.weight", self.weight, "use 0 or more")
        require(self.temperature > 0, f"objectives.{name}.temperature", self.temperature, "use above 0")


@dataclass(kw_only=True)
class CrossSequenceConfig(ContrastConfig):
    """Contrast of a user with the weighted mean of its nearest users; `weight` is the paper's alpha."""

    num_neighbours: int = 10
    """Nearest users that are used, at most neighbours.num_neighbours (k)."""
    neighbours: Literal["semantic", "random"] = "semantic"
    """random: other users in their place, drawn once (the paper's ablation without retrieval)."""
    synthesis: SynthesisKind = "learned"
    """Weights of the neighbours: learned, all alike, or one neighbour drawn each time (the paper's ablation)."""
    neighbour_states: Literal["bank", "encoded"] = "bank"
    """bank: each user's state when last trained, without gradient; encoded: made in the step, as in the reference."""
    negatives: Literal["synthesised", "all"] = "synthesised"
    """synthesised: the other users' positives, as in the paper; all: their own states too, as in the reference."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        self.check_contrast("cross_sequence")
        num = self.num_neighbours
        require(num >= 1, "objectives.cross_sequence.num_neighbours", num, "use 1 or more")


@dataclass(kw_only=True)
class IntraSequenceConfig(ContrastConfig):
    """Contrast of two views of a history in which items are replaced by near ones; `weight` is the paper's beta."""

    weight: float = 0.05
    """Weight of this term in the loss."""
    temperature: float = 1.0
    """Divides the similarities; lower ones hold the next item back (measured in docs/results.md)."""
    num_neighbours: int = 10
    """Nearest items that may replace one, at most neighbours.num_neighbours (k)."""
    neighbours: Literal["semantic", "random"] = "semantic"
    """random: other items in their place, drawn once (the paper's ablation without retrieval)."""
    replacement_rate: float = 0.2
    """Probability that an item is replaced by a random member of its neighbour list."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        self.check_contrast("intra_sequence")
        num, rate = self.num_neighbours, self.replacement_rate
        require(num >= 1, "objectives.intra_sequence.num_neighbours", num, "use 1 or more")
        require(0 <= rate <= 1, "objectives.intra_sequence.replacement_rate", rate, "use 0 to 1")


@dataclass(kw_only=True)
class RandomViewsConfig(ContrastConfig):
    """Contrast of two random views of a history (CL4SRec); the shares are those of its authors."""

    crop_share: float = 0.6
    """Share of the items that a cropped view keeps."""
    mask_share: float = 0.3
    """Share of the items that a masked view hides."""
    reorder_share: float = 0.6
    """Share of the items, in one stretch, that a reordered view shuffles."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        self.check_contrast("random_views")
        for name in ("crop_share", "mask_share", "reorder_share"):
            share = getattr(self, name)
            require(0 <= share <= 1, f"objectives.random_views.{name}", share, "use 0 to 1")


@dataclass(kw_only=True)
class SameTargetConfig(ContrastConfig):
    """Contrast of a prefix with another one that has the same next item (DuoRec)."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        self.check_contrast("same_target")


@dataclass(kw_only=True)
class ObjectivesConfig:
    """The terms of the loss."""

    terms: list[str] = field(default_factory=lambda: ["next_item", "cross_sequence", "intra_sequence"])
    """Terms that are trained, by their names in sracl_dist/model/objectives/: next_item (alone the backbone),
    cross_sequence, intra_sequence (with it SRA-CL), random_views (CL4SRec), same_target (DuoRec)."""
    next_item: NextItemConfig = field(default_factory=NextItemConfig)
    """Settings of the term next_item."""
    cross_sequence: CrossSequenceConfig = field(default_factory=CrossSequenceConfig)
    """Settings of the term cross_sequence."""
    intra_sequence: IntraSequenceConfig = field(default_factory=IntraSequenceConfig)
    """Settings of the term intra_sequence."""
    random_views: RandomViewsConfig = field(default_factory=RandomViewsConfig)
    """Settings of the term random_views."""
    same_target: SameTargetConfig = field(default_factory=SameTargetConfig)
    """Settings of the term same_target."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        known = OBJECTIVE_NAMES
        ok = bool(self.terms) and set(self.terms) <= set(known) and len(set(self.terms)) == len(self.terms)
        require(ok, "objectives.terms", self.terms, f"list each at most once, out of {', '.join(known)}")
        require("next_item" in self.terms, "objectives.terms", self.terms, "include next_item")


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
    """Number format of products in training: on a CPU those of the full softmax, on a GPU all of them; weights, sums
    and evaluation stay float32."""
    examples: Literal["histories", "prefixes"] = "histories"
    """histories: a row per history, every position an example; prefixes: the reference's way, every prefix a padded row
    of its own with 3 + k encoder passes more, at a multiple of the cost, with train.batch_rows prefixes per step."""
    max_gradient_norm: float | None = 5.0
    """Gradients are scaled down to this norm; null leaves them."""
    num_workers: int = neutral(1)
    """Processes that train together."""
    cpus_per_worker: int = neutral(1)
    """CPU cores of one worker."""
    gpus_per_worker: int = neutral(1)
    """GPUs of one worker where the cluster has GPUs: 0 or 1."""
    max_failures: int = neutral(2)
    """How often training goes on from its last checkpoint after workers died."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("epochs", "patience", "batch_rows", "num_workers", "cpus_per_worker"):
            require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "use 1 or more")
        metrics = [f"{name}@{cutoff}" for name in ("hr", "ndcg") for cutoff in (5, 10, 20)] + ["mrr"]
        require(self.metric in metrics, "train.metric", self.metric, f"use one of {', '.join(metrics)}")
        require(self.learning_rate > 0, "train.learning_rate", self.learning_rate, "use above 0")
        for name in ("warmup_epochs", "weight_decay", "embedding_weight_decay"):
            require(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "use 0 or more")
        norm = self.max_gradient_norm
        require(norm is None or norm > 0, "train.max_gradient_norm", norm, "use above 0, or null")
        require(self.gpus_per_worker in (0, 1), "train.gpus_per_worker", self.gpus_per_worker, "use 0 or 1")
        require(self.max_failures >= 0, "train.max_failures", self.max_failures, "use 0 or more")
        warmup, fits = self.warmup_epochs, 0 <= self.warmup_epochs <= self.epochs
        require(fits, "train.warmup_epochs", warmup, f"use 0 to train.epochs={self.epochs}")
        enough = self.batch_rows >= self.num_workers
        require(enough, "train.batch_rows", self.batch_rows, f"use train.num_workers={self.num_workers} or more")


@dataclass(kw_only=True)
class EvaluateConfig:
    """evaluate: rank the whole catalogue for every user with a test item."""

    shard_users: int = neutral(2048)
    """Users that are ranked and committed together."""
    num_workers: int = neutral(1)
    """Processes that rank side by side, one GPU each where the cluster has GPUs."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("shard_users", "num_workers"):
            require(getattr(self, name) >= 1, f"evaluate.{name}", getattr(self, name), "use 1 or more")


@dataclass(kw_only=True)
class RecommendConfig:
    """recommend: the best new items for every user, from the whole history."""

    num_items: int = 20
    """Length of every recommendation list."""
    remove_seen: bool = True
    """Leave out items that the user already has."""
    shard_users: int = neutral(2048)
    """Users that are served and committed together."""
    num_workers: int = neutral(1)
    """Processes that work side by side, one GPU each where the cluster has GPUs."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("num_items", "shard_users", "num_workers"):
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


@dataclass(kw_only=True)
class Config:
    """The whole configuration: one section per stage, and the run and cluster they share."""

    run: RunConfig = field(default_factory=RunConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    data: DataConfig = field(default_factory=DataConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    neighbours: NeighboursConfig = field(default_factory=NeighboursConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    recommend: RecommendConfig = field(default_factory=RecommendConfig)
    report: ReportConfig = field(default_factory=ReportConfig)

    def check(self) -> None:
        """Raise ValueError for settings that do not go together."""
        learned = not (self.model.repeat_bias and self.objectives.next_item.softmax == "sampled")
        require(learned, "model.repeat_bias", True, "use false with objectives.next_item.softmax=sampled")
        if self.train.examples == "prefixes":
            self._check_prefixes()

    def _check_prefixes(self) -> None:
        """The reference's way of training has none of what came after it."""
        next_item, cross_sequence = self.objectives.next_item, self.objectives.cross_sequence
        needed: list[tuple[str, object, object]] = [
            ("train.num_workers", self.train.num_workers, 1),
            ("train.precision", self.train.precision, "float32"),
            ("model.repeat_bias", self.model.repeat_bias, False),
            ("objectives.next_item.softmax", next_item.softmax, "full"),
            ("objectives.next_item.horizon", next_item.horizon, 1),
        ]
        terms, known = self.objectives.terms, OBJECTIVE_NAMES[:3]
        if "cross_sequence" in terms:
            needed.append(("objectives.cross_sequence.neighbour_states", cross_sequence.neighbour_states, "encoded"))
        for key, value, wanted in needed:
            require(value == wanted, key, value, f"use {str(wanted).lower()} with train.examples=prefixes")
        mend = f"use only {', '.join(known)} with train.examples=prefixes"
        require(set(terms) <= set(known), "objectives.terms", terms, mend)
