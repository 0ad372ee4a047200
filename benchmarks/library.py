"""sentence-transformers as a library, `encode` over whole sets of texts.

    python -m benchmarks.library                        # its defaults
    python -m benchmarks.library FOLDER FILE.onnx       # its ONNX backend, in an environment that has optimum

`benchmarks.loop` drives it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from sentence_transformers import SentenceTransformer

from benchmarks.loop import bundled, serve_rounds


def main() -> None:
    if len(sys.argv) > 1:
        folder, file = sys.argv[1:]
        model = SentenceTransformer(folder, device="cpu", backend="onnx", model_kwargs={"file_name": file})
    else:
        model = SentenceTransformer(bundled(), device="cpu")

    def plan(texts: list[str]) -> Callable[[], object]:
        model.encode(texts[:64])
        return lambda: model.encode(texts)

    serve_rounds(plan)


if __name__ == "__main__":
    main()
