"""Sequence encoders by name: items to states, where a state depends on its own and earlier items only.

A new encoder is a file with a subclass of `SequenceEncoder` and a line in ENCODERS.
"""

from sracl_dist.config.sections import ModelConfig
from sracl_dist.errors import ConfigError
from sracl_dist.model.catalogue import Catalogue, FixedCatalogue
from sracl_dist.model.encoders.gru4rec import GRU4Rec
from sracl_dist.model.encoders.hstu import HSTU
from sracl_dist.model.encoders.interface import SequenceEncoder
from sracl_dist.model.encoders.sasrec import SASRec
from sracl_dist.model.tables import SemanticTables

ENCODERS: dict[str, type[SequenceEncoder]] = {"sasrec": SASRec, "gru4rec": GRU4Rec, "hstu": HSTU}

__all__ = ["ENCODERS", "SequenceEncoder", "build_encoder", "encoder_class", "inference_encoder"]


def encoder_class(name: str) -> type[SequenceEncoder]:
    """The encoder with this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in ENCODERS:
        raise ConfigError(f"model.encoder is {name!r}; use one of {', '.join(ENCODERS)}.")
    return ENCODERS[name]


def build_encoder(config: ModelConfig, tables: SemanticTables, *, by_rows: bool = False) -> SequenceEncoder:
    """A new encoder with a catalogue to be learned, its weights drawn from torch's random state.

    With `by_rows` the catalogue is learned by the rows that a step reads (see `Catalogue`).

    Raises:
        ConfigError: the name is unknown.
        StorageError: a table that the catalogue needs is damaged.
    """
    return encoder_class(config.encoder)(config, Catalogue(config, tables, by_rows=by_rows))


def inference_encoder(config: ModelConfig, num_items: int) -> SequenceEncoder:
    """An encoder that takes the tensors of `SequenceEncoder.inference_tensors`.

    Raises:
        ConfigError: the name is unknown.
    """
    return encoder_class(config.encoder)(config, FixedCatalogue(config, num_items))
