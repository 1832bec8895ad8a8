"""How an outcome is shown: pure renderers of a report. They import outcome types and nothing else."""
