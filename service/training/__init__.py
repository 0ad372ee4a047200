"""Fits learned poolers over a frozen encoder, and saves the one worth having."""
