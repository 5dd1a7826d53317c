"""SRA-CL at industrial scale: sequential recommenders trained with meaning, on Ray."""

__version__ = "0.1.0"
