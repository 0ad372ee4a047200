"""Fits learned poolers over a frozen encoder, and exports the best one with the encoder as a model."""
