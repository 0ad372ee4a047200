"""`millpond quantize`: int8 made ahead, measured, and kept."""

from __future__ import annotations

import re
import signal
import subprocess
import time

import pytest
import yaml

from service.encoder.quantization import calibration_texts
from service.encoder.runtimes.machine import int8_advice
from tests.support import checkpoints

from .conftest import COMMAND, ROOT

pytest.importorskip("nncf")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return checkpoints.plain_bert(tmp_path_factory.mktemp("checkpoint") / "bert")


@pytest.fixture
def deployment(tmp_path):
    """Writes a config whose cache is in the test's own folder."""

    def write(**encoders):
        path = tmp_path / "deployment.yaml"
        models = {name: {"encoder": str(encoder), "pooling": "mean"} for name, encoder in encoders.items()}
        runtime = {"cache": str(tmp_path / "cache")}
        path.write_text(yaml.safe_dump({"models": models, "runtime": runtime}))
        return path

    return write


def kept(tmp_path):
    """The quantised encoders in the cache, each with when it was made."""
    return {folder.name: folder.stat().st_mtime_ns for folder in (tmp_path / "cache").glob("int8-*")}


@pytest.mark.slow
def test_prints_the_agreement_and_keeps_the_result(millpond, deployment, bert, tmp_path):
    config = deployment(first=bert, second=bert)
    result = millpond("quantize", "--config", config)
    assert result.returncode == 0, result.stderr
    header, row, least = result.stdout.splitlines()
    assert re.split(r"  +", header) == [
        *("int8 against fp32", "runtime", "texts"),
        *("mean cosine", "least cosine", "rank correlation", "neighbours kept"),
    ]
    assert (int8_advice() or "") in result.stderr
    encoder, runtime, texts, *values = row.split()
    assert (encoder, runtime) == (str(bert), "openvino")
    assert int(texts) >= 50
    assert all(0 < bound <= value <= 1 for value, bound in zip(map(float, values), _numbers(least), strict=True))
    made = kept(tmp_path)
    assert len(made) == 1

    again = millpond("quantize", "-c", config, "--model", "second")
    assert (again.returncode, again.stdout) == (0, result.stdout)
    assert kept(tmp_path) == made


def _numbers(row):
    return [float(value) for value in row.removeprefix("at least").split()]


@pytest.mark.slow
def test_other_calibration_texts_give_another_result(millpond, deployment, bert, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(calibration_texts(None)[0][:90]), encoding="utf-8")
    config = deployment(default=bert)
    row = millpond("quantize", "-c", config, "--calibration", texts).stdout.splitlines()[1]
    assert row.split()[2] == "15"
    assert millpond("quantize", "-c", config).returncode == 0
    assert len(kept(tmp_path)) == 2


@pytest.mark.slow
def test_what_cannot_be_quantised(millpond, deployment, bert, tmp_path):
    config = deployment(default=bert)
    texts = tmp_path / "texts.txt"
    texts.write_text("one\ntwo\n")
    for arguments, message in (
        (("--calibration", texts), f"models.default: runtime.calibration: {texts}: holds 2 different texts"),
        (("--calibration", tmp_path / "none"), "there is no such file. Name one with a text a line"),
        (("--model", "defalt"), "--model defalt: the config names default. Did you mean 'default'?"),
    ):
        result = millpond("quantize", "-c", config, *arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("error: ")
        assert message in result.stderr


@pytest.mark.slow
def test_an_encoder_that_fails_does_not_stop_the_others(millpond, deployment, bert, tmp_path):
    other = checkpoints.plain_bert(tmp_path / "other")
    (other / "model.safetensors").write_bytes(b"damaged")
    result = millpond("quantize", "-c", deployment(first=other, second=bert))
    assert result.returncode == 2
    assert f"models.first: {other}" in result.stderr
    assert result.stdout.splitlines()[1].split()[0] == str(bert)
    assert len(kept(tmp_path)) == 1


@pytest.mark.slow
def test_interrupted_it_leaves_nothing(environment, deployment, minilm, tmp_path):
    config = deployment(default=minilm)
    process = subprocess.Popen(
        [*COMMAND, "quantize", "-c", str(config)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    with process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "cache").glob(".int8-*.part")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=60)
    # CPython ends by the signal itself if the interrupt passed through code that C runs; a shell shows 130 for both.
    assert process.returncode in (130, -signal.SIGINT), message
    assert "Interrupted: 0 of 1 encoders are quantised. Run the same command again to go on." in message
    assert not list((tmp_path / "cache").glob("*int8-*/*"))
