"""What a chat endpoint takes besides the messages, and the length of texts for it without the model's tokenizer."""

import re
from collections.abc import Sequence
from typing import Any

from sracl_dist.config.sections import ProfileConfig

Message = dict[str, str]
"""`role` (system, user or assistant) and `content`."""
PIECE = re.compile(r" ?[a-zA-Z]{1,5}|[0-9]{1,3}|\s+|[^\x00-\x7f]{1,2}|.", re.DOTALL)
"""About what a token of today's vocabularies holds; chosen to count rather too many tokens than too few."""
MESSAGE_TOKENS = 4
"""What a chat template puts around a message, about."""
CONTROL_TOKENS = re.compile(
    r"<[|\uff5c][^<>]{1,40}[|\uff5c]>"  # <|im_end|> and the wide bars of DeepSeek
    r"|</?s>|<[be]os>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|\[/?(?:AVAILABLE_TOOLS|SYSTEM_PROMPT)\]"
)
"""Control tokens of the usual chat templates; which of them the server's model has is not known here."""


def request_fields(config: ProfileConfig) -> dict[str, Any]:
    """Everything in a request besides the messages: what was asked, and so part of the prompt's hash.

    `profile.repetition_penalty` is no field of the protocol; many servers refuse fields that they do not know.
    """
    fields: dict[str, Any] = {
        "model": config.model,
        "temperature": config.temperature,
        "max_tokens": config.max_output_tokens,
    }
    if config.stop:
        fields["stop"] = config.stop
    added = config.endpoint.fields_to_add()
    options, own = config.options_of_chat(), added.get("chat_template_kwargs", {})
    fields |= added
    if options and isinstance(own, dict):
        fields["chat_template_kwargs"] = options | own
    return {name: value for name, value in fields.items() if value is not None}


class EstimatedTokens:
    """Takes the place of a tokenizer where there is none: as many tokens as the text has pieces, all of them 0."""

    chat_template = "the server's own"

    def __call__(self, text: str, **_settings: Any) -> dict[str, list[Any]]:
        """The estimated tokens and where in the text each lies, under the names that a tokenizer gives them."""
        places = [piece.span() for piece in PIECE.finditer(text)]
        return {"input_ids": [0] * len(places), "offset_mapping": places}

    def apply_chat_template(self, messages: Sequence[Message], **_settings: Any) -> list[int]:
        """Estimated tokens of the whole conversation."""
        num_tokens = sum(MESSAGE_TOKENS + len(self(message["content"])["input_ids"]) for message in messages)
        return [0] * (num_tokens + MESSAGE_TOKENS)
