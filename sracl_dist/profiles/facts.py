"""What decides the profiles and lies outside the run folder; light to import, because skipping a stage reads it."""

from sracl_dist.config import Config
from sracl_dist.data.sources import facts_of
from sracl_dist.profiles.template import template_facts


def profile_facts(config: Config) -> dict[str, str]:
    """Hashes of the templates, or sizes and times of the files with finished profiles."""
    settings = config.profile
    if settings.engine != "file":
        return template_facts(config)
    return facts_of({"profile.files.items": settings.files.items, "profile.files.users": settings.files.users})
