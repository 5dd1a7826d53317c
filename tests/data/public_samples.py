"""Small public sets in the formats of their publishers, written for these tests."""

import json
from dataclasses import dataclass, field

HISTORIES = {"7": ["12", "11", "14", "13"], "8": ["11"]}
SECONDS = 1_600_000_000
NO_TEXTS = (None, None, None, None)


@dataclass
class Sample:
    """A small set in its true format, written for these tests."""

    files: dict[str, str | bytes]
    """By their path within the publisher's archive or below its address."""
    archive: str | None = None
    """The zip that the files are in."""
    histories: dict[str, list[str]] = field(default_factory=lambda: HISTORIES)
    items: dict[str, tuple[str | None, str | None, list[str] | None, str | None]] | None = None
    """Title, brand, categories and description by item; None where the set has no texts."""


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def literals(*records):
    return "".join(f"{record!r}\n" for record in records)


MOVIES = {
    "11": ("Caf\u00e9, The (1995)", None, ["Comedy", "Drama"], None),
    "12": ("Iron Tide (1996)", None, ["War"], None),
    "13": ("Blank Page (1997)", None, ["Children's"], None),
    "14": NO_TEXTS,
}
RATINGS = [("7", "11", 4, 20), ("7", "12", 5, 10), ("7", "13", 1, 30), ("7", "14", 2, 25), ("8", "11", 3, 5)]


def rating_lines(separator, header=""):
    return header + "".join(separator.join(map(str, row)) + "\n" for row in RATINGS)


def u_item(flagged):
    return "|".join("1" if place in flagged else "0" for place in range(19))


MOVIES_CSV = (
    'movieId,title,genres\n11,"Caf\u00e9, The (1995)",Comedy|Drama\n12,Iron Tide (1996),War\n'
    "13,Blank Page (1997),Children's\n"
)
PRODUCTS = {
    "11": ("Soap", "Suds & Co", ["Beauty", "Bath"], "Washes. Twice."),
    "12": ("Brush", None, ["Beauty"], None),
    "13": NO_TEXTS,
    "14": NO_TEXTS,
}


def amazon_2023(category):
    text = lines(
        *(
            {
                "rating": float(rating),
                "title": "So so",
                "text": "It is\nwhat it is",
                "images": [],
                "asin": f"variant-{item}",
                "parent_asin": item,
                "user_id": user,
                "timestamp": (SECONDS + time) * 1000 + 123,
                "helpful_vote": 0,
                "verified_purchase": True,
            }
            for user, item, rating, time in RATINGS
        )
    )
    meta = lines(
        {
            "main_category": "All Beauty",
            "title": "Soap",
            "features": [],
            "description": ["Washes.", "Twice."],
            "price": 3.5,
            "store": "Suds & Co",
            "categories": ["Beauty", "Bath"],
            "parent_asin": "11",
        },
        {
            "title": "Brush",
            "description": [],
            "price": None,
            "store": None,
            "categories": ["Beauty"],
            "parent_asin": "12",
        },
    )
    return {f"raw/review_categories/{category}.jsonl.gz": text, f"raw/meta_categories/meta_{category}.jsonl.gz": meta}


SAMPLES = {
    "movielens-100k": Sample(
        archive="ml-100k.zip",
        files={
            "ml-100k/u.data": rating_lines("\t"),
            "ml-100k/u.item": (
                f"11|Caf\u00e9, The (1995)|01-Jan-1995||http://nowhere/?11|{u_item((5, 8))}\n"
                f"12|Iron Tide (1996)|01-Jan-1996||http://nowhere/?12|{u_item((17,))}\n"
                f"13|Blank Page (1997)|||http://nowhere/?13|{u_item((4,))}\n"
            ).encode("latin-1"),
            "ml-100k/README": "not wanted",
        },
        items=MOVIES,
    ),
    "movielens-1m": Sample(
        archive="ml-1m.zip",
        files={
            "ml-1m/ratings.dat": rating_lines("::"),
            "ml-1m/movies.dat": (
                "11::Caf\u00e9, The (1995)::Comedy|Drama\n12::Iron Tide (1996)::War\n"
                "13::Blank Page (1997)::Children's\n"
            ).encode("latin-1"),
        },
        items=MOVIES,
    ),
    **{
        f"movielens-{size}": Sample(
            archive=f"ml-{size}.zip",
            files={
                f"ml-{size}/ratings.csv": rating_lines(",", "userId,movieId,rating,timestamp\n"),
                f"ml-{size}/movies.csv": MOVIES_CSV,
            },
            items=MOVIES,
        )
        for size in ("20m", "32m")
    },
    "amazon-2014:beauty": Sample(
        files={
            "reviews_Beauty_5.json.gz": lines(
                *(
                    {
                        "reviewerID": user,
                        "asin": item,
                        "reviewerName": "A. N.",
                        "helpful": [0, 0],
                        "reviewText": "Fine.",
                        "overall": float(rating),
                        "summary": "Fine",
                        "unixReviewTime": SECONDS + time,
                        "reviewTime": "09 13, 2020",
                    }
                    for user, item, rating, time in RATINGS
                )
            ),
            "meta_Beauty.json.gz": literals(
                {
                    "asin": "11",
                    "title": "Soap",
                    "brand": "Suds & Co",
                    "categories": [["Beauty", "Bath"]],
                    "description": "Washes. Twice.",
                },
                {"asin": "12", "title": "Brush", "categories": [["Beauty"]], "salesRank": {"Beauty": 9}},
            ),
        },
        items=PRODUCTS,
    ),
    "amazon-2023:all_beauty": Sample(files=amazon_2023("All_Beauty"), items=PRODUCTS),
    "amazon-2023:unknown": Sample(files=amazon_2023("Unknown"), items=PRODUCTS),
    "steam": Sample(
        files={
            "steam_reviews.json.gz": literals(
                *(
                    {
                        "username": user,
                        "hours": 1.5,
                        "products": 3,
                        "product_id": item,
                        "page_order": 0,
                        "date": f"2017-12-{time:02}",
                        "text": "It's \u201cgood\u201d\n",
                        "early_access": False,
                        "page": 1,
                        **({"user_id": "76561198000000000"} if user == "7" else {}),
                    }
                    for user, item, _, time in RATINGS
                )
            ),
            "steam_games.json.gz": literals(
                {"app_name": "Dig!", "title": "Dig", "developer": "Moles", "genres": ["Action", "Indie"], "id": "11"},
                {"app_name": "Untitled", "price": 4.99, "id": "12", "early_access": False},
                {"app_name": "Without an id", "publisher": "Nobody"},
            ),
        },
        items={
            "11": ("Dig!", "Moles", ["Action", "Indie"], None),
            "12": ("Untitled", None, None, None),
            "13": NO_TEXTS,
            "14": NO_TEXTS,
        },
    ),
    "gowalla": Sample(
        files={
            "loc-gowalla_totalCheckins.txt.gz": "".join(
                f"{user}\t2010-10-19T23:55:{time:02}Z\t30.25\t-97.75\t{item}\n" for user, item, _, time in RATINGS
            )
        }
    ),
    "retailrocket": Sample(
        files={
            "events.csv": "timestamp,visitorid,event,itemid,transactionid\n"
            + "".join(
                f"{(SECONDS + time) * 1000},{user},{event},{item},{'9' if event == 'transaction' else ''}\n"
                for (user, item, _, time), event in zip(
                    RATINGS, ("addtocart", "addtocart", "transaction", "transaction", "view"), strict=True
                )
            )
        }
    ),
    "yelp": Sample(
        files={
            "yelp_academic_dataset_review.json": lines(
                *(
                    {"user_id": user, "business_id": item, "stars": rating, "date": f"2018-07-07 22:09:{time:02}"}
                    for user, item, rating, time in RATINGS
                )
            ),
            "yelp_academic_dataset_business.json": lines(
                {"business_id": "11", "name": "Noodles", "categories": "Food, Restaurants"},
                {"business_id": "12", "name": "Saws", "categories": None},
            ),
        },
        items={
            "11": ("Noodles", None, ["Food", "Restaurants"], None),
            "12": ("Saws", None, None, None),
            "13": NO_TEXTS,
            "14": NO_TEXTS,
        },
    ),
}
