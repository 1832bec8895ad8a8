"""How it is taken: the run log, whose steps are hash-chained and in order."""
