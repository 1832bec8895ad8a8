"""What the evidence says: pure functions of arrays and frames, in float64. Definitions stand in `docs/measures.md`."""
