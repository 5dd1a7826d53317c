import torch
from synthetic import NUM_ITEMS, enlarge

from sracl_dist.config import Config
from sracl_dist.model.encoders import build_encoder
from sracl_dist.model.encoders.gru4rec import GRU4Rec
from sracl_dist.model.rows import Rows
from sracl_dist.model.tables import SemanticTables


def test_each_row_passes_through_the_recurrent_network_of_torch(long_config: Config, tables: SemanticTables) -> None:
    long_config.model.encoder = "gru4rec"
    encoder = build_encoder(long_config.model, tables).eval()
    assert isinstance(encoder, GRU4Rec)
    enlarge(encoder)
    lengths = [4, 9, 1, 9, 2]
    rows = Rows(items_T=torch.randint(1, NUM_ITEMS + 1, (sum(lengths),)), lengths_B=torch.tensor(lengths))
    states = encoder(rows, encoder.catalogue())
    for items, own in zip(rows.items_T.split(lengths), states.split(lengths), strict=True):
        hidden, _ = encoder.recurrent(encoder.catalogue.embedding.weight[items][:, None])
        assert hidden.shape == (len(items), 1, long_config.model.feedforward_width)
        assert torch.allclose(own, encoder.output(hidden[:, 0]), atol=1e-5)
