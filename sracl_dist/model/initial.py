"""Where weights begin."""

INITIAL_STD = 0.02
"""Standard deviation of initial weights, as in BERT and in RecBole, on which the reference builds."""
