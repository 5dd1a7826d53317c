"""The sample's texts in every way, their vectors, and what they are worth."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import CATEGORIES, ITEM
from sracl_dist.config import Config
from sracl_dist.embed.texts import text_of
from sracl_dist.meter.measures import Measure
from sracl_dist.meter.sample import Sample
from sracl_dist.meter.together import Categories, items_of_both, users_of_both
from sracl_dist.meter.worth import BOTH, PROFILE, RAW, Choice, Described, Truths, choose_each, measure_ways
from sracl_dist.profiles.table import KINDS
from sracl_dist.profiles.texts import TrainingTexts
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import Sequences

NUM_OWN_ITEMS = 5
"""Latest training items whose raw texts, in the mean, stand for a user where its profile has to find it."""

Profiles = Mapping[str, Sequence[str | None]]
"""Profiles of the sampled rows by kind; None for a row without one."""
Encode = Callable[[Mapping[str, Sequence[str]]], dict[str, NDArray[np.float32]]]
"""From lists of texts to their unit vectors, both by name."""
Ways = dict[str, dict[str, Measure]]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the texts that are compared were written from, which does not count as truth; see `together`."""

    histories_per_item: frozenset[int]
    """As profile.histories_per_item, of every set of profiles that is compared."""
    items_per_user: int
    """The latest training items that are in a user's raw text or prompt, whichever has more."""

    @staticmethod
    def of(configs: Sequence[Config]) -> "Shown":
        """What the raw text of the first and the prompts of all show; nothing is known of profiles from files."""
        prompts = [config.profile for config in configs if config.profile.engine != "file"]
        return Shown(
            histories_per_item=frozenset(own.histories_per_item for own in prompts),
            items_per_user=max(configs[0].embed.items_per_user, *(own.items_per_user for own in prompts), 0),
        )

    def users_of(self, texts: TrainingTexts, items: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
        """By item the users whose histories are shown to who writes about it."""
        found: dict[int, list[NDArray[np.int64]]] = {item: [] for item in items.tolist()}
        for num_histories in sorted(self.histories_per_item):
            for item, several in found.items():
                several.append(texts.users_shown(item, num_histories))
        return {item: np.concatenate([np.zeros(0, np.int64), *several]) for item, several in found.items()}


class MeteredSample:
    """A sample with all that training says about it, ready to measure texts.

    Args:
        run: whose categories are read.
        sample: items and users to look at.
        sequences: of which only training items are read.
        texts: what the user's own data say.
        items_per_user: as embed.items_per_user.
        shown: what the texts were written from.
        kinds: those of KINDS to measure.
    """

    def __init__(
        self,
        run: RunFolder,
        sample: Sample,
        sequences: Sequences,
        texts: TrainingTexts,
        items_per_user: int,
        shown: Shown,
        kinds: Iterable[str] = KINDS,
    ) -> None:
        self.sample, self.kinds = sample, tuple(kinds)
        self._texts, self._items_per_user = texts, items_per_user
        self._truths: dict[str, Truths] = {}
        if "items" in self.kinds:
            categories = Categories(_categories(run, sample.items))
            self._truths["items"] = Truths(
                kind="items",
                common=users_of_both(sequences, sample.items, shown.users_of(texts, sample.items)),
                categories=categories if categories.has_one_N.any() else None,
            )
        self._own_items: list[list[int]] = []
        if "users" in self.kinds:
            common = items_of_both(sequences, sample.users, shown.items_per_user)
            self._truths["users"] = Truths(kind="users", common=common)
            self._own_items = [texts.history(user)[-NUM_OWN_ITEMS:] for user in sample.users.tolist()]

    def num_left(self) -> dict[str, int]:
        """By kind the number of rows about which training says anything that no text shows."""
        return {kind: int((truths.common.num_groups_N > 0).sum()) for kind, truths in self._truths.items()}

    def raw(self, kind: str, key: int) -> str:
        """The raw text of an item or user."""
        return text_of(self._texts, kind, key, None, RAW, self._items_per_user)

    def measure(self, profiles: Mapping[str, Profiles], encode: Encode) -> dict[str, Ways]:
        """All measures by kind and way: raw, and with each set of profiles alone and together with the raw text.

        Args:
            profiles: sets of profiles by name, which is put before the names of their ways.
            encode: turns texts into vectors.
        """
        texts = {kind: self._ways(kind, profiles) for kind in self.kinds}
        named = {f"{kind} {way}": several for kind, ways in texts.items() for way, several in ways.items()}
        lines = {item: self.raw("items", item) for items in self._own_items for item in items}
        vectors = encode({**named, "lines": list(lines.values())})
        place_of = {item: place for place, item in enumerate(lines)}
        own_places = [[place_of[item] for item in items] for items in self._own_items]
        return {
            kind: measure_ways(
                {way: Described(texts=ways[way], vectors_ND=vectors[f"{kind} {way}"]) for way in ways},
                self._truths[kind],
                vectors[f"items {RAW}"] if kind == "items" else _means(vectors["lines"], own_places),
            )
            for kind, ways in texts.items()
        }

    def choose(self, ways: Mapping[str, Ways]) -> dict[str, Choice]:
        """The way to take for each kind, from what `measure` found; see `worth.choose_each`."""
        return choose_each(ways, self._truths, {kind: self.sample.groups(kind) for kind in self.kinds})

    def _ways(self, kind: str, profiles: Mapping[str, Profiles]) -> dict[str, list[str]]:
        keys = self.sample.keys(kind).tolist()
        ways = {RAW: [self.raw(kind, key) for key in keys]}
        for name, of_kinds in profiles.items():
            if any(of_kinds[kind]):
                for way in (PROFILE, BOTH):
                    ways[f"{name}{way}"] = [
                        text_of(self._texts, kind, key, profile, way, self._items_per_user)
                        for key, profile in zip(keys, of_kinds[kind], strict=True)
                    ]
        return ways


def _categories(run: RunFolder, items: NDArray[np.int64]) -> list[list[str]]:
    """Categories of the items, in their order."""
    wanted = pc.field(ITEM).isin(items.tolist())
    table = run.stage("prepare").read_table("items.parquet", [ITEM, CATEGORIES], wanted)
    categories = dict(zip(table[ITEM].to_pylist(), table[CATEGORIES].to_pylist(), strict=True))
    return [categories[item] or [] for item in items.tolist()]


def _means(vectors_ND: NDArray[np.float32], rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Unit vectors in the direction of the means of some rows each."""
    means = np.stack([vectors_ND[own].mean(axis=0) for own in rows])
    unit: NDArray[np.float32] = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return unit
