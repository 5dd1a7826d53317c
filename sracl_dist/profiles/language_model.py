"""What the driver needs of the language model: its tokenizer, how long its texts may be, and how its answers end."""

from typing import Any

from sracl_dist.config.sections import ProfileConfig
from sracl_dist.errors import SetupError
from sracl_dist.profiles.chat import EstimatedTokens
from sracl_dist.profiles.models import loading_errors, resolve_model


def model_and_tokenizer(settings: ProfileConfig) -> tuple[str, Any]:
    """The model where the engine finds it, and what measures prompts; an endpoint keeps both to itself.

    Raises:
        SetupError: the model cannot be loaded, or reads less than prompts and answers are long.
    """
    if settings.engine == "endpoint":
        return settings.model, EstimatedTokens()
    model = resolve_model(settings.model)
    _require_context(model, settings)
    return model, _load_tokenizer(model, settings.model)


def end_token_ids(model: str) -> set[int]:
    """Tokens that end an answer, by the model's own settings."""
    from transformers import GenerationConfig

    try:
        ends = GenerationConfig.from_pretrained(model).eos_token_id
    except OSError:
        return set()
    return set(ends) if isinstance(ends, list) else {ends}


def _load_tokenizer(model: str, name: str) -> Any:
    from transformers import AutoTokenizer

    with loading_errors(name, "profile.model"):
        return AutoTokenizer.from_pretrained(model, trust_remote_code=False)


def _require_context(model: str, settings: ProfileConfig) -> None:
    """Refuse prompts and answers that are together longer than the model reads."""
    from transformers import AutoConfig

    with loading_errors(settings.model, "profile.model"):
        own = AutoConfig.from_pretrained(model, trust_remote_code=False).get_text_config()
    longest = getattr(own, "max_position_embeddings", None)
    wanted = settings.max_prompt_tokens + settings.max_output_tokens
    if longest is not None and wanted > longest:
        raise SetupError(
            f"profile.max_prompt_tokens and profile.max_output_tokens are {wanted} together and {settings.model} reads "
            f"{longest}; lower one of them."
        )
