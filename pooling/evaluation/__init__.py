"""How good poolings are, and how sure that is."""
