"""No validation or test item reaches a prompt, a vector, a neighbour table or a training batch.

The same log is taken twice, once with every held-out event replaced by another item: all that is made before evaluation
must be the same, bit for bit. A canary that occurs in held-out places only must not appear at all.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_run import NUM_ITEMS, small_config, write_log
from synthetic import differences, write_run

from sracl_dist.config import Config
from sracl_dist.embed.job import embed_texts
from sracl_dist.embed.texts import text_of
from sracl_dist.embed.vectors import load_vectors
from sracl_dist.model.sracl import SraCl
from sracl_dist.model.tables import SemanticTables
from sracl_dist.neighbours.job import build_neighbours
from sracl_dist.profiles.prompts import Prompt, PromptWriter
from sracl_dist.profiles.texts import load_training_texts
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import load_sequences
from sracl_dist.stages import STAGES, run_stage, stage_status
from sracl_dist.train.batches import TrainingBatches

CANARY = NUM_ITEMS - 1


def prepared(folder: Path, *, other_future: bool) -> tuple[Config, RunFolder]:
    """The small log, in which the last item is held out everywhere, with its own or another future."""
    write_log(folder)
    random = np.random.default_rng(9)
    header, *lines = (folder / "log.csv").read_text().splitlines()
    histories: dict[str, list[str]] = {}
    for line in lines:
        histories.setdefault(line.split(",")[0], []).append(line)
    for history in histories.values():
        for place in range(len(history) - 2):
            history[place] = history[place].replace(f"i{CANARY:02d}", "i00")
        for place in (-2, -1):
            user, _, time = history[place].split(",")
            item = random.integers(NUM_ITEMS) if other_future else CANARY
            history[place] = f"{user},i{item:02d},{time}"
    # A first user with the whole catalogue gives both logs the same dense ids.
    first = [f"first,i{item:02d},{item + 1}" for item in (*range(CANARY), 0, 1)]
    rows = [*first, *(line for history in histories.values() for line in history), f"last,i{CANARY:02d},1"]
    rows += ["last,i00,2", f"last,i{CANARY:02d},3"] if not other_future else ["last,i00,2", "last,i01,3"]
    (folder / "log.csv").write_text("\n".join([header, *rows]) + "\n")
    config = small_config(folder, "embed.text=raw")
    run = RunFolder(config.run.dir)
    run_stage(STAGES["prepare"], config, run, stage_status(STAGES["prepare"], config, run).draft)
    return config, run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Config, RunFolder]]:
    folder = tmp_path_factory.mktemp("leaks")
    return [prepared(folder / name, other_future=name == "other") for name in ("own", "other")]


def all_prompts(config: Config, run: RunFolder, tokenizer: Any) -> list[Prompt]:
    texts = load_training_texts(run)
    writer = PromptWriter(config.profile, texts, tokenizer, "films")
    return [*writer.items(range(1, texts.num_items + 1)), *writer.users(range(texts.num_users))]


def test_the_futures_differ(runs: list[tuple[Config, RunFolder]]) -> None:
    own, other = (load_sequences(run) for _, run in runs)
    assert own.num_items == other.num_items
    assert all(np.array_equal(own.training(user), other.training(user)) for user in range(own.num_users))
    for split in ("validation", "test"):
        users, targets = own.targets(split)
        assert len(users) > 20
        assert (targets != other.targets(split)[1]).mean() > 0.6


def test_prompts_and_raw_texts(runs: list[tuple[Config, RunFolder]], tokenizer: Any) -> None:
    own, other = (all_prompts(config, run, tokenizer) for config, run in runs)
    assert own == other
    canary = load_training_texts(runs[0][1])
    name = f"part {CANARY}"
    for prompt in own:
        if prompt.kind == "users" and prompt.key < canary.num_users - 1:
            assert name not in tokenizer.decode(prompt.token_ids)
    for user in range(canary.num_users - 1):
        texts = [text_of(load_training_texts(run), "users", user, None, "raw", 20) for _, run in runs]
        assert texts[0] == texts[1]
        assert name not in texts[0]


def test_training_batches(runs: list[tuple[Config, RunFolder]]) -> None:
    epochs = []
    for config, run in runs:
        batches = TrainingBatches(load_sequences(run), config.model.max_length, config.train.batch_rows, seed=1)
        epochs.append([batches.batch(rows) for epoch in (0, 1) for rows in batches.order(epoch)])
    assert len(epochs[0]) == len(epochs[1]) > 2
    for own, other in zip(*epochs, strict=True):
        assert differences(own, other) == []


def test_what_the_terms_look_up_in_the_histories(runs: list[tuple[Config, RunFolder]], tmp_path: Path) -> None:
    """Views, encoded neighbours, places with the same target and all losses, with the same vectors and neighbours."""
    histories = [load_sequences(run) for _, run in runs]
    semantics = write_run(tmp_path, histories[0])
    found = []
    for (config, _), sequences in zip(runs, histories, strict=True):
        config.objectives.terms = ["next_item", "cross_sequence", "intra_sequence", "random_views", "same_target"]
        config.objectives.cross_sequence.neighbour_states = "encoded"
        config.model.item_text = True
        torch.manual_seed(0)
        model = SraCl(config, SemanticTables(run=semantics, sequences=sequences))
        batches = TrainingBatches(sequences, config.model.max_length, config.train.batch_rows, seed=1)
        values = [model.encoder.catalogue.candidates_C, *model.weights().values()]
        for rows in batches.order(0):
            batch = batches.batch(rows)
            values += [model.objective(name).views(batch).rows.items_T for name in config.objectives.terms]
            values += model(batch).values()
        found.append(values)
    assert len(found[0]) == len(found[1]) > 50
    assert all(torch.equal(own, other) for own, other in zip(*found, strict=True))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_vectors_and_neighbours(runs: list[tuple[Config, RunFolder]]) -> None:
    for config, run in runs:
        embed_texts(config, run)
        build_neighbours(config, run)
    (_, own), (_, other) = runs
    for kind in ("items", "users"):
        assert np.array_equal(load_vectors(own, kind), load_vectors(other, kind))
        tables = [run.stage("neighbours").read_table(f"{kind}.parquet") for run in (own, other)]
        assert tables[0].equals(tables[1])
