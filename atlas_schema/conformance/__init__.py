"""Holding any verifier to the rules of this project, through its command line: a corpus of cases, and what drives it."""
