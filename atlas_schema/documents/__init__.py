"""What is written down: typed models of every document kind. `schema.json` is generated from them."""
