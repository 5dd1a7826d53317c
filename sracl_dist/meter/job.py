"""The meter within the stage embed: what the profiles of the run are worth, and which text is encoded."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sracl_dist.config import Config
from sracl_dist.config.sections import EmbedConfig
from sracl_dist.embed.workers import Spread
from sracl_dist.meter.described import MeteredSample, Shown
from sracl_dist.meter.encoding import encode_all
from sracl_dist.meter.sample import connected_sample
from sracl_dist.meter.wording import sentence
from sracl_dist.meter.worth import RAW, as_table
from sracl_dist.observe import say
from sracl_dist.profiles.table import KINDS, read_profiles
from sracl_dist.profiles.texts import load_training_texts
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import load_sequences

METER_FILE = "meter.json"
"""Within the stage's folder, where it is before any shard, so that a resumed stage encodes the same text."""
SEED = 0
AUTO = "auto"
MAX_GAP = 4096
"""Keys that are read in vain between two wanted ones rather than opening the table again."""


def texts_to_take(settings: EmbedConfig, measured: dict[str, Any]) -> dict[str, str]:
    """Which text is encoded, by kind: as configured, or with `auto` as the meter chose."""
    chosen: dict[str, str] = measured["chosen"] if settings.text == AUTO else dict.fromkeys(KINDS, settings.text)
    return chosen


def stored_measures(settings: EmbedConfig, run: RunFolder) -> dict[str, Any] | None:
    """What the stage has measured before, or nothing where it need not measure; None where it must."""
    folder = run.stage("embed")
    if not settings.meter_rows:
        return {}
    if not folder.exists(METER_FILE):
        return None
    measured: dict[str, Any] = folder.read_json(METER_FILE)
    return measured


def measure_texts(config: Config, run: RunFolder, model: str, kinds: Sequence[str], spread: Spread) -> dict[str, Any]:
    """Measure raw text, profile and both on a sample, choose for each kind, and keep the result in the stage's folder.

    Args:
        config: of the run.
        run: whose profiles are measured.
        model: where the encoder is found.
        kinds: those that are encoded; of others there are finished vectors.
        spread: runs the encoder on the cluster.
    """
    measured = _measure(config, run, model, kinds, spread)
    run.stage("embed").write_json(METER_FILE, measured)
    if config.embed.text == AUTO:
        say(f"embed: {measured['why']}")
    return measured


def _measure(config: Config, run: RunFolder, model: str, kinds: Sequence[str], spread: Spread) -> dict[str, Any]:
    settings, sequences = config.embed, load_sequences(run)
    sample = connected_sample(sequences, settings.meter_rows, SEED)
    if not sample.is_enough(kinds):
        rows = " and ".join(f"{len(sample.keys(kind)):,} {kind}" for kind in kinds)
        why = f"{rows} with training interactions are too few to measure"
        why += "; raw text is taken" if settings.text == AUTO else ""
        return {"chosen": dict.fromkeys(kinds, RAW), "why": why}
    texts = load_training_texts(run)
    metered = MeteredSample(run, sample, sequences, texts, settings.items_per_user, Shown.of([config]), kinds)
    profiles = {kind: _profiles_of(run, kind, sample.keys(kind)) for kind in kinds}
    ways = metered.measure({"": profiles}, lambda texts: encode_all(texts, settings, model, spread))
    choices = metered.choose(ways)
    return {
        "num_rows": {kind: len(sample.keys(kind)) for kind in kinds},
        "num_with_profile": {kind: sum(map(bool, profiles[kind])) for kind in kinds},
        "num_left": metered.num_left(),
        "table": {kind: as_table(kind, ways[kind]) for kind in kinds},
        "chosen": {kind: choice.way for kind, choice in choices.items()},
        "why": sentence(choices),
    }


def _profiles_of(run: RunFolder, kind: str, keys: NDArray[np.int64]) -> list[str | None]:
    """Profiles of rising keys, without reading all that lies between them."""
    found: list[str | None] = []
    for span in np.split(keys, np.flatnonzero(np.diff(keys) > MAX_GAP) + 1):
        texts = read_profiles(run, kind, int(span[0]), int(span[-1]) + 1)
        found += [texts[key - span[0]] for key in span]
    return found
