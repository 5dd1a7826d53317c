"""The whole configuration, and what does not go together."""

from dataclasses import dataclass, field

from sracl_dist.config.sections.data import DataConfig
from sracl_dist.config.sections.fields import require
from sracl_dist.config.sections.model import ModelConfig
from sracl_dist.config.sections.objectives import OBJECTIVE_NAMES, ObjectivesConfig
from sracl_dist.config.sections.outputs import EvaluateConfig, RecommendConfig, ReportConfig
from sracl_dist.config.sections.profile import ProfileConfig
from sracl_dist.config.sections.run import ClusterConfig, RunConfig
from sracl_dist.config.sections.train import TrainConfig
from sracl_dist.config.sections.tune import TuneConfig
from sracl_dist.config.sections.vectors import EmbedConfig, NeighboursConfig


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
    tune: TuneConfig = field(default_factory=TuneConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    recommend: RecommendConfig = field(default_factory=RecommendConfig)
    report: ReportConfig = field(default_factory=ReportConfig)

    def check(self) -> None:
        """Raise ValueError for settings that do not go together."""
        learned = not (self.model.repeat_bias and self.objectives.next_item.softmax == "sampled")
        require(learned, "model.repeat_bias", True, "use false with objectives.next_item.softmax=sampled")
        num_parts = self.train.accumulate_steps
        at_once = num_parts == 1 or self.objectives.next_item.softmax == "full"
        require(at_once, "train.accumulate_steps", num_parts, "use 1 with objectives.next_item.softmax=sampled")
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
