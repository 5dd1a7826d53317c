"""The terms of the loss by name.

A new objective is a file with a subclass of `Objective`, a line in OBJECTIVES, and its name in OBJECTIVE_NAMES of
config/sections.py, which must not import torch to know it; a test holds the two equal.
"""

from sracl_dist.model.objectives.cross_sequence import CrossSequence
from sracl_dist.model.objectives.interface import Encoded, Objective, Views
from sracl_dist.model.objectives.intra_sequence import IntraSequence
from sracl_dist.model.objectives.next_item import NextItem
from sracl_dist.model.objectives.random_views import RandomViews
from sracl_dist.model.objectives.same_target import SameTarget

OBJECTIVES: dict[str, type[Objective]] = {
    "next_item": NextItem,
    "cross_sequence": CrossSequence,
    "intra_sequence": IntraSequence,
    "random_views": RandomViews,
    "same_target": SameTarget,
}

__all__ = ["OBJECTIVES", "Encoded", "Objective", "Views"]
