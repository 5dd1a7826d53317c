"""The meter's numbers and its verdict in words."""

from collections.abc import Mapping

from sracl_dist.meter.worth import NOT_SHARES, RAW, WAYS, Choice


def shown_number(measure: str, value: float | None) -> str:
    """A number of the table for a person: shares in percent, ranks and numbers of items with a decimal."""
    if value is None:
        return "\u2013"
    if measure in NOT_SHARES:
        return f"{value:.2f}" if measure != "median_rank" else f"{value:,.1f}"
    return f"{100 * value:.1f} %"


def sentence(choice: Mapping[str, Choice]) -> str:
    """Which text is taken and why, from what `choose` said of each kind."""
    return "; ".join(f"{kind} by {_reason(chosen)}" for kind, chosen in choice.items())


def in_words(way: str) -> str:
    """A way as a person would name it; the variant's name, which precedes the way's own, comes last."""
    name, _, own = way.rpartition(" ")
    return f"{WAYS[own]} of {name}" if name else WAYS[own]


def _reason(choice: Choice) -> str:
    taken = in_words(choice.way)
    if choice.because is not None:
        return f"{taken}, {choice.because}"
    points = f"{100 * choice.lead:+.2f} \u00b1 {100 * choice.error:.2f} points"
    if choice.way == RAW:
        return f"{taken}, as the overlap of the nearest is no clear gain with profiles ({points})"
    return f"{taken}, whose nearest overlap more than those of raw text ({points})"
