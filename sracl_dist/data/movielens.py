"""The files of MovieLens as GroupLens publishes them: no header, and in u.item a column of 0 and 1 for each genre."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sracl_dist.data.delimited import Delimited, read_delimited
from sracl_dist.data.rows import Reading, Rows

GENRES = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
"""Genres in the order of u.item's last columns, https://files.grouplens.org/datasets/movielens/ml-100k-README.txt"""

CATEGORIES_COLUMN = "categories"
"""What the genres are called, in movies.dat and for u.item."""
U_ITEM = "u.item"
_RATINGS = ("user_id", "item_id", "rating", "timestamp")
LAYOUTS = {
    "ratings.dat": Delimited(delimiter="\t", header=_RATINGS, latin1=True, double_colon=True),
    "movies.dat": Delimited(
        delimiter="\t", header=("item_id", "title", CATEGORIES_COLUMN), latin1=True, double_colon=True
    ),
    "u.data": Delimited(delimiter="\t", header=_RATINGS),
}
"""Delimited files by their names."""
_U_ITEM_LAYOUT = Delimited(
    delimiter="|",
    header=("item_id", "title", "release_date", "video_release_date", "imdb_url", *GENRES),
    latin1=True,
)


def read_u_item(reading: Reading) -> Iterator[Rows]:
    """Yield the rows of u.item, with `categories` as the list of the genres that are flagged with 1.

    Raises:
        InputError: the file is missing or damaged, or lacks a column.
    """
    listed = [name for name, column in reading.wanted.items() if column == CATEGORIES_COLUMN]
    plain = {name: column for name, column in reading.wanted.items() if name not in listed}
    inner = replace(reading, wanted=plain | (dict(zip(GENRES, GENRES, strict=True)) if listed else {}))
    for rows in read_delimited(inner, _U_ITEM_LAYOUT):
        reading.num_rows, reading.num_bytes = inner.num_rows, inner.num_bytes
        columns = {name: rows.columns[name] for name in plain}
        yield Rows(columns=columns | {name: _genres(rows) for name in listed}, numbers=rows.numbers)


def _genres(rows: Rows) -> pa.ListArray:
    flags = np.column_stack([pc.equal(rows.columns[genre], "1").to_numpy(zero_copy_only=False) for genre in GENRES])
    offsets = np.concatenate([[0], np.cumsum(flags.sum(axis=1))])
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(GENRES).take(pa.array(np.nonzero(flags)[1]))
    )
