"""Transcription: raw output of a model in, a measurement draft out. What can be computed is; judgements stay blank."""
