import pytest
from synthetic import enlarge

from sracl_dist.config import Config
from sracl_dist.model.encoders import ENCODERS, SequenceEncoder, build_encoder
from sracl_dist.model.tables import SemanticTables

EVERY_ENCODER = [(name, "post") for name in sorted(ENCODERS)] + [("sasrec", "pre")]


@pytest.fixture
def long_config(config: Config) -> Config:
    """Rows fall into several groups, and there is more than one layer and head."""
    config.model.max_length, config.model.num_layers = 20, 2
    return config


@pytest.fixture(params=EVERY_ENCODER, ids=lambda param: "-".join(param))
def encoder(request: pytest.FixtureRequest, long_config: Config, tables: SemanticTables) -> SequenceEncoder:
    long_config.model.encoder, long_config.model.norm = request.param
    encoder = build_encoder(long_config.model, tables).eval()
    enlarge(encoder)
    return encoder
