"""What the tables `items` and `users` hold: failures, flaws and tokens, one shard in memory at a time."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sracl_dist.columns import ERROR, FLAWS, NUM_OUTPUT_TOKENS, NUM_PROMPT_TOKENS
from sracl_dist.errors import StageError
from sracl_dist.profiles import quality
from sracl_dist.profiles.table import KINDS
from sracl_dist.run_folder import StageFolder
from sracl_dist.shards import committed_shards

COUNTED = (ERROR, FLAWS, NUM_PROMPT_TOKENS, NUM_OUTPUT_TOKENS)


def written_tables(folder: StageFolder) -> Iterator[pa.Table]:
    """The columns COUNTED of all shards, one after the other."""
    for kind in KINDS:
        for shard in committed_shards(folder, kind):
            yield folder.read_table(shard.name, list(COUNTED))


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What the tables hold."""

    num_rows: int
    errors: Counter[str]
    """How often each occurs."""
    details: dict[str, int]
    """Failures, flaws and tokens, for the manifest."""

    def why_failed(self) -> str:
        """The failures that the texts explain, in brackets."""
        numbers = {flaw: self.details[_count_name(flaw)] for flaw in quality.FAILURES}
        reasons = ", ".join(f"{num:,} {flaw}" for flaw, num in numbers.items() if num)
        return f" ({reasons})" if reasons else ""

    def refuse_failures(self, max_failed_share: float) -> None:
        """Raise StageError where too many rows have no answer, with the commonest reasons."""
        num_failed = self.errors.total()
        if num_failed > max_failed_share * self.num_rows:
            commonest = "; ".join(f"{num:,} times: {error}" for error, num in self.errors.most_common(3))
            raise StageError(
                f"{num_failed:,} of {self.num_rows:,} prompts have no answer ({commonest}); fix the cause and run the "
                f"stage again, which asks only those that have failed less than profile.max_attempts times, or raise "
                f"profile.max_failed_share={max_failed_share}."
            )


def counts_of(tables: Iterable[pa.Table]) -> Counts:
    """Failures, flaws and tokens of all rows; one table is held at a time."""
    num_rows, errors, flaws, tokens = 0, Counter[str](), Counter[str](), Counter[str]()
    for table in tables:
        num_rows += table.num_rows
        for name, counter in ((ERROR, errors), (FLAWS, flaws)):
            values = pc.list_flatten(table[name]) if name == FLAWS else table[name].drop_null()
            counter.update({row["values"]: row["counts"] for row in values.value_counts().to_pylist()})
        for name in (NUM_PROMPT_TOKENS, NUM_OUTPUT_TOKENS):
            tokens[name] += pc.sum(table[name]).as_py() or 0
    details = {
        "num_failed": errors.total(),
        **{_count_name(flaw): flaws[flaw] for flaw in quality.FLAWS},
        **{name: tokens[name] for name in (NUM_PROMPT_TOKENS, NUM_OUTPUT_TOKENS)},
    }
    return Counts(num_rows=num_rows, errors=errors, details=details)


def _count_name(flaw: str) -> str:
    return f"num_{flaw.replace('-', '_')}"
