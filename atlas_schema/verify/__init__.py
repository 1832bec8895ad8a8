"""Whether to believe a receipt: safe reading, a registry of rules, one module per channel, and a total outcome."""
