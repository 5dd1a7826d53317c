"""A small log that looks like a public one."""

from pathlib import Path

from synthetic import make_sequences


def write_beauty_log(folder: Path) -> None:
    """Write a log in the form of amazon-2014:beauty."""
    sequences = make_sequences(60, lengths=(6, 14))
    histories = [sequences.whole(user).tolist() for user in range(sequences.num_users)]
    rows = [f"{user}\t{item}\t{place}" for user, items in enumerate(histories) for place, item in enumerate(items)]
    (folder / "interactions.tsv").write_text("\n".join(["user_id\titem_id\tposition", *rows]) + "\n")
    items = [f"{item}\titem {item}\tbrand\ta|b" for item in range(1, sequences.num_items + 1)]
    (folder / "items.tsv").write_text("\n".join(["item_id\ttitle\tbrand\tcategories", *items]) + "\n")
