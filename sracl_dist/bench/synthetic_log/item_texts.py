"""Texts of the items: every word comes from the lists of the item's interest."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.bench.synthetic_log.events import ITEMS_STREAM
from sracl_dist.bench.synthetic_log.population import Population
from sracl_dist.bench.synthetic_log.settings import BLOCK_ITEMS
from sracl_dist.bench.synthetic_log.words import QUALIFIERS, THEMES, Theme
from sracl_dist.columns import BRAND, CATEGORIES, DESCRIPTION, ITEM_ID, TITLE

ITEMS_PER_SHARD = 200_000
SCHEMA = pa.schema(
    [
        (ITEM_ID, pa.string()),
        (TITLE, pa.string()),
        (BRAND, pa.string()),
        (CATEGORIES, pa.list_(pa.string())),
        (DESCRIPTION, pa.string()),
    ]
)


def items_table(population: Population, shard: int) -> pa.Table:
    """Items shard * ITEMS_PER_SHARD and following, with brand, interest, subcategory and sentences."""
    settings = population.settings
    start = shard * ITEMS_PER_SHARD
    items = np.arange(start, min(start + ITEMS_PER_SHARD, settings.num_items))
    random = np.random.default_rng([settings.seed, ITEMS_STREAM, shard])
    theme = items % settings.num_interests % len(THEMES)
    qualifier = items % settings.num_interests // len(THEMES)
    subcategory = items // settings.num_interests // BLOCK_ITEMS % len(THEMES[0].products)

    def words(name: str, choice: NDArray[np.int64] | None = None) -> pa.Array:
        lists = [getattr(each, name) for each in THEMES]
        size = len(lists[0])
        chosen = random.integers(size, size=len(items)) if choice is None else choice
        return pa.array([word for each in lists for word in each]).take(pa.array(theme * size + chosen))

    qualifiers = pa.array([f"{each} " if each else "" for each in QUALIFIERS]).take(pa.array(qualifier))
    product, adjective, brand = words("products", subcategory), words("adjectives"), words("brands")
    interest = pc.binary_join_element_wise(qualifiers, pa.array([each.name for each in THEMES]).take(theme), "")
    model = pa.array(random.integers(100, 1000, len(items))).cast(pa.string())
    title = pc.binary_join_element_wise(qualifiers, _capital(adjective), " ", product, " ", model, "")
    description = pc.binary_join_element_wise(
        "This ", words("adjectives"), " ", product, " by ", brand, " is made for ", words("uses"),
        ". From the world of ", pc.utf8_lower(interest), ", it goes well with a ", words("products"), ".", "",
    )  # fmt: skip
    categories = np.stack([interest.to_numpy(False), _capital(product).to_numpy(False)], axis=1).ravel()
    offsets = pa.array(np.arange(0, len(categories) + 1, 2, dtype=np.int32))
    columns = {
        ITEM_ID: population.item_ids(items),
        TITLE: title,
        BRAND: brand,
        CATEGORIES: pa.ListArray.from_arrays(offsets, pa.array(categories, pa.string())),
        DESCRIPTION: description,
    }
    return pa.table(columns, schema=SCHEMA)


def interest_names(num_interests: int) -> list[str]:
    """Names of the interests, which are the first category of their items."""
    names = []
    for interest in range(num_interests):
        theme: Theme = THEMES[interest % len(THEMES)]
        names.append(f"{QUALIFIERS[interest // len(THEMES)]} {theme.name}".strip())
    return names


def _capital(words: pa.Array) -> pa.Array:
    return pc.utf8_capitalize(words)
