"""The meter within the stage embed: what the profiles of the run are worth, and which text is encoded."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sracl_dist.config.sections import EmbedConfig
from sracl_dist.meter.described import KINDS, Scene
from sracl_dist.meter.encoding import Spread, encode_all
from sracl_dist.meter.sample import connected_sample
from sracl_dist.meter.worth import RAW, as_table, choose, sentence
from sracl_dist.observe import say
from sracl_dist.profiles.table import read_profiles
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
    """What the stage has measured before, or has not to measure; None where it has to."""
    folder = run.stage("embed")
    if not settings.meter_rows:
        return {}
    if not folder.exists(METER_FILE):
        return None
    measured: dict[str, Any] = folder.read_json(METER_FILE)
    return measured


def measure_texts(settings: EmbedConfig, run: RunFolder, model: str, spread: Spread) -> dict[str, Any]:
    """Measure raw text, profile and both on a sample, choose for each kind, and keep the result in the stage's folder.

    Args:
        settings: of the stage.
        run: whose profiles are weighed.
        model: where the encoder is found.
        spread: runs the encoder on the cluster.
    """
    measured = _measure(settings, run, model, spread)
    run.stage("embed").write_json(METER_FILE, measured)
    if settings.text == AUTO:
        say(f"embed: {measured['why']}")
    return measured


def _measure(settings: EmbedConfig, run: RunFolder, model: str, spread: Spread) -> dict[str, Any]:
    sequences = load_sequences(run)
    sample = connected_sample(sequences, settings.meter_rows, SEED)
    if not sample.is_enough:
        why = f"{len(sample.items):,} items and {len(sample.users):,} users are too few to measure; raw text is taken"
        return {"chosen": dict.fromkeys(KINDS, RAW), "why": why}
    scene = Scene(run, sample, sequences, load_training_texts(run), settings.items_per_user)
    profiles = {kind: _profiles_of(run, kind, sample.keys(kind)) for kind in KINDS}
    ways = scene.weigh({"": profiles}, lambda texts: encode_all(texts, settings, model, spread))
    choice = {kind: choose(ways[kind]) for kind in KINDS}
    return {
        "num_rows": {kind: len(sample.keys(kind)) for kind in KINDS},
        "num_with_profile": {kind: sum(map(bool, profiles[kind])) for kind in KINDS},
        "table": {kind: as_table(kind, ways[kind]) for kind in KINDS},
        "chosen": {kind: chosen for kind, (chosen, _, _) in choice.items()},
        "why": sentence(choice),
    }


def _profiles_of(run: RunFolder, kind: str, keys: NDArray[np.int64]) -> list[str | None]:
    """Profiles of rising keys, without reading all that lies between them."""
    found: list[str | None] = []
    for span in np.split(keys, np.flatnonzero(np.diff(keys) > MAX_GAP) + 1):
        texts = read_profiles(run, kind, int(span[0]), int(span[-1]) + 1)
        found += [texts[key - span[0]] for key in span]
    return found
