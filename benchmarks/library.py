"""`SentenceTransformer.encode` with its defaults."""

from __future__ import annotations

from collections.abc import Callable

from sentence_transformers import SentenceTransformer

from benchmarks.loop import bundled, serve_rounds


def prepare(texts: list[str]) -> Callable[[], object]:
    """Load the model; what is timed is `encode` alone."""
    model = SentenceTransformer(bundled(), device="cpu")
    model.encode(texts[:64])
    return lambda: model.encode(texts)


if __name__ == "__main__":
    serve_rounds(prepare)
