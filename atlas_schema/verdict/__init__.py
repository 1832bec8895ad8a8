"""What follows: predicates and verdicts, as Kleene logic over decided cells."""
