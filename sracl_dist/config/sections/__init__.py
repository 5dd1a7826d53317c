"""One dataclass per section of the configuration, each field with a docstring that the reference in docs/ repeats.

A section that can hold impossible values has a method `check`, which loading calls. A field made with `neutral(...)`
changes how fast or where the work is done but not what it yields, so changing it does not make a finished stage run
again.
"""

from sracl_dist.config.sections.data import DataConfig, FileFormat, ItemColumns, LogColumns
from sracl_dist.config.sections.endpoint import EndpointConfig
from sracl_dist.config.sections.fields import NEUTRAL, neutral, require
from sracl_dist.config.sections.model import ModelConfig
from sracl_dist.config.sections.objectives import (
    OBJECTIVE_NAMES,
    ContrastConfig,
    CrossSequenceConfig,
    IntraSequenceConfig,
    NextItemConfig,
    ObjectivesConfig,
    RandomViewsConfig,
    SameTargetConfig,
    Similarity,
    SynthesisKind,
)
from sracl_dist.config.sections.outputs import EvaluateConfig, RecommendConfig, ReportConfig
from sracl_dist.config.sections.profile import ProfileConfig, ProfileFilesConfig
from sracl_dist.config.sections.run import ClusterConfig, RunConfig
from sracl_dist.config.sections.train import Protocol, TrainConfig
from sracl_dist.config.sections.tune import TuneConfig
from sracl_dist.config.sections.vectors import EmbedConfig, NeighboursConfig
from sracl_dist.config.sections.whole import Config

__all__ = [
    "NEUTRAL",
    "OBJECTIVE_NAMES",
    "ClusterConfig",
    "Config",
    "ContrastConfig",
    "CrossSequenceConfig",
    "DataConfig",
    "EmbedConfig",
    "EndpointConfig",
    "EvaluateConfig",
    "FileFormat",
    "IntraSequenceConfig",
    "ItemColumns",
    "LogColumns",
    "ModelConfig",
    "NeighboursConfig",
    "NextItemConfig",
    "ObjectivesConfig",
    "ProfileConfig",
    "ProfileFilesConfig",
    "Protocol",
    "RandomViewsConfig",
    "RecommendConfig",
    "ReportConfig",
    "RunConfig",
    "SameTargetConfig",
    "Similarity",
    "SynthesisKind",
    "TrainConfig",
    "TuneConfig",
    "neutral",
    "require",
]
