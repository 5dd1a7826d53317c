"""What comes back from a language model, whichever engine asked it: one row per prompt, answered or failed."""

import pyarrow as pa

from sracl_dist.columns import ERROR, FINISH_REASON, NUM_OUTPUT_TOKENS, NUM_PROMPT_TOKENS, PROMPT_HASH, TEXT
from sracl_dist.errors import StageError

UNAVAILABLE = "unavailable"
"""Finish reason of a prompt that no model has seen: the endpoint was down, or too busy for too long."""
ANSWERS = pa.schema(
    [
        (PROMPT_HASH, pa.string()),
        (TEXT, pa.string()),
        (FINISH_REASON, pa.string()),
        (NUM_PROMPT_TOKENS, pa.int32()),
        (NUM_OUTPUT_TOKENS, pa.int32()),
        (ERROR, pa.string()),
    ]
)


class EngineDied(StageError):  # noqa: N818
    """An engine was answering prompts and died, again after a new start; one of the prompts may be what kills it."""
