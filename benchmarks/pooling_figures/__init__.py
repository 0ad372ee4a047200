"""The figures of docs/pooling.md: what each strategy keeps and loses. `python -m benchmarks.pooling_figures`."""
