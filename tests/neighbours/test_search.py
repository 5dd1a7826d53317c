"""FAISS within one part of the table, against plain numpy; lists are in test_part.py."""

import numpy as np
import pytest

from sracl_dist.errors import StageError
from sracl_dist.neighbours import search
from sracl_dist.neighbours.plan import SearchPlan
from sracl_dist.neighbours.search import ExactIndex, InvertedIndex, train_lists


def test_candidates_are_the_highest_inner_products() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(300, 16)).astype(np.float32)
    queries = random.normal(size=(7, 16)).astype(np.float32)
    scores, rows = ExactIndex(vectors).search(queries, 12)
    products = queries @ vectors.T
    assert np.array_equal(rows, np.argsort(-products, axis=1)[:, :12])
    np.testing.assert_allclose(scores, -np.sort(-products, axis=1)[:, :12], rtol=1e-5)


def test_a_part_smaller_than_the_request_gives_what_it_has() -> None:
    scores, rows = ExactIndex(np.eye(3, dtype=np.float32)).search(np.ones((2, 3), np.float32), 10)
    assert scores.shape == rows.shape == (2, 3)
    assert sorted(rows[0].tolist()) == [0, 1, 2]


def test_more_lists_than_vectors_are_refused() -> None:
    with pytest.raises(StageError, match=r"3 vectors cannot fill 4 lists; lower neighbours\.num_lists"):
        train_lists(np.eye(3, dtype=np.float32), SearchPlan(kind="ivf", num_lists=4))


def test_training_is_the_same_again() -> None:
    vectors = np.random.default_rng(1).normal(size=(500, 8)).astype(np.float32)
    plan = SearchPlan(kind="ivf_pq", num_lists=4, num_codes=2)
    assert train_lists(vectors, plan).tobytes() == train_lists(vectors, plan).tobytes()


def test_lists_that_a_gpu_cannot_search_stay_on_the_processor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Options:
        useFloat16 = False

    def refuse(resources: object, device: int, index: object, options: Options) -> None:
        assert options.useFloat16
        raise RuntimeError("Error in verifySettings_\nsub-quantizers (5) is not supported")

    random = np.random.default_rng(0)
    vectors = random.normal(size=(600, 20)).astype(np.float32)
    index = InvertedIndex(train_lists(vectors, SearchPlan(kind="ivf_pq", num_lists=2, num_codes=5)), num_probes=2)
    index.add(vectors)
    there = {"GpuClonerOptions": Options, "StandardGpuResources": object, "index_cpu_to_gpu": refuse}
    for name, value in {**there, "get_num_gpus": lambda: 1}.items():
        monkeypatch.setattr(search.faiss, name, value, raising=False)
    index.finish()
    assert "sub-quantizers (5) is not supported" in capsys.readouterr().err
    scores, rows = index.search(vectors[:3], 4)
    assert scores.shape == rows.shape == (3, 4)
