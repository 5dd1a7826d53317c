"""Measurements of this package's parts on the machine at hand, each against something measured in the same run.

A new one is a module with a function from a dataclass of settings to figures by name, and a line in BENCHES.
"""

BENCHES = {
    "evaluate": "sracl_dist.bench.evaluate:measure",
    "neighbours": "sracl_dist.bench.neighbours:measure",
    "profile": "sracl_dist.bench.profile:measure",
    "profile_scale": "sracl_dist.bench.profile_scale:measure",
    "prepare": "sracl_dist.bench.prepare:measure",
    "train": "sracl_dist.bench.train:measure",
    "train_catalogue": "sracl_dist.bench.train_catalogue:measure",
    "train_scaling": "sracl_dist.bench.train_scaling:measure",
    "train_workers": "sracl_dist.bench.train_workers:measure",
}
"""`module:function` by name; imported only when it is asked for."""
