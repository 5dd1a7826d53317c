from pathlib import Path

import numpy as np
import pytest
import torch
from dense_scores import dense_scores
from peak_memory import peak_growth
from synthetic import enlarge, from_histories, make_config, tables_of, write_run

from sracl_dist.columns import PAD
from sracl_dist.evaluate.ranking import rank_targets
from sracl_dist.evaluate.scores import CatalogueScores
from sracl_dist.model.catalogue import Catalogue
from sracl_dist.model.encoders import ENCODERS, build_encoder, inference_encoder
from sracl_dist.model.item_table import ItemTable
from sracl_dist.model.item_text import ItemText
from sracl_dist.model.objectives import OBJECTIVES
from sracl_dist.model.tables import SemanticTables
from sracl_dist.sequences import Sequences
from sracl_dist.train.loop import fit, make_trainer
from sracl_dist.train.state import Progress
from sracl_dist.train.worker import Worker

CPU = torch.device("cpu")
COLD = (7, 9, 12)
"""Items 7 and 9 are first seen after the training, item 12 is not in the log at all."""
HISTORIES = [[1, 2, 3, 4, 7, 9], [2, 3, 4, 5, 6, 1], [8, 10, 11, 1, 9, 2], [4, 2, 4, 4, 3, 7], [5, 6, 8, 10, 11, 4]]
TEXT = ("model.item_text=true", "model.dropout=0", "model.attention_dropout=0")


@pytest.fixture(scope="module")
def cold_sequences() -> Sequences:
    return from_histories(HISTORIES, num_items=12)


@pytest.fixture
def cold_tables(tmp_path: Path, cold_sequences: Sequences) -> SemanticTables:
    return tables_of(write_run(tmp_path, cold_sequences), cold_sequences)


def test_an_item_is_its_embedding_and_its_centred_text(cold_tables: SemanticTables) -> None:
    catalogue = Catalogue(make_config("unused", *TEXT).model, cold_tables)
    embedding, project = catalogue.embedding.weight, catalogue.text and catalogue.text.projection
    assert project is not None
    text = torch.from_numpy(cold_tables.item_vectors)
    trained = [item for item in range(1, 13) if item not in COLD]
    centre = text[trained].mean(dim=0)
    lenders = {PAD: None, **{item: item for item in trained}}
    for item in COLD:  # the first of the neighbours, nearest first, that occurs in training
        near = [int(other) for other in cold_tables.item_neighbours[item] if other in trained]
        lenders[item] = near[0] if near else None
    assert all(lenders[item] for item in COLD)
    for item, row in enumerate(catalogue()):
        lender = lenders[item]
        own = torch.zeros(16) if lender is None else embedding[lender]
        said = torch.zeros(8) if item == PAD else text[item] - centre
        assert torch.allclose(row, own + project.weight @ said, atol=1e-7), item


def test_an_item_without_a_neighbour_that_is_trained_has_its_text_alone(
    cold_sequences: Sequences, tmp_path: Path
) -> None:
    tables = tables_of(write_run(tmp_path, cold_sequences), cold_sequences)
    tables.item_neighbours[7] = [9, 12, -1, -1]
    tables.item_neighbours[9] = -1
    tables.item_neighbours[12] = [7, -1, 9, 4]
    lenders = Catalogue(make_config("unused", *TEXT).model, tables).get_buffer("lender_V")
    assert lenders.tolist() == [0, 1, 2, 3, 4, 5, 6, PAD, 8, PAD, 10, 11, 4]


def test_without_text_every_item_has_an_embedding_and_is_a_candidate(cold_tables: SemanticTables) -> None:
    catalogue = Catalogue(make_config().model, cold_tables)
    table = catalogue()
    assert torch.equal(table, catalogue.embedding.weight)
    assert table[PAD].eq(0).all()
    assert table[1:].ne(0).any(dim=1).all()
    candidates, places = catalogue.candidates(ItemTable(rows_ND=table), torch.tensor([1, 12, 4]))
    assert torch.equal(candidates, table[1:])
    assert places.tolist() == [0, 11, 3]


def test_with_text_candidates_are_the_items_of_the_training(cold_tables: SemanticTables) -> None:
    catalogue = Catalogue(make_config("unused", *TEXT).model, cold_tables)
    table = catalogue()
    trained = [item for item in range(1, 13) if item not in COLD]
    candidates, places = catalogue.candidates(ItemTable(rows_ND=table), torch.tensor([*trained, 8, 1]))
    assert torch.equal(candidates, table[trained])
    assert places.tolist() == [*range(9), trained.index(8), 0]
    assert catalogue.place_V[[PAD, *COLD]].tolist() == [-1] * 4


@pytest.mark.parametrize("overrides", [(), TEXT])
def test_the_row_of_padding_is_never_learned(
    cold_sequences: Sequences, cold_tables: SemanticTables, overrides: tuple[str, ...]
) -> None:
    """Not by views that hide items, nor by substitutes that borrow their embedding from it; decay leaves it at zero."""
    cold_tables.item_neighbours[1:] = [*COLD, -1]
    cold_tables.item_neighbours[list(COLD)] = -1
    terms = f"objectives.terms=[{','.join(OBJECTIVES)}]"
    config = make_config("unused", terms, "train.embedding_weight_decay=0.1", "train.weight_decay=0.1", *overrides)
    config.objectives.random_views.weight, config.objectives.random_views.mask_share = 1.0, 0.7
    config.objectives.intra_sequence.weight, config.objectives.intra_sequence.replacement_rate = 1.0, 0.7
    trainer = make_trainer(config, cold_sequences, cold_tables, Worker())
    before = trainer.model.encoder.catalogue().detach().clone()
    for _ in fit(trainer, Progress()):
        pass
    after = trainer.model.encoder.catalogue()
    assert after[PAD].eq(0).all()
    assert (after - before)[1:].abs().amax(dim=1).gt(1e-3).all()


def test_an_item_that_is_not_trained_is_learned_by_its_text_alone(
    cold_sequences: Sequences, cold_tables: SemanticTables
) -> None:
    config = make_config("unused", "objectives.terms=[next_item]", *TEXT)
    trainer = make_trainer(config, cold_sequences, cold_tables, Worker())
    catalogue = trainer.model.encoder.catalogue
    before = catalogue.embedding.weight.detach().clone()
    for _ in fit(trainer, Progress()):
        pass
    moved = (catalogue.embedding.weight - before).abs().amax(dim=1).gt(0)
    assert moved.tolist() == [item not in (PAD, *COLD) for item in range(13)]

    contexts = [cold_sequences.context(user, "test") for user in range(5)]
    scores = dense_scores(trainer.model.encoder, contexts)
    assert scores.isfinite().all()
    catalogue_scores = CatalogueScores(trainer.model.encoder, CPU)
    assert rank_targets(catalogue_scores, contexts, np.array([9, 1, 2, 7, 4], np.int32)).seen_kept.max() <= 12
    with torch.no_grad():
        catalogue.embedding.weight[list(COLD)] = 5.0
    same = dense_scores(trainer.model.encoder, contexts)
    assert torch.equal(scores, same)
    catalogue.get_buffer("text.centred_VP")[12] += 1.0
    other = dense_scores(trainer.model.encoder, contexts)
    assert (other != scores).any(dim=0).tolist() == [item == 12 for item in range(1, 13)]


@pytest.mark.parametrize("num_items", [5, 12, 13])
def test_texts_are_added_alike_to_all_items_at_once_and_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch, num_items: int
) -> None:
    monkeypatch.setattr("sracl_dist.model.item_text.ITEMS_PER_PIECE", 4)
    vectors = np.random.default_rng(0).normal(size=(num_items, 6)).astype(np.float32)
    is_trained = np.arange(num_items) % 3 == 1
    at_once, by_pieces = (ItemText(vectors, is_trained, 5, on_device=there) for there in (True, False))
    by_pieces.load_state_dict(at_once.state_dict())
    own = torch.randn(num_items, 5)
    expected = at_once.added_to(own)
    asked = torch.tensor([0, num_items - 1, 2])
    assert torch.allclose(by_pieces.added_to(own[asked], asked), expected[asked], atol=1e-6)
    assert torch.allclose(by_pieces.added_to(own.clone()), expected, atol=1e-6)
    assert torch.equal(expected[PAD], own[PAD])


@torch.no_grad()
def test_all_items_with_vectors_on_disk_take_one_table_more() -> None:
    num, width = 400_000, 64
    text = ItemText(np.zeros((num, 2), np.float32), np.ones(num, np.bool_), width, on_device=False)
    own = torch.zeros(num, width).fill_(1.0)
    table_bytes = 4 * num * width
    assert peak_growth(lambda: text.added_to(own.clone())) < 1.5 * table_bytes


@pytest.mark.parametrize("name", sorted(ENCODERS))
@pytest.mark.parametrize("item_text", [False, True])
@pytest.mark.parametrize("repeat_bias", [False, True])
def test_what_inference_gets_scores_like_what_was_trained(
    cold_sequences: Sequences, cold_tables: SemanticTables, name: str, item_text: bool, repeat_bias: bool
) -> None:
    config = make_config("unused", f"model.item_text={item_text}", f"model.repeat_bias={repeat_bias}").model
    config.encoder = name
    trained = build_encoder(config, cold_tables)
    enlarge(trained)
    served = inference_encoder(config, 12)
    tensors = trained.inference_tensors()
    assert not any("embedding.weight" in key or "text" in key for key in tensors if key.startswith("catalogue"))
    served.load_state_dict(tensors)
    assert served.max_length == trained.max_length
    contexts = [cold_sequences.context(user, "test") for user in range(5)]
    expected = dense_scores(trained, contexts)
    scores = dense_scores(served, contexts)
    assert torch.equal(scores, expected)
