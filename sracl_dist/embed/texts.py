"""Which text stands for an item or a user."""

from sracl_dist.profiles.texts import TrainingTexts


def text_of(texts: TrainingTexts, kind: str, key: int, profile: str | None, choice: str, items_per_user: int) -> str:
    """The text that is encoded for an item or a user.

    Args:
        texts: what the user's own data say.
        kind: `items` or `users`.
        key: of the item or user.
        profile: None where there is none; then the raw text is taken.
        choice: `raw`, `profile` or `raw_and_profile`.
        items_per_user: how many of a user's latest training items its raw text has.
    """
    return text_to_embed(*_before_and_behind(texts, kind, key, items_per_user), profile, choice)


def text_to_embed(before: str, behind: str, profile: str | None, choice: str) -> str:
    """The chosen text: raw, a profile, or both with the profile between what is short and what is long.

    The encoder cuts a text at its end, so what may fill the whole length is last.
    """
    if choice == "profile" and profile:
        return profile
    text = before
    for part in (profile if choice == "raw_and_profile" else None, behind):
        if text and part:
            text += " " if text.endswith((".", "!", "?")) else ". "
        text += part or ""
    return text


def _before_and_behind(texts: TrainingTexts, kind: str, key: int, items_per_user: int) -> tuple[str, str]:
    """The raw text in two: what is short, and what may fill the whole length, a history with its newest item first."""
    if kind == "items":
        item = texts.item(key)
        return item.line, item.description
    latest = texts.history(key)[-items_per_user:]
    return "", ". ".join(texts.item(item).line for item in reversed(latest))
