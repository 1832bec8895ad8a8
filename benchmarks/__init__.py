"""What verification costs, measured on generated evidence: ``make bench``."""
