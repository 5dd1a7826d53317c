"""What decides the vectors and lies outside the run folder; light to import, because skipping a stage reads it."""

from sracl_dist.config import Config
from sracl_dist.data.sources import facts_of


def vector_facts(config: Config) -> dict[str, str]:
    """Sizes and times of the files with finished vectors, and the size of the sample where it decides the text."""
    facts = facts_of({"embed.items": config.embed.items, "embed.users": config.embed.users})
    return facts | ({"embed.meter_rows": str(config.embed.meter_rows)} if config.embed.text == "auto" else {})
