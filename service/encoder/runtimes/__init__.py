"""What computes token states: one module a runtime."""
