"""The whole configuration, and what does not go together."""

from dataclasses import dataclass, field

from sracl_dist.config.sections.data import DataConfig
from sracl_dist.config.sections.fields import require
from sracl_dist.config.sections.model import ModelConfig
from sracl_dist.config.sections.objectives import ObjectivesConfig
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
        files, embed = self.profile.files, self.embed
        needs_texts = self.profile.engine == "file" and embed.text != "raw" and not (embed.items and embed.users)
        require(
            bool(files.items or files.users) or not needs_texts,
            "profile.files",
            "without items and users",
            "name files with profile.engine=file, or set embed.text=raw",
        )
        num_parts = self.train.accumulate_steps
        at_once = num_parts == 1 or self.objectives.next_item.softmax == "full"
        require(at_once, "train.accumulate_steps", num_parts, "use 1 with objectives.next_item.softmax=sampled")
