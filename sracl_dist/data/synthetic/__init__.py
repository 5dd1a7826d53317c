"""The parts of a generated log: its settings, users and items, events, and the texts of the items."""
