"""The steps over the log, each a number of tasks whose results are committed one by one below work/."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sracl_dist.columns import TIME
from sracl_dist.config.sections import DataConfig
from sracl_dist.data import encode, ordering, output, shuffle
from sracl_dist.data.encode import LogFormat, open_reading
from sracl_dist.data.file_splits import FileSplit
from sracl_dist.data.filtering import Kept
from sracl_dist.data.interactions import Tally
from sracl_dist.data.numbering import Numbering, number_all
from sracl_dist.data.readers import reader_of
from sracl_dist.data.rejects import DUPLICATE, Rejects, commonest
from sracl_dist.data.sequences import SEQUENCES
from sracl_dist.data.sources import Source
from sracl_dist.data.state import LASTING, LASTING_IDS
from sracl_dist.data.strings import HashCollisionError, HashKey
from sracl_dist.data.tasks import Tasks
from sracl_dist.data.times import TimeParser
from sracl_dist.errors import InputError
from sracl_dist.run_folder import StageFolder

WORK = "work"
PLAN = "work/plan.json"


@dataclass(kw_only=True)
class LogSteps:
    """The steps over the log."""

    folder: StageFolder
    source: Source
    data: DataConfig
    splits: list[FileSplit]
    tasks: Tasks
    tally: Tally = field(default_factory=Tally)
    dates: bool | None = None
    """Whether times are dates; known when the log is read."""
    key: HashKey = field(init=False)
    """With which ids are hashed; known as soon as reading begins."""

    @property
    def has_times(self) -> bool:
        """Whether the log has times, or order is all there is."""
        return self.source.columns.time is not None

    def read(self) -> Numbering:
        """From files to partitions of users in time order.

        Raises:
            HashCollisionError: two ids have the same hash; the next run takes another key.
        """
        try:
            return self._read()
        except HashCollisionError:
            self.folder.delete([PLAN])
            raise

    def _read(self) -> Numbering:
        layout = self._layout()
        limit = self.data.max_user_interactions
        self.tasks.run(
            "prepare: reading the log",
            encode.make_encoder,
            (self.folder, layout),
            self.splits,
            size=lambda split: split.num_bytes // 1000,
            unit="kB",
            is_done=lambda split: encode.is_done(self.folder, split),
        )
        tallies = [encode.tally_of(self.folder, split) for split in self.splits]
        for tally in tallies:
            self.tally.add(tally)
        self._require_rows()
        num_rows = [tally.num_kept for tally in tallies]
        numbering = number_all(self.folder, self.splits, num_rows, self.key, self.data.shard_rows, limit)
        self.tasks.run(
            "prepare: dealing rows to partitions",
            shuffle.make_shuffler,
            (self.folder, numbering, limit, self.has_times),
            self.splits,
            size=lambda split: num_rows[split.index],
            is_done=lambda split: shuffle.is_done(self.folder, split),
        )
        partitions = range(numbering.num_partitions)
        rows_per_partition = self.tally.num_kept // len(partitions)
        self.tasks.run(
            "prepare: ordering events",
            ordering.make_orderer,
            (self.folder, self.splits, numbering, limit, self.has_times),
            partitions,
            size=lambda _: rows_per_partition,
            is_done=lambda partition: ordering.is_done(self.folder, partition),
        )
        self._count_ordered(numbering)
        return numbering

    def _layout(self) -> LogFormat:
        """How the log is read; what an interrupted run left is deleted where it was read or cut differently."""
        facts = {"shard_rows": self.data.shard_rows, "num_splits": len(self.splits)}
        plan = self.folder.read_json(PLAN) if self.folder.exists(PLAN) else {}
        if {name: plan.get(name) for name in facts} != facts:
            self.folder.delete(name for name in self.folder.files() if name not in (LASTING_IDS, LASTING))
            self.key = HashKey.new()
            plan = facts | {"key": [self.key.first, self.key.second]}
            plan["dates"] = _has_dates(self.splits, self._format(None))
            self.folder.write_json(PLAN, plan)
        self.dates, self.key = plan["dates"], HashKey(*plan["key"])
        return self._format(self.dates)

    def _format(self, dates: bool | None) -> LogFormat:
        return LogFormat(
            columns=self.source.columns,
            min_rating=self.data.min_rating,
            dates=dates,
            key=self.key,
            block_rows=self.data.shard_rows,
        )

    def _require_rows(self) -> None:
        self.tally.check()
        if not self.tally.num_read:
            files = ", ".join(map(str, self.source.log_files))
            raise InputError(f"The log {files} holds no row; name files with interactions.")
        limit_rejects(self.tally.num_read, self.tally.rejected.total(), self.tally.rejected, self.data, "log")
        if not self.tally.num_kept:
            raise InputError(f"No row of the log reaches data.min_rating={self.data.min_rating:g}; lower it.")

    def _count_ordered(self, numbering: Numbering) -> None:
        """Add what shuffling and ordering left out."""
        num_kept = num_over = num_repeated = 0
        for split in self.splits:
            num_over += shuffle.num_over_limit(self.folder, split)
        for partition in range(numbering.num_partitions):
            counts = ordering.counts_of(self.folder, partition)
            num_kept += counts.num_kept
            num_over += counts.num_over_limit
            num_repeated += counts.num_repeated
        self.tally.num_kept, self.tally.num_over_limit = num_kept, num_over
        if num_repeated:
            self.tally.rejected[DUPLICATE] += num_repeated
        self.tally.check()
        limit_rejects(self.tally.num_read, self.tally.rejected.total(), self.tally.rejected, self.data, "log")

    def write(self, numbering: Numbering, kept: Kept) -> None:
        """From partitions to tables."""
        since = output.recent_since(self.folder, numbering.num_partitions) if self.has_times else None
        partitions = range(len(kept.first_users) - 1)
        self.tasks.run(
            "prepare: writing sequences",
            output.make_writer,
            (self.folder, numbering, kept, since),
            partitions,
            unit="users",
            size=lambda partition: output.shard_of(kept, partition, SEQUENCES).num_rows,
            is_done=lambda partition: output.is_done(self.folder, kept, partition),
        )


def _has_dates(splits: Sequence[FileSplit], layout: LogFormat) -> bool | None:
    """Whether the log's times are dates, as the first rows with a usable time say; None where none is usable."""
    parser, rejects = TimeParser(), Rejects()
    pieces = [piece for split in splits for piece in split.pieces]
    for piece in pieces if layout.columns.time is not None else ():
        for rows in reader_of(piece.path)(open_reading(piece, layout, rejects)):
            parser.parse(rows.columns[TIME])
            if parser.dates is not None:
                return parser.dates
    return None


def limit_rejects(num_read: int, num_bad: int, counts: Counter[str], data: DataConfig, what: str) -> None:
    """Refuse to go on when so many rows are unusable that the files or settings must be wrong."""
    if num_bad and (num_bad > data.max_reject_share * num_read or (what == "log" and num_bad == num_read)):
        raise InputError(
            f"{num_bad:,} of {num_read:,} rows of the {what} cannot be used (commonest reason: "
            f"{commonest(counts)}); mend the files or the column settings, or raise data.max_reject_share="
            f"{data.max_reject_share:g}."
        )
