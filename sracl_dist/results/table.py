"""The results as one Markdown page."""

from collections.abc import Callable, Iterable, Sequence

from sracl_dist.evaluate.metrics import METRICS
from sracl_dist.evaluate.paired import PROTOCOLS, PairedTest
from sracl_dist.observe import duration
from sracl_dist.results.collect import SLICE_METRICS, TESTED, Results, Spread, VariantResult
from sracl_dist.visible import visible

NONE = "-"
GROUPINGS = {
    "num_training_items": "by the number of training items of the user",
    "target_popularity": "by the popularity of the test item in training",
}
MEANINGS = {
    "target_popularity": "Head, middle and tail hold a third of all training interactions each, popular items first.",
}


def markdown(results: Results) -> str:
    """The whole page; a configuration without an outcome has its row, and the reasons stand at the end."""
    seeds = ", ".join(str(seed) for seed in results.seeds)
    deviation = ", +- their sample standard deviation" if len(results.seeds) > 1 else ""
    parts = [
        "# Results",
        f"Means over the seeds {seeds}{deviation}. Test items are ranked among the whole catalogue; ties count against "
        "us.",
        *(_metrics(results.variants, protocol) for protocol in PROTOCOLS),
        _training(results.variants),
        *([_tests(results)] if results.against is not None else []),
        *(
            _slices(results.variants, grouping, protocol)
            for grouping in _groupings(results.variants)
            for protocol in PROTOCOLS
        ),
        *_failures(results.variants),
    ]
    return "\n\n".join(parts) + "\n"


def _metrics(variants: Sequence[VariantResult], protocol: str) -> str:
    def row(variant: VariantResult) -> list[str]:
        values = variant.metrics.get(protocol, {})
        return [_spread(values.get(name), _metric) for name in METRICS]

    return f"## Test metrics, {_words(protocol)}\n\n" + _per_variant(variants, [name.upper() for name in METRICS], row)


def _training(variants: Sequence[VariantResult]) -> str:
    def row(variant: VariantResult) -> list[str]:
        counts = [_spread(value, "{:.1f}".format) for value in (variant.best_epoch, variant.num_epochs)]
        return [*counts, duration(variant.training_s.mean) if variant.training_s else NONE]

    return "## Training\n\n" + _per_variant(variants, ["best epoch", "epochs", "time of all epochs"], row)


def _tests(results: Results) -> str:
    parts = [
        visible(f"## Paired test against {results.against}"),
        "Difference of the means over users, each user's metric averaged over the seeds first; t-test over the pairs. "
        "Interval and p cover other users with these very trainings, not trainings with other seeds.",
    ]
    columns = [title for name in TESTED for title in (f"{name.upper()} difference", "95 % interval", "p")]
    others = [variant for variant in results.variants if variant.name != results.against]
    for protocol in PROTOCOLS:

        def row(variant: VariantResult, protocol: str = protocol) -> list[str]:
            tests = variant.tests.get(protocol, {})
            return [cell for name in TESTED for cell in _test_cells(tests.get(name))]

        parts.append(f"{_words(protocol).capitalize()}:\n\n{_per_variant(others, columns, row)}")
    return "\n\n".join(parts)


def _test_cells(test: PairedTest | None) -> list[str]:
    if test is None:
        return [NONE] * 3
    p = "<0.0001" if test.p_value < 0.0001 else f"{test.p_value:.4f}"
    return [f"{test.difference:+.4f}", f"{test.low:+.4f} to {test.high:+.4f}", p]


def _groupings(variants: Sequence[VariantResult]) -> list[str]:
    return list(dict.fromkeys(grouping for variant in variants for grouping in variant.slices))


def _slices(variants: Sequence[VariantResult], grouping: str, protocol: str) -> str:
    names = list(dict.fromkeys(group["name"] for variant in variants for group in variant.slices.get(grouping, [])))
    columns = [
        f"{_group_title(variants, grouping, name)} {metric.upper()}" for name in names for metric in SLICE_METRICS
    ]

    def row(variant: VariantResult) -> list[str]:
        groups = {group["name"]: group[protocol] for group in variant.slices.get(grouping, []) if group["num_users"]}
        return [_metric(groups[name][metric]) if name in groups else NONE for name in names for metric in SLICE_METRICS]

    title = f"## Slices {GROUPINGS.get(grouping, _words(grouping))}, {_words(protocol)}"
    meaning = [MEANINGS[grouping]] if grouping in MEANINGS else []
    return "\n\n".join([title, *meaning, _per_variant(variants, columns, row)])


def _group_title(variants: Sequence[VariantResult], grouping: str, name: str) -> str:
    """Name of the group, with its number of users where all configurations agree on it."""
    groups = (group for variant in variants for group in variant.slices.get(grouping, []) if group["name"] == name)
    sizes = {group["num_users"] for group in groups}
    return f"{name} ({sizes.pop():,} users)" if len(sizes) == 1 else name


def _failures(variants: Sequence[VariantResult]) -> list[str]:
    lines = [
        visible(f"* {variant.name}, seed {seed}: {reason}")
        for variant in variants
        for seed, reason in sorted(variant.failures.items())
    ]
    lines += [visible(f"* {variant.name}, not tested: {variant.untested}") for variant in variants if variant.untested]
    return ["## What is missing", "\n".join(lines)] if lines else []


def _per_variant(
    variants: Sequence[VariantResult], columns: Sequence[str], row: Callable[[VariantResult], list[str]]
) -> str:
    lines = [["configuration", "seeds", *columns], ["---", *["---:"] * (1 + len(columns))]]
    lines += [[variant.name, str(len(variant.outcomes)), *row(variant)] for variant in variants]
    return "\n".join(_line(cells) for cells in lines)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(visible(cell).replace("|", "\\|") for cell in cells) + " |"


def _spread(value: Spread | None, shown: Callable[[float], str]) -> str:
    if value is None:
        return NONE
    return shown(value.mean) if value.deviation is None else f"{shown(value.mean)} +- {shown(value.deviation)}"


def _metric(value: float) -> str:
    return f"{value:.4f}"


def _words(name: str) -> str:
    return {"seen_kept": "seen items kept", "seen_removed": "seen items removed"}.get(name, name.replace("_", " "))
