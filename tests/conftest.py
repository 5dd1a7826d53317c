"""What all tests share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from sracl_dist.config.sections import ClusterConfig
from sracl_dist.observe import quiet_libraries

if TYPE_CHECKING:  # the tests of the numerics run without Ray
    from sracl_dist.cluster import Cluster
    from sracl_dist.profiles.texts import TrainingTexts

quiet_libraries()


@pytest.fixture(scope="session", autouse=True)
def base_of_temporary_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Made at once: what is made while a private cluster runs goes with the cluster."""
    tmp_path_factory.getbasetemp()


@pytest.fixture(scope="session")
def ray_cluster() -> "Iterator[Cluster]":
    """One private cluster for all tests of this process that use it: starting one takes seconds."""
    from sracl_dist.cluster import connected

    with connected(ClusterConfig(address="local", num_cpus=2, object_store_bytes=100_000_000)) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def language_model() -> str:
    from sracl_dist.profiles.models import resolve_model

    return resolve_model("package:smollm2-135m-instruct")


@pytest.fixture(scope="session")
def tokenizer(language_model: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(language_model)


@pytest.fixture
def texts() -> "TrainingTexts":
    """A small log with texts: six items; the last two items of each history are held out."""
    from small_texts import item_text, sequences_of

    from sracl_dist.profiles.texts import TrainingTexts

    histories = [[1, 2, 3, 4, 5, 6], [2, 3, 1, 6, 5], [4, 4, 2, 1]]
    return TrainingTexts([item_text(item) for item in range(1, 7)], sequences_of(histories, 6))
