"""Converted encoders: the states of PyTorch, or none at all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from service.checkpoint import read_checkpoint
from service.encoder.loading import load_module
from service.encoder.runtimes.machine import has_native_bf16
from service.encoder.runtimes.openvino import (
    GRAPH,
    ConversionError,
    OpenVINORuntime,
    convert,
    is_installed,
    save,
)
from service.errors import CheckpointError, ConfigError
from tests.support.checkpoints import (
    TEXTS,
    close,
    embed,
    plain_bert,
    plain_gpt2,
    plain_llama,
    plain_roberta,
    plain_t5,
    served,
)
from tests.support.tiers import first_fast

pytestmark = pytest.mark.skipif(not is_installed(), reason="the extra 'openvino' is not installed")


@pytest.mark.parametrize("make", first_fast([plain_bert, plain_roberta, plain_llama, plain_gpt2, plain_t5]))
def test_an_architecture_gives_the_same_vectors_as_on_torch(make, tmp_path):
    folder = make(tmp_path / "model")
    with (
        served(folder, pooling="mean") as wanted,
        served(folder, pooling="mean", runtime={"backend": "openvino", "threads": 2}) as found,
    ):
        assert found.get(None).encoder.runtime.backend == "openvino"
        assert close(embed(found, TEXTS), embed(wanted, TEXTS))
        for text in TEXTS:  # alone, over all cores
            assert close(embed(found, [text]), embed(wanted, [text]))
        assert found.get(None).fingerprint == wanted.get(None).fingerprint


def test_results_are_not_overwritten_by_the_next_pass(tmp_path):
    folder = plain_bert(tmp_path / "model")
    settings = {"pooling": "cls", "normalize": False, "runtime": {"backend": "openvino"}}
    with served(folder, **settings) as models:
        first = embed(models, TEXTS[:1])
        kept = first.copy()
        embed(models, TEXTS[1:2])
        assert np.array_equal(first, kept)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all threads of a process have one priority")
def test_the_threads_that_compute_yield_to_those_that_answer(tmp_path):
    here, tasks = os.nice(0), Path("/proc/self/task")
    before = set(tasks.iterdir())
    with served(
        plain_bert(tmp_path / "model"), pooling="mean", runtime={"backend": "openvino", "threads": 2}
    ) as models:
        embed(models, TEXTS)
        started = [int(task.name) for task in set(tasks.iterdir()) - before]
        python = {thread.native_id: thread.name for thread in threading.enumerate()}
        priorities = {thread: os.getpriority(os.PRIO_PROCESS, thread) for thread in started}
        assert all(priorities[thread] == here for thread in python.keys() & priorities.keys())
        assert sum(priorities[thread] > here for thread in priorities.keys() - python.keys()) >= 2
    assert os.nice(0) == here


@pytest.mark.slow
def test_a_second_start_uses_the_cached_graph(tmp_path, caplog):
    caplog.set_level("INFO")
    folder = plain_bert(tmp_path / "model")
    runtime = {"backend": "openvino", "cache": tmp_path / "cache"}
    with served(folder, pooling="mean", runtime=runtime) as models:
        wanted = embed(models, TEXTS)
    assert "converting" in caplog.text
    caplog.clear()
    with served(folder, pooling="mean", runtime=runtime) as models:
        assert np.array_equal(embed(models, TEXTS), wanted)
    assert "converting" not in caplog.text


@pytest.mark.slow
def test_a_damaged_graph_is_converted_again(tmp_path, caplog):
    caplog.set_level("INFO")
    folder = plain_bert(tmp_path / "model")
    runtime = {"backend": "openvino", "cache": tmp_path / "cache"}
    with served(folder, pooling="mean", runtime=runtime) as models:
        wanted = embed(models, TEXTS)
    weights = next((tmp_path / "cache").glob("graph-*/graph.bin"))
    weights.write_bytes(weights.read_bytes()[:-100] + b"\1" * 100)
    with served(folder, pooling="mean", runtime=runtime) as models:
        assert np.array_equal(embed(models, TEXTS), wanted)
    assert "is damaged and is made anew" in caplog.text


@pytest.mark.slow
def test_other_weights_are_another_graph(tmp_path):
    folder = plain_bert(tmp_path / "model")
    runtime = {"backend": "openvino", "cache": tmp_path / "cache"}
    with served(folder, pooling="mean", runtime=runtime) as models:
        before = embed(models, TEXTS)
    plain_bert(folder, initializer_range=0.03)
    with (
        served(folder, pooling="mean", runtime=runtime) as models,
        served(folder, pooling="mean") as wanted,
    ):
        assert not close(embed(models, TEXTS), before)
        assert close(embed(models, TEXTS), embed(wanted, TEXTS))


class Branching(torch.nn.Module):
    """Takes another way for longer texts, which a trace of a short one does not see."""

    def __init__(self, module):
        super().__init__()
        self.module, self.config = module, module.config

    def forward(self, input_ids, attention_mask):
        output = self.module(input_ids=input_ids, attention_mask=attention_mask)
        if input_ids.shape[1] > 10:
            output.last_hidden_state = output.last_hidden_state * 2
        return output


def test_a_graph_that_gives_other_states_is_refused(tmp_path):
    module = load_module(read_checkpoint(str(plain_bert(tmp_path / "model"))), torch.float32)
    with pytest.raises(ConversionError, match="its states differ"):
        convert(Branching(module))


class Unconvertible(Branching):
    def forward(self, input_ids, attention_mask):
        raise ValueError("no tracing here")


def test_an_architecture_that_does_not_trace_is_a_conversion_error(tmp_path):
    module = load_module(read_checkpoint(str(plain_bert(tmp_path / "model"))), torch.float32)
    with pytest.raises(ConversionError, match="no tracing here"):
        convert(Unconvertible(module))


@pytest.fixture
def unconvertible(tmp_path):
    """A checkpoint whose own modelling code works, but not under tracing."""
    folder = plain_bert(tmp_path / "model")
    (folder / "modeling_odd.py").write_text(
        "import torch\n"
        "from transformers import BertModel, BertConfig\n"
        "class OddConfig(BertConfig):\n"
        "    model_type = 'odd'\n"
        "class OddModel(BertModel):\n"
        "    config_class = OddConfig\n"
        "    def forward(self, *args, **kwargs):\n"
        "        if torch.jit.is_tracing():\n"
        "            raise RuntimeError('this one cannot be traced')\n"
        "        return super().forward(*args, **kwargs)\n"
    )
    from tests.support.checkpoints import edit

    names = {"AutoConfig": "modeling_odd.OddConfig", "AutoModel": "modeling_odd.OddModel"}
    edit(folder / "config.json", model_type="odd", auto_map=names)
    return folder


def test_auto_serves_on_torch_what_does_not_convert(unconvertible):
    settings = {"pooling": "mean", "trust_remote_code": True}
    with served(unconvertible, runtime={"backend": "auto"}, **settings) as models:
        encoder = models.get(None).encoder
        assert encoder.runtime.backend == "torch"
        assert "does not convert" in encoder.runtime_reason
        assert "cannot be traced" in encoder.runtime_reason
        assert np.isfinite(embed(models, TEXTS)).all()


def test_int8_of_what_does_not_convert(unconvertible):
    runtime = {"backend": "auto", "precision": "int8"}
    with (
        pytest.raises(CheckpointError, match=r"does not convert: .*cannot be traced.*Set runtime\.precision to auto"),
        served(unconvertible, pooling="mean", trust_remote_code=True, runtime=runtime),
    ):
        pass


def test_a_backend_asked_for_by_name_is_not_replaced(unconvertible):
    settings = {"pooling": "mean", "trust_remote_code": True}
    with (
        pytest.raises(CheckpointError, match=r"does not convert to OpenVINO.*runtime\.backend to torch"),
        served(unconvertible, runtime={"backend": "openvino"}, **settings),
    ):
        pass


def test_auto_picks_openvino_and_says_why(tmp_path):
    with served(plain_bert(tmp_path / "model"), pooling="mean", runtime={"backend": "auto"}) as models:
        encoder = models.get(None).encoder
        assert encoder.runtime.backend == "openvino"
        assert "OpenVINO is installed" in encoder.runtime_reason


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ({"precision": "fp16", "backend": "auto"}, "fp16 is for device: cuda"),
        ({"backend": "openvino", "device": "cuda"}, "openvino runs on the CPU"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(tmp_path, runtime, message):
    with (
        pytest.raises(ConfigError, match=message),
        served(plain_bert(tmp_path / "m"), pooling="mean", runtime=runtime),
    ):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(tmp_path):
    runtime = {"device": "cuda", "backend": "auto", "precision": "auto"}
    with (
        pytest.raises(ConfigError, match=r"sees no GPU.*device: cpu"),
        served(plain_bert(tmp_path / "m"), pooling="mean", runtime=runtime),
    ):
        pass


@pytest.mark.skipif(has_native_bf16(), reason="this processor has bf16")
def test_bf16_where_the_processor_has_none(tmp_path, caplog):
    folder = plain_bert(tmp_path / "m")
    with (
        pytest.raises(ConfigError, match=r"needs a CPU with AVX512-BF16 or AMX.*Use auto or fp32"),
        served(folder, pooling="mean", runtime={"backend": "auto", "precision": "bf16"}),
    ):
        pass
    with served(folder, pooling="mean", runtime={"backend": "auto", "precision": "auto"}) as models:
        assert models.get(None).encoder.runtime.precision == "fp32"
    with served(folder, pooling="mean", runtime={"backend": "torch", "precision": "bf16"}) as models:
        assert "slower than with fp32" in caplog.text
        assert np.isfinite(embed(models, TEXTS)).all()


@pytest.mark.slow
@pytest.mark.skipif(not has_native_bf16(), reason="this processor has no bf16")
def test_bf16_where_the_processor_has_it(tmp_path):
    folder = plain_bert(tmp_path / "m")
    with (
        served(folder, pooling="mean", runtime={"backend": "auto", "precision": "auto"}) as models,
        served(folder, pooling="mean") as wanted,
    ):
        assert models.get(None).encoder.runtime.precision == "bf16"
        assert close(embed(models, TEXTS), embed(wanted, TEXTS), 0.02)


def taken_mb() -> float:
    """Resident memory of this process but for files, of which the system keeps as much as it likes."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1000


@pytest.fixture(scope="module")
def one_stream(minilm, tmp_path_factory) -> OpenVINORuntime:
    folder = tmp_path_factory.mktemp("graph")
    save(convert(load_module(read_checkpoint(str(minilm)), torch.float32)), folder)
    runtime = OpenVINORuntime(folder / GRAPH, "fp32", threads=1)
    runtime.prepare_thread()
    return runtime


@pytest.mark.slow
def test_memory_is_bounded_over_many_shapes(one_stream):
    """Within the tokens of one batch, hundreds of shapes cost less than the weights do."""
    random = np.random.default_rng(0)

    def run(shapes: int) -> float:
        for _ in range(shapes):
            width = int(random.integers(2, 65))
            shape = (int(random.integers(1, max(2, 256 // width))), width)
            ids = random.integers(1000, 20000, shape)
            one_stream.states(ids, np.ones(shape, bool))
        return taken_mb()

    before = run(40)
    assert run(120) - before < 90


LEVEL = """
import sys
from pathlib import Path
import numpy as np
from service.encoder.runtimes.openvino import OpenVINORuntime
from tests.service.encoder.test_openvino import taken_mb
runtime = OpenVINORuntime(Path(sys.argv[1]), "fp32", threads=1)
runtime.prepare_thread()
def run(counts):
    for count in counts:
        runtime.states(np.full((count, 1), 2000), np.ones((count, 1), bool))
    return taken_mb()
run([600])
print(-run(range(1, 500)) + run(range(500, 600)))
"""


@pytest.mark.slow
def test_memory_is_level_once_passes_had_some_hundred_numbers_of_tokens(minilm, tmp_path):
    """What is compiled for a number of tokens is dropped again; all of it would take 17 MB for each 100, or 36.

    The latter with AVX-512. In a process of its own, since oneDNN asks how much it may keep when it is used first.
    """
    save(convert(load_module(read_checkpoint(str(minilm)), torch.float32)), tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LEVEL, str(tmp_path / GRAPH)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 8
