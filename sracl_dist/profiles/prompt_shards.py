"""The prompts of a run as files of the stage, some thousand each: a killed stage resumes with those that are there.

    prompts/items/<first key>-<end>.parquet    prompts/users/<first key>-<end>.parquet

They are deleted when the stage is done.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import KEY, NUM_PROMPT_TOKENS, PROMPT_HASH
from sracl_dist.config import Config
from sracl_dist.data.public_sets import item_kind
from sracl_dist.profiles.prompts import Prompt, PromptWriter
from sracl_dist.profiles.table import KINDS
from sracl_dist.profiles.texts import load_training_texts
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.shards import Shard, pending_shards
from sracl_dist.tasks import Tasks

PROMPTS = "prompts"
PROMPTS_PER_SHARD = 20_000
TOKENS_PER_SHARD = 512 * PROMPTS_PER_SHARD
"""Long prompts make shards of fewer: a worker that writes, asks or joins one holds some 50 MB of them."""
ROWS_AT_ONCE = 512
"""Prompts that are objects of Python at the same time."""
TOKEN_IDS, ANSWER_START, MESSAGES = "token_ids", "answer_start", "messages"
SCHEMA = pa.schema(
    [
        (KEY, pa.int64()),
        (PROMPT_HASH, pa.string()),
        (NUM_PROMPT_TOKENS, pa.int32()),
        (TOKEN_IDS, pa.list_(pa.int32())),
        (ANSWER_START, pa.string()),
        (MESSAGES, pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class PromptShard:
    """The prompts of some keys of one kind, a file each; the table of their answers has the same keys."""

    kind: str
    keys: NDArray[np.int64]
    """Rising."""

    @property
    def num_prompts(self) -> int:
        """How many."""
        return len(self.keys)

    @property
    def answers(self) -> Shard:
        """Of the table with the answers."""
        return Shard(self.kind, int(self.keys[0]), int(self.keys[-1]) + 1)

    @property
    def prompts(self) -> Shard:
        """Of the prompts."""
        return Shard(f"{PROMPTS}/{self.kind}", self.answers.start, self.answers.stop)


def shards_of(keys: Mapping[str, NDArray[np.int64]], max_prompt_tokens: int) -> list[PromptShard]:
    """The chosen keys of each kind in shards."""
    num = max(1, min(PROMPTS_PER_SHARD, TOKENS_PER_SHARD // max_prompt_tokens))
    return [
        PromptShard(kind=kind, keys=keys[kind][start : start + num])
        for kind in KINDS
        for start in range(0, len(keys[kind]), num)
    ]


def build_prompts(
    tasks: Tasks, folder: StageFolder, shards: Sequence[PromptShard], config: Config, run: RunFolder, tokenizer: Any
) -> None:
    """Write the shards that are not there yet."""
    pending = {shard.name for shard in pending_shards(folder, [shard.prompts for shard in shards])}
    tasks.run(
        "profile: prompts",
        make_builder,
        (folder, config, run, tokenizer),
        shards,
        size=lambda shard: shard.num_prompts,
        is_done=lambda shard: shard.prompts.name not in pending,
        unit="prompts",
    )


def make_builder(folder: StageFolder, config: Config, run: RunFolder, tokenizer: Any) -> Callable[[PromptShard], None]:
    """What a worker does: write the prompts of one shard."""
    writer = PromptWriter(config.profile, load_training_texts(run), tokenizer, item_kind(config.data))
    return lambda shard: write_shard(folder, writer, shard)


def write_shard(folder: StageFolder, writer: PromptWriter, shard: PromptShard) -> None:
    """Write the prompts of a shard and commit them."""
    keys = shard.keys.tolist()
    write_prompts(folder, shard, writer.items(keys) if shard.kind == "items" else writer.users(keys))


def write_prompts(folder: StageFolder, shard: PromptShard, prompts: Iterator[Prompt]) -> None:
    """Commit prompts, which have the keys of the shard in that order."""
    # Each piece is packed at once: its tokens as objects would take ten times the memory.
    pieces = [_packed(piece) for piece in iter(lambda: list(islice(prompts, ROWS_AT_ONCE)), [])]
    folder.write_table(shard.prompts.name, pa.Table.from_batches(pieces, SCHEMA))


def _packed(prompts: Sequence[Prompt]) -> pa.RecordBatch:
    columns = [
        [prompt.key for prompt in prompts],
        [prompt.prompt_hash for prompt in prompts],
        [prompt.num_tokens for prompt in prompts],
        [prompt.token_ids for prompt in prompts],
        [prompt.answer_start for prompt in prompts],
        [json.dumps(prompt.messages) for prompt in prompts],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


@dataclass(frozen=True, kw_only=True)
class PromptPiece:
    """Some prompts of one shard, as they are to be asked now; small enough to be sent to a worker."""

    shard: Shard
    kind: str
    rows: NDArray[np.int64]
    """Of the shard, rising."""
    attempts: NDArray[np.int32]
    num_failures: NDArray[np.int32]
    wants_room: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, folder: StageFolder) -> Iterator[Prompt]:
        """The prompts one after the other."""
        table = folder.read_table(self.shard.name)
        for start in range(0, len(self.rows), ROWS_AT_ONCE):
            piece = slice(start, start + ROWS_AT_ONCE)
            columns = [column.to_pylist() for column in table.take(self.rows[piece]).columns]
            numbers = [array[piece].tolist() for array in (self.attempts, self.num_failures, self.wants_room)]
            for key, hash_, num_tokens, token_ids, answer_start, messages, *asked in zip(
                *columns, *numbers, strict=True
            ):
                yield Prompt(
                    kind=self.kind,
                    key=key,
                    token_ids=token_ids,
                    prompt_hash=hash_,
                    answer_start=answer_start,
                    messages=tuple(json.loads(messages)),
                    num_estimated_tokens=0 if token_ids else num_tokens,
                    attempt=asked[0],
                    num_failures=asked[1],
                    wants_room=asked[2],
                )
