"""How `millpond embed-dataset` works: rows in blocks, each block a file of vectors, here or on a Ray cluster."""
