"""What the language model is asked, and how it runs."""

from dataclasses import dataclass, field
from typing import Any, Literal

from sracl_dist.config.sections.data import FileFormat, check_format
from sracl_dist.config.sections.endpoint import EndpointConfig
from sracl_dist.config.sections.fields import named_values, neutral, require, require_named_values

OWN_OPTIONS = (
    "conversation",
    "messages",
    "tools",
    "documents",
    "chat_template",
    "add_generation_prompt",
    "continue_final_message",
    "tokenize",
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "return_dict",
    "return_assistant_tokens_mask",
    "tokenizer_kwargs",
)
"""Arguments with which a tokenizer's chat template is called; only the program sets them."""


@dataclass(kw_only=True)
class ProfileFilesConfig:
    """profile.engine=file: profiles that were written elsewhere, one row per item or user; docs/models.md."""

    items: list[str] = field(default_factory=list)
    """Files or patterns with profiles of items: delimited text, JSON, Parquet; here or in s3:// and gs://."""
    users: list[str] = field(default_factory=list)
    """Files or patterns with profiles of users, as above."""
    item_id_column: str = "item_id"
    """Column with the item's id."""
    user_id_column: str = "user_id"
    """Column with the user's id."""
    text_column: str = "text"
    """Column with the profile, which is cleaned and cut to data.max_text_chars like an item text."""
    format: FileFormat = field(default_factory=FileFormat)
    """How text files of both are written."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        check_format("profile.files.format", self.format)


@dataclass(kw_only=True)
class ProfileConfig:
    """profile: a language model describes every item and every user, from training interactions only."""

    engine: Literal["vllm", "endpoint", "file"] = "vllm"
    """Who answers: vllm runs the model on this cluster, endpoint asks the server at profile.endpoint.url; file asks
    nobody and takes finished profiles from profile.files."""
    model: str = "package:smollm2-135m-instruct"
    """Hugging Face id, local folder, or `package:` and a name of docs/models.md; for an endpoint its name there."""
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    """Where and how an endpoint is asked."""
    files: ProfileFilesConfig = field(default_factory=ProfileFilesConfig)
    """Where finished profiles are."""
    item_template: str | None = None
    """File with the item prompt (YAML, see docs/models.md); null takes sracl_dist/profiles/templates/item.yaml."""
    user_template: str | None = None
    """File with the user prompt; null takes sracl_dist/profiles/templates/user.yaml."""
    chat_options: list[str] = field(default_factory=list)
    """Options of the model's chat template as NAME=JSON, for example [enable_thinking=false]; an endpoint is sent them
    as chat_template_kwargs."""
    max_items: int | None = None
    """Profile only this many items, the most frequent in training first; the others keep their raw text; null: all."""
    max_users: int | None = None
    """Profile only this many users, the longest training histories first; null: all."""
    histories_per_item: int = 10
    """Item prompt: how many training histories that contain the item are shown."""
    items_per_history: int = 10
    """Item prompt: how many items of each history are shown, those around the item first."""
    items_per_user: int = 50
    """User prompt: how many of the latest training items are shown."""
    max_prompt_tokens: int = 1024
    """Longest prompt, with the worked examples: the last of them are left out where they would take more than three
    quarters of it. Histories lose their oldest items and texts their ends until it fits, then further examples go."""
    max_output_tokens: int = 128
    """Longest answer."""
    temperature: float = 0.0
    """Sampling temperature; 0 takes the likeliest token."""
    repetition_penalty: float = 1.1
    """Above 1 discourages loops, which small models fall into at temperature 0."""
    max_failed_share: float = 0.02
    """The stage fails when a larger share of the prompts has no usable answer."""
    retries: int = 1
    """How often a prompt without a usable answer is asked again in the same run, at a temperature of at least 0.7."""
    max_attempts: int = 4
    """A prompt that has failed so often, in this run and earlier ones, is not asked again and keeps its last error."""
    stall_timeout_s: float = neutral(1800.0)
    """The stage ends when no answer arrives for so long, the start of the engine included."""
    stop: list[str] = field(default_factory=list)
    """An answer ends behind the first of these texts, for example [". "] for one sentence; empty: the model ends it."""
    dtype: str = "auto"
    """Number format of the weights: bfloat16, float16, float32, or auto: on a GPU the model's own where the GPU has it,
    on a CPU bfloat16, or float32 where that is a hundred times as fast."""
    num_replicas: int = neutral(1)
    """Engines that run side by side."""
    gpus_per_replica: int = neutral(1)
    """GPUs of one engine (tensor parallel) where the cluster has GPUs."""
    cpus_per_replica: int | None = neutral(None)
    """CPU cores of one engine where the cluster has no GPU; null divides the cores of the node."""
    batch_rows: int = neutral(64)
    """Prompts handed to an engine at a time."""
    max_running_prompts: int = neutral(256)
    """Prompts that one engine decodes together."""
    kv_cache_gib: int = neutral(2)
    """Memory of an engine's key-value cache on CPU, in whole GiB."""
    commit_interval_s: float = neutral(5.0)
    """Finished answers reach the disk about this often; a kill also loses what the engines are working on."""

    def options_of_chat(self) -> dict[str, Any]:
        """`chat_options` as names and values."""
        return named_values(self.chat_options)

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("max_items", "max_users"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"profile.{name}", value, "use 0 or more, or null for all")
            is_used = value is None or self.engine != "file"
            require(is_used, f"profile.{name}", value, "use null with profile.engine=file, and shorter files")
        for name in (
            "items_per_history",
            "items_per_user",
            "max_output_tokens",
            "max_attempts",
            "num_replicas",
            "gpus_per_replica",
            "batch_rows",
            "max_running_prompts",
            "kv_cache_gib",
        ):
            require(getattr(self, name) >= 1, f"profile.{name}", getattr(self, name), "use 1 or more")
        require(self.histories_per_item >= 0, "profile.histories_per_item", self.histories_per_item, "use 0 or more")
        require(self.max_prompt_tokens >= 64, "profile.max_prompt_tokens", self.max_prompt_tokens, "use 64 or more")
        require(self.temperature >= 0, "profile.temperature", self.temperature, "use 0 or more")
        require(self.repetition_penalty > 0, "profile.repetition_penalty", self.repetition_penalty, "use above 0")
        require(self.retries >= 0, "profile.retries", self.retries, "use 0 or more")
        stall_s = self.stall_timeout_s
        require(0 < stall_s <= 1e6, "profile.stall_timeout_s", stall_s, "use seconds above 0, up to 1000000")
        if self.engine == "endpoint":
            longest_s = self.endpoint.longest_wait_s
            patient = stall_s > longest_s
            require(patient, "profile.stall_timeout_s", stall_s, f"use more than the endpoint's waits of {longest_s:g}")
        require(0 <= self.max_failed_share <= 1, "profile.max_failed_share", self.max_failed_share, "use 0 to 1")
        require_named_values(self.chat_options, "profile.chat_options", OWN_OPTIONS, example="enable_thinking=false")
        formats = ("auto", "bfloat16", "float16", "float32")
        require(self.dtype in formats, "profile.dtype", self.dtype, f"use one of {', '.join(formats)}")
        if self.engine == "endpoint":
            url, model = self.endpoint.url, self.model
            require(
                bool(url), "profile.endpoint.url", url, "name the server's address, such as http://localhost:8000/v1"
            )
            served = not model.startswith("package:")
            require(served, "profile.model", model, "use the model's name on the server with profile.engine=endpoint")
