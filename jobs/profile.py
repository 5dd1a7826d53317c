"""profile: a language model describes every item and every user, from training interactions only.

What is committed is never asked again, whatever stops the stage. With --dry-run it asks nothing: it says how many
prompts there are, how many tokens and how much time they take, and shows three of them. With --trial it describes a
sample only, measures what that is worth, and says what everything would cost; --with compares other settings.

    python jobs/profile.py --config configs/demo.yaml
    python jobs/profile.py --config configs/mine.yaml --dry-run
    python jobs/profile.py --config configs/mine.yaml profile.max_items=100 profile.max_users=100
    python jobs/profile.py --config configs/mine.yaml --trial 500 --with "profile.model=Qwen/Qwen3-4B-Instruct-2507"
"""

import string
import sys
from collections.abc import Sequence

from sracl_dist.cli import stage_job
from sracl_dist.config import Config
from sracl_dist.run_folder import RunFolder


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; returns the exit status."""
    return stage_job("profile", __doc__, argv, dry_run=estimate, trial=try_out)


def estimate(config: Config, run: RunFolder) -> None:
    """What --dry-run does; imported only then, because the language model's libraries take seconds."""
    from sracl_dist.profiles.generate import estimate_profiles

    estimate_profiles(config, run)


def try_out(run: RunFolder, configs: Sequence[tuple[str, Config]], num_rows: int) -> None:
    """What --trial does; imported only then, too."""
    from sracl_dist.meter.trial import Variant, try_profiles

    variants = [
        Variant(name=string.ascii_uppercase[number % 26] + "'" * (number // 26), overrides=text, config=config)
        for number, (text, config) in enumerate(configs)
    ]
    try_profiles(run, variants, num_rows)


if __name__ == "__main__":
    sys.exit(main())
