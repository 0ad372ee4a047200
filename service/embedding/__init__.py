"""Token states to vectors: recipes, embedders under their fingerprints, spans, and explanations."""
