"""The most that PyTorch gives on this machine: a loop over token ids, sorted by length and batched by tokens.

Its argument is the number of streams: 1 over all cores, or one a core.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable

import torch
from transformers import AutoModel, AutoTokenizer

from benchmarks.loop import bundled, serve_rounds

BATCH_TOKENS = 1024


def prepare(texts: list[str]) -> Callable[[], None]:
    """Tokenize, sort and batch; the loop that is timed only infers and pools."""
    streams = int(sys.argv[1])
    tokenizer = AutoTokenizer.from_pretrained(bundled())
    model = AutoModel.from_pretrained(bundled()).eval()
    ids = sorted(tokenizer(texts, truncation=True, max_length=256)["input_ids"], key=len, reverse=True)
    batches = []
    while ids:
        count = max(1, BATCH_TOKENS // len(ids[0]))
        batches.append(tokenizer.pad({"input_ids": ids[:count]}, return_tensors="pt"))
        ids = ids[count:]

    def work(waiting: queue.SimpleQueue[dict[str, torch.Tensor]]) -> None:
        if streams > 1:
            torch.set_num_threads(1)
        with torch.inference_mode():
            while not waiting.empty():
                try:
                    batch = waiting.get_nowait()
                except queue.Empty:
                    return
                states = model(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(2)
                torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy()

    def run() -> None:
        waiting: queue.SimpleQueue[dict[str, torch.Tensor]] = queue.SimpleQueue()
        for batch in batches:
            waiting.put(batch)
        threads = [threading.Thread(target=work, args=(waiting,)) for _ in range(streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


if __name__ == "__main__":
    serve_rounds(prepare)
