"""The terms of the loss."""

from dataclasses import dataclass, field
from typing import Literal

from sracl_dist.config.sections.fields import require

Similarity = Literal["inner_product", "cosine"]
SynthesisKind = Literal["learned", "uniform", "sampled"]
OBJECTIVE_NAMES = ("next_item", "cross_sequence", "intra_sequence", "random_views", "same_target")


@dataclass(kw_only=True)
class NextItemConfig:
    """Prediction of the next item."""

    softmax: Literal["full", "sampled"] = "full"
    """Whether the softmax runs over the whole catalogue, or over the target and a sample shared by all positions."""
    num_sampled: int = 2048
    """sampled: items drawn in every step."""
    sampling_power: float = 0.5
    """sampled: items are drawn in proportion to their training interactions to this power; 0 draws uniformly."""
    in_batch_share: float = 0.0
    """sampled: this share of the items is not drawn from the catalogue but taken from the targets of the step."""
    horizon: int = 1
    """full: so many of the items that follow are targets of a position, not only the next one."""
    horizon_discount: float = 0.5
    """full: each further target weighs this much of the one before it."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        require(self.num_sampled >= 1, "objectives.next_item.num_sampled", self.num_sampled, "use 1 or more")
        for name in ("sampling_power", "in_batch_share"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"objectives.next_item.{name}", value, "use 0 to 1")
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
