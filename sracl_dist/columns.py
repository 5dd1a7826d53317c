"""The only spelling of table columns, and of the padding id.

`user` and `item` are dense integers inside the pipeline; `user_id` and `item_id` are the user's own strings.
"""

PAD = 0
"""Item id that stands for "no item"; real items are 1..V."""
MISSING = -1
"""Key of a neighbour that does not exist, where there are fewer than k others."""

# Ids
USER = "user"
ITEM = "item"
USER_ID = "user_id"
ITEM_ID = "item_id"

# Interaction log
TIME = "time"
RATING = "rating"
EVENT = "event"

# Item texts
TITLE = "title"
BRAND = "brand"
CATEGORIES = "categories"
DESCRIPTION = "description"
TEXT_COLUMNS = (TITLE, BRAND, CATEGORIES, DESCRIPTION)

# Table `items`
NUM_INTERACTIONS = "num_interactions"
NUM_TRAIN_INTERACTIONS = "num_train_interactions"

# Table `sequences`
ITEMS = "items"
TIMES = "times"
NUM_TRAIN = "num_train"
NUM_VALIDATION = "num_validation"

# Table `rejects`
SOURCE = "source"
ROW = "row"
REASON = "reason"
VALUE = "value"

# Tables `items` and `users` of profile; `key` is the dense id of the item or user
KEY = "key"
PROMPT_HASH = "prompt_hash"
TEXT = "text"
FINISH_REASON = "finish_reason"
NUM_PROMPT_TOKENS = "num_prompt_tokens"
NUM_OUTPUT_TOKENS = "num_output_tokens"
MODEL = "model"
ERROR = "error"
ATTEMPT = "attempt"
FLAWS = "flaws"

# Tables of embed and neighbours
VECTOR = "vector"
HAS_PROFILE = "has_profile"
NEIGHBOURS = "neighbours"
SCORES = "scores"

# Table `ranks`
TARGET = "target"
RANK_SEEN_KEPT = "rank_seen_kept"
RANK_SEEN_REMOVED = "rank_seen_removed"

# Table `recommendations`
ITEM_IDS = "item_ids"
