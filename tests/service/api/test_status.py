"""What a deployment says of itself."""

from __future__ import annotations

import httpx

from tests.support.servers import Server


def test_health_and_ready(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/ready").json() == {"status": "ready"}


def test_info(http: httpx.Client, small: Server) -> None:
    info = http.get("/info").json()
    assert info["default_model"] == "mean" and info["version"]
    models = info["models"]
    assert list(models) == ["mean", "cls", "max", "last", "weighted_mean", "gem"]
    for name, model in models.items():
        assert model["pooling"] == ("gem(p=3.0)" if name == "gem" else name)
        assert model["encoder"].endswith("all-MiniLM-L6-v2") and model["declared_pooling"] == "mean"
        assert (model["dimension"], model["max_tokens"], model["normalize"]) == (384, 256, True)
        assert (model["prompts"], model["default_prompt"]) == ({}, None)
        assert model["backend"] and model["precision"] and model["streams"] >= 1
        overridden = [] if name == "mean" else [f"pooling {model['pooling']!r} overrides the declared 'mean'"]
        assert model["warnings"] == overridden
    fingerprints = [model["fingerprint"] for model in models.values()]
    assert len(set(fingerprints)) == 6 and all(len(bytes.fromhex(each)) == 8 for each in fingerprints)
    assert {"cls", "mean", "max", "last", "weighted_mean", "attention", "gated", "gem"} <= set(info["poolings"])

    other = small.http.get("/info").json()
    assert other["default_model"] == "default"
    assert other["models"]["default"]["fingerprint"] == models["mean"]["fingerprint"]
    assert (info["limits"]["max_body_bytes"], other["limits"]["max_body_bytes"]) == (64 * 2**20, 65_536)
    assert other["limits"]["max_queued_tokens"] == 4096
    assert info["limits"]["max_texts"] == 16_384 and info["limits"]["max_hits"] == 10_000
