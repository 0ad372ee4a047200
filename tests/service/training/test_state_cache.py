"""Token states kept on disk: made once, in shards, within a limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pooling.tasks import DataError, Part
from service.embedding.embedder import Embedder
from service.encoder.artifacts import Artifacts
from service.errors import ConfigError
from service.training import state_cache as module
from service.training.state_cache import StateCache
from tests.support import checkpoints

TEXTS = Part(checkpoints.TEXTS)
MORE = Part([f"the wheel {number}" for number in range(30)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkpoints.plain_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def model(folder):
    with checkpoints.served(folder, pooling="mean", prompts={"query": "query: ", "document": ""}) as models:
        yield models.get()


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "_SHARD", 8)


@pytest.fixture
def cached(model: Embedder, tmp_path):
    def make(limit=10**9, dtype="float32", model=model):
        return StateCache(model, Artifacts(tmp_path / "cache"), dtype=dtype, limit=limit)

    return make


def made(cache):
    """The shards on disk, each with when it was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in cache._artifacts.root.glob("states-*/states.bin")}


def test_pooled_from_disk_they_are_what_is_served(cached, folder):
    cache = cached()
    shards = cache.plan([TEXTS, MORE])
    assert [len(shard.part.texts) for shard in shards] == [6, 8, 8, 8, 6]
    done = []
    states = cache.states(shards, done.append).of([MORE, TEXTS])
    assert sum(done) == 36 and len(states) == 36
    assert sum(shard.bytes for shard in shards) == sum(
        file.stat().st_size for file in cache._artifacts.root.rglob("*.bin")
    )
    for pooling in ("mean", "cls", "last", "max"):
        with checkpoints.served(folder, pooling=pooling) as models:
            wanted = checkpoints.embed(models, [*MORE.texts, *TEXTS.texts])
            assert checkpoints.close(states.pooled(models.get().recipe.pooler).numpy(), wanted)


def test_a_role_has_its_prompt(cached, model):
    cache = cached()
    parts = [Part(["the mill", "the mill"], "query"), Part(["the mill"], "document"), Part(["the mill"])]
    found = cache.states(cache.plan([*parts, *parts]))
    assert len(found.states) == 3
    prompted = len(model.encoder.tokenizer.encode(["the mill"], prompt="query: ")[0].ids)
    query, again, document, neither = found.of(parts).lengths
    assert query == again == prompted > document == neither
    unprompted = cached(model=Embedder(model.encoder, replace(model.recipe, include_prompt=False)))
    [length] = unprompted.states(unprompted.plan(parts[:1])).states.lengths
    assert length == prompted - model.encoder.tokenizer.prompt_length("query: ")


def test_later_runs_find_them_and_add_what_is_new(cached):
    first = cached()
    first.states(first.plan([TEXTS]))
    before = made(first)
    second = cached()
    shards = second.plan([TEXTS, Part([*TEXTS.texts, *MORE.texts])])
    assert second.missing(shards) == sum(shard.bytes for shard in shards[1:]) > 0
    second.states(shards)
    assert second.missing(shards) == 0
    assert before.items() <= made(second).items() and len(made(second)) == 5


@pytest.mark.parametrize("change", [{"max_tokens": 5}, {"pooling": "mean", "prompts": {"default": "x "}}])
def test_what_changes_a_state_is_kept_apart(cached, folder, change):
    cache = cached()
    shards = cache.plan([TEXTS])
    cache.states(shards)
    with checkpoints.served(folder, **{"pooling": "mean"} | change) as models:
        changed = models.get()
        if "prompts" in change:
            changed = Embedder(changed.encoder, replace(changed.recipe, default_prompt="default"))
        other = cached(model=changed)
        assert other.missing(other.plan([TEXTS])) > 0
    narrow = cached(dtype="float16")
    [shard] = narrow.plan([TEXTS])
    assert narrow.missing([shard]) == shard.bytes == shards[0].bytes / 2


def test_more_than_the_limit_is_refused_before_anything_is_made(cached):
    cache = cached(limit=5_000)
    with pytest.raises(ConfigError, match=r"the token states need 0 MB, and --cache-limit is 0 MB\. Use fewer texts"):
        cache.make_room(cache.plan([TEXTS, MORE]))
    assert not made(cache)


def test_a_full_disk_is_refused_before_anything_is_made(cached, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: module.shutil._ntuple_diskusage(100, 0, 100))
    cache = cached()
    shards = cache.plan([TEXTS])
    with pytest.raises(ConfigError, match=r"more in .*cache, where 0 MB are free\. .* set --cache to a folder"):
        cache.make_room(shards)
    monkeypatch.undo()
    cache.make_room(shards)


def test_what_was_not_used_for_longest_makes_room(cached):
    big = cached()
    old, used = big.plan([TEXTS]), big.plan([Part(MORE.texts[:8])])
    for shards in (old, used, old, used):
        big.states(shards)
    small = cached(limit=sum(shard.bytes for shard in old + used) + 2_000)
    new = small.plan([Part(MORE.texts[8:16])])
    small.make_room(new)
    assert small.missing(old) and not small.missing(used)
    small.states(new)


def test_interrupted_it_keeps_what_is_whole(cached):
    cache = cached()
    shards = cache.plan([MORE])

    def stop(count, done=[]):  # noqa: B006
        done.append(count)
        if len(done) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.states(shards, stop)
    kept = made(cache)
    assert 0 < len(kept) < len(shards)
    assert not list(cache._artifacts.root.glob(".*.part"))
    assert len(cache.states(shards).states) == 30 and kept.items() <= made(cache).items()


def test_what_is_damaged_is_made_anew(cached):
    cache = cached()
    shards = cache.plan([MORE])
    wanted = cache.states(shards).states.batch(np.arange(30))[0]
    before = made(cache)
    damaged, cut, *_ = sorted(cache._artifacts.root.glob("states-*/states.bin"))
    damaged.write_bytes(bytes(damaged.stat().st_size))
    cut.write_bytes(cut.read_bytes()[:-1])
    found = cache.states(shards).states.batch(np.arange(30))[0]
    assert np.array_equal(found, wanted)
    after = made(cache)
    assert {name for name in before if before[name] != after[name]} == {damaged.parent.name, cut.parent.name}


def test_a_text_without_a_known_token_is_named(cached, tmp_path):
    folder = checkpoints.plain_bert(tmp_path / "bert")
    nothing = {"type": "Replace", "pattern": {"String": "~"}, "content": ""}
    checkpoints.edit(folder / "tokenizer.json", normalizer=nothing)
    with checkpoints.served(folder, pooling="mean") as models:
        cache = cached(model=models.get())
        with pytest.raises(DataError, match=r"the text '~~' has no token that this model knows; leave it out"):
            cache.plan([TEXTS, Part(["~~"])])


def test_states_are_those_of_the_encoder_to_three_digits_in_float16(cached):
    wide, narrow = cached(), cached(dtype="float16")
    left, right = (cache.states(cache.plan([TEXTS])).states for cache in (wide, narrow))
    everything = np.arange(6)
    assert np.allclose(left.batch(everything)[0], right.batch(everything)[0], rtol=2e-3, atol=1e-4)
