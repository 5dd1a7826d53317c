"""The sample's texts in every way, their vectors, and what they are worth."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import CATEGORIES, ITEM
from sracl_dist.embed.texts import text_of
from sracl_dist.meter.measures import Measure
from sracl_dist.meter.sample import Sample
from sracl_dist.meter.together import items_of_both, same_narrowest_category, users_of_both
from sracl_dist.meter.worth import BOTH, PROFILE, RAW, Described, Truths, weigh
from sracl_dist.profiles.texts import TrainingTexts
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import Sequences

KINDS = ("items", "users")
NUM_OWN_ITEMS = 5
"""Latest training items whose raw texts, in the mean, stand for a user when it is told if its profile finds it."""

Profiles = Mapping[str, Sequence[str | None]]
"""Profiles of the sampled rows by kind; None for a row without one."""
Encode = Callable[[Mapping[str, Sequence[str]]], dict[str, NDArray[np.float32]]]
"""From lists of texts to their unit vectors, both by name."""
Ways = dict[str, dict[str, Measure]]


class Scene:
    """A sample with all that training says about it.

    Args:
        run: whose categories are read.
        sample: items and users to be looked at.
        sequences: of which only training items are read.
        texts: what the user's own data say.
        items_per_user: as embed.items_per_user.
    """

    def __init__(
        self, run: RunFolder, sample: Sample, sequences: Sequences, texts: TrainingTexts, items_per_user: int
    ) -> None:
        self.sample = sample
        self._texts, self._items_per_user = texts, items_per_user
        same_category_NN, has_category_N = same_narrowest_category(_categories(run, sample.items))
        with_categories = bool(has_category_N.any())
        self._truths = {
            "items": Truths(
                in_common_NN=users_of_both(sequences, sample.items),
                same_category_NN=same_category_NN if with_categories else None,
                has_category_N=has_category_N if with_categories else None,
            ),
            "users": Truths(in_common_NN=items_of_both(sequences, sample.users)),
        }
        self._own_items = [texts.history(user)[-NUM_OWN_ITEMS:] for user in sample.users.tolist()]

    def raw(self, kind: str, key: int) -> str:
        """The raw text of an item or user."""
        return text_of(self._texts, kind, key, None, RAW, self._items_per_user)

    def weigh(self, profiles: Mapping[str, Profiles], encode: Encode) -> dict[str, Ways]:
        """All measures by kind and way: raw, and with each set of profiles alone and together with the raw text.

        Args:
            profiles: sets of profiles by name, which is put before the names of their ways.
            encode: turns texts into vectors.
        """
        texts = {kind: self._ways(kind, profiles) for kind in KINDS}
        named = {f"{kind} {way}": several for kind, ways in texts.items() for way, several in ways.items()}
        lines = {item: self.raw("items", item) for items in self._own_items for item in items}
        vectors = encode({**named, "lines": list(lines.values())})
        place_of = {item: place for place, item in enumerate(lines)}
        own = {
            "items": vectors[f"items {RAW}"],
            "users": _means(vectors["lines"], [[place_of[item] for item in items] for items in self._own_items]),
        }
        return {
            kind: weigh(
                kind,
                {way: Described(texts=ways[way], vectors_ND=vectors[f"{kind} {way}"]) for way in ways},
                self._truths[kind],
                own[kind],
            )
            for kind, ways in texts.items()
        }

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
