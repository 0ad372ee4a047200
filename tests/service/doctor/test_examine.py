"""A model examined: sound ones pass, and each mistake is named, with numbers and a remedy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Dense, Normalize

import pooling
from service.checkpoint import read_checkpoint
from service.doctor.strategies import FIXED
from service.errors import CheckpointError
from service.training import export
from tests.support import checkpoints
from tests.support.checkpoints import DIM, edit

from .conftest import doctor, doctor_of_served, finding, findings

TEXTS = [text for text in checkpoints.TEXTS if text != "Grain"]


def linked(source: Path, folder: Path) -> Path:
    """A copy of a folder whose small files can be changed."""
    for path in source.rglob("*"):
        if path.is_file():
            copy = folder / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes()) if path.suffix == ".json" else copy.symlink_to(path.resolve())
    return folder


def declare_cls(folder: Path) -> None:
    edit(folder / "1_Pooling" / "config.json", pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)


def remove_normalize(folder: Path) -> None:
    path = folder / "modules.json"
    modules = json.loads(path.read_text())
    path.write_text(json.dumps([module for module in modules if "Normalize" not in module["type"]]))


def add_unknown(folder: Path, place: int = 2, module: str = "my_package.Whitening") -> None:
    path = folder / "modules.json"
    modules = json.loads(path.read_text())
    modules.insert(place, {"idx": 9, "name": "9", "path": f"9_{module[-4:]}", "type": module})
    path.write_text(json.dumps(modules))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return checkpoints.plain_bert(tmp_path_factory.mktemp("plain") / "bert")


def test_a_model_with_a_fitted_pooling(bert, tmp_path):
    pooler = pooling.build("attention", DIM)
    with torch.no_grad():
        pooler.query.copy_(torch.linspace(-1, 1, DIM))
    pooler.mark_trained()
    folder = tmp_path / "fitted"
    folder.mkdir()
    export.save(folder, read_checkpoint(str(bert)), pooler, 20)
    report = doctor(folder, TEXTS)
    assert not report.faults
    assert report.declared["pooling"] == report.served["pooling"] == "attention"
    assert finding(report, "pooling").seen == "attention, as declared"
    agreement = finding(report, "agreement")  # of its parameters too, which a fresh one would not have
    assert (agreement.severity, "largest difference" in agreement.seen) == ("ok", True)
    rows = {row.pooling: row for row in report.strategies}
    assert rows["attention"].cosine == pytest.approx(1, abs=1e-6) and rows["mean"].cosine < 0.9999


@pytest.fixture
def copy(minilm, tmp_path):
    return linked(minilm, tmp_path / "copy")


@pytest.mark.slow
def test_the_bundled_model_is_sound(minilm):
    report = doctor(minilm)
    assert report.faults == report.warnings == []
    assert set(findings(report).values()) == {"ok"}
    assert report.declared["pooling"] == report.served["pooling"] == "mean"
    assert report.verdict == f"{minilm} is sound: mean, normalised, and all 12 checks passed."
    assert "sentence-transformers/all-MiniLM-L6-v2" in finding(report, "weights").seen
    difference = float(finding(report, "agreement").seen.split("largest difference ")[1].split(",")[0])
    assert difference <= 1e-5
    rows = {row.pooling: row for row in report.strategies}
    assert set(rows) == set(FIXED) and report.strategies[0].cosine == pytest.approx(1, abs=1e-6)
    assert rows["cls"].cosine < 0.6 and 0.9 < rows["weighted_mean"].cosine < 0.999
    # CLS is clearly worse even without knowing the weights, and the mean is not worse than any.
    assert rows["mean"].evidence.auc > 0.9 and rows["cls"].evidence.interval[1] < 0


@pytest.mark.slow
def test_cls_declared_for_weights_trained_with_the_mean(copy):
    declare_cls(copy)
    report = doctor(copy)
    assert report.faults == ["pooling"] and report.warnings == ["evidence"]
    seen = finding(report, "pooling").seen
    assert seen.startswith("cls is served as declared, and these weights were trained with mean")
    assert float(seen.split()[-1]) < 0.6
    assert "mean" in finding(report, "evidence").seen and finding(report, "agreement").severity == "ok"


@pytest.mark.slow
def test_an_unknown_module(bert, tmp_path):
    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "mean", Normalize())
    add_unknown(folder)
    add_unknown(folder, 4, "sentence_transformers.models.Later")
    before = (folder / "modules.json").read_text()
    with pytest.raises(CheckpointError, match="Whitening"):
        read_checkpoint(str(folder))
    report = doctor(folder)
    first, second = (each for each in report.findings if each.name == "unknown module")
    assert "'my_package.Whitening' in place 2" in first.seen and first.severity == "fault"
    assert "'sentence_transformers.models.Later'" in second.seen
    assert report.faults == ["unknown module"] and report.served["normalize"] is True
    assert (folder / "modules.json").read_text() == before


@pytest.mark.slow
def test_unknown_weights_are_judged_by_evidence(minilm, tmp_path):
    """The same encoder, of which one number is changed, so that its sum is not known."""
    from safetensors.torch import load_file, save_file

    folder = linked(minilm, tmp_path / "other")
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"][0] += 1e-4
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    declare_cls(folder)
    remove_normalize(folder)
    report = doctor(folder)
    assert report.faults == [] and report.warnings == ["normalisation", "evidence"]
    assert "cls" in finding(report, "evidence").seen and "mean" in finding(report, "evidence").seen
    assert report.verdict.endswith("can be served, cls, not normalised, with 2 warnings (normalisation, evidence).")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plain", "mode"),
    [
        (checkpoints.plain_bert, "cls"),
        (checkpoints.plain_roberta, ("mean", "max")),
        (checkpoints.plain_llama, "lasttoken"),  # its tokenizer pads at the left
        (checkpoints.plain_t5, "weightedmean"),
    ],
)
def test_agreement_and_padding_whatever_the_encoder(plain, mode, tmp_path):
    folder = checkpoints.sentence_transformer(plain(tmp_path / "plain"), tmp_path / "model", mode, Normalize())
    report = doctor(folder)
    assert report.faults == []
    assert finding(report, "agreement").severity == finding(report, "padding").severity == "ok"
    assert finding(report, "pooling").seen == f"{report.declared['pooling']}, as declared"


@pytest.mark.slow
def test_what_reads_padding_agrees_with_texts_alone(tmp_path):
    plain = checkpoints.unbounded("FNet", tmp_path / "plain", tpu_short_seq_length=34, pad_token_id=1)
    report = doctor(checkpoints.sentence_transformer(plain, tmp_path / "model", "mean"), TEXTS)
    assert "it reads padding" in finding(report, "trial").seen
    assert finding(report, "agreement").severity == "ok"


@pytest.mark.slow
def test_sparse_attention_that_is_replaced_is_explained(tmp_path):
    folder = checkpoints.sentence_transformer(
        checkpoints.plain_bigbird(tmp_path / "plain"), tmp_path / "model", "mean"
    )
    long = [" ".join(TEXTS), " ".join(TEXTS[::-1])]
    report = doctor(folder, long)
    found = finding(report, "agreement")
    assert found.severity == "warning" and "original_full" in found.remedy
    assert "big_bird with original_full attention on purpose" in found.seen
    edit(folder / "config.json", attention_type="original_full")
    assert finding(doctor(folder, long), "agreement").severity == "ok"


def test_a_model_that_declares_no_pooling(bert):
    report = doctor(bert, TEXTS)
    found = finding(report, "pooling")
    assert found.severity == "warning" and "declares none" in found.seen
    assert finding(report, "agreement").severity == "ok"  # sentence-transformers takes the mean


def test_an_overridden_pooling(bert, tmp_path):
    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "cls")
    report = doctor_of_served(folder, pooling="mean")
    assert (report.declared["pooling"], report.served["pooling"]) == ("cls", "mean")
    found = finding(report, "pooling")
    assert found.severity == "fault" and found.seen.startswith("mean is served, and the checkpoint declares cls")
    cosine = {row.pooling: row.cosine for row in report.strategies}
    assert cosine["cls"] == pytest.approx(1) and found.seen.endswith(f"{cosine['mean']:.2f}")
    assert finding(report, "agreement").severity == "ok"


@pytest.mark.slow
def test_a_fitted_pooling_is_no_mistake(bert, tmp_path):
    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "cls")
    fitted = pooling.build("attention", DIM)
    fitted.mark_trained()
    fitted.save(tmp_path / "pooler")
    report = doctor_of_served(folder, pooling={"strategy": "attention", "weights": str(tmp_path / "pooler")})
    assert finding(report, "pooling").severity == "ok" and "fitted" in finding(report, "pooling").seen
    assert "attention" in {row.pooling for row in report.strategies}
    untrained = doctor_of_served(folder, pooling="attention")
    assert finding(untrained, "pooling").severity == "fault"


@pytest.mark.slow
def test_normalisation_that_the_config_overrides(bert, tmp_path):
    folder = checkpoints.sentence_transformer(bert, tmp_path / "normalised", "mean", Normalize())
    report = doctor_of_served(folder, normalize=False)
    assert report.faults == ["normalisation"]
    assert "leave `normalize` out" in finding(report, "normalisation").remedy
    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "mean")
    assert finding(doctor_of_served(folder, normalize=True), "normalisation").severity == "warning"


@pytest.mark.slow
def test_layers_after_pooling(bert, tmp_path):
    torch.manual_seed(7)
    dense = Dense(DIM, DIM, activation_function=torch.nn.Tanh())
    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "mean", dense, Normalize())
    found = finding(doctor(folder), "skipped layers")
    assert found.severity == "ok" and found.seen.startswith("Dense is applied; vectors without it would be at cosine")
    path = folder / "modules.json"
    path.write_text(json.dumps([module for module in json.loads(path.read_text()) if "Dense" not in module["type"]]))
    found = finding(doctor(folder), "skipped layers")
    assert found.severity == "fault" and "2_Dense" in found.seen


@pytest.mark.slow
def test_prompts(bert, tmp_path):
    prompts = {"query": "query: ", "document": "passage: "}
    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "mean", prompts=prompts)
    found = finding(doctor(folder), "prompt")
    assert found.severity == "ok" and "query 'query: '" in found.seen and "cosine" in found.seen
    report = doctor_of_served(folder, prompts={"query": "query: "})
    assert report.faults == ["prompt"] and "leaves out document" in finding(report, "prompt").seen
    report = doctor_of_served(folder, prompts={**prompts, "query": "the "})
    found = finding(report, "prompt")
    assert found.severity == "warning" and "another text for query" in found.seen
    edit(folder / "config_sentence_transformers.json", default_prompt_name="query")
    report = doctor_of_served(folder, prompts={})
    assert report.faults == ["prompt"] and finding(report, "agreement").severity == "ok"


@pytest.mark.slow
def test_a_prompt_that_only_the_readme_tells(bert, tmp_path):
    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "mean")
    (folder / "README.md").write_text("Put `query: ` or 'passage: ' before each text, \"query: who was it?\" say.")
    found = finding(doctor(folder), "prompt")
    assert found.severity == "warning" and "'passage: ', 'query: '" in found.seen


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["Put `search_query: ` before.", "```\nquery: who was it?\n```", "f'Instruct: {task}\\nQuery: {query}'"]
)
def test_other_ways_in_which_a_readme_tells(bert, tmp_path, text):
    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "mean")
    (folder / "README.md").write_text(text)
    found = finding(doctor(folder), "prompt")
    assert found.severity == "warning" and "the README speaks of" in found.seen


@pytest.mark.slow
@pytest.mark.parametrize("names", [("search_query", "search_document"), ("query", "passage"), ("s2p_query", "")])
def test_prompts_by_role(bert, tmp_path, names):
    prompts = {name: f"{name}: " for name in names if name}
    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "mean", prompts=prompts)
    found = finding(doctor(folder), "prompt")
    roles = f"by role query '{names[0]}: ' and document {f'{names[1]}: ' if names[1] else 'none'!r}"
    assert found.severity == "ok" and roles in found.seen


@pytest.mark.slow
def test_a_prompt_that_may_be_that_of_a_role(bert, tmp_path):
    prompts = {"query": "query: ", "doc": "passage: "}
    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "mean", prompts=prompts)
    found = finding(doctor(folder), "prompt")
    assert found.severity == "warning" and "document 'none'" in found.seen and found.seen.endswith("no role uses doc")
    assert "as the document prompt" in found.remedy
    report = doctor_of_served(folder, prompts={**prompts, "document": "passage: "})
    assert finding(report, "prompt").severity == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [{"ask": "a: ", "answer": "b: "}, {"s2s_query": "a: "}, {"clustering": "a: "}])
def test_prompts_of_no_role(bert, tmp_path, prompts):
    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "mean", prompts=prompts)
    found = finding(doctor(folder), "prompt")
    assert found.severity == "warning" and "collections and searches use none" in found.seen
    assert "with the names query and document" in found.remedy
    report = doctor_of_served(folder, prompts={"query": "a: ", "document": "b: ", **prompts})
    assert finding(report, "prompt").severity == "ok"
    renamed = dict(zip(("query", "document"), prompts.values(), strict=False))
    assert finding(doctor_of_served(folder, prompts=renamed), "prompt").severity == "ok"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("declared", "severity"),
    [("manhattan", "warning"), ("maxsim", "warning"), ("dot", "ok"), ("dot_product", "ok"), ("euclidean", "ok")],
)
def test_similarities(bert, tmp_path, declared, severity):
    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "mean")
    edit(folder / "config_sentence_transformers.json", similarity_fn_name=declared)
    report = doctor(folder)
    found = finding(report, "similarity")
    assert found.severity == severity and declared.removesuffix("_product") in found.seen
    assert finding(report, "normalisation").severity == "ok"  # lengths count, as declared
    edit(folder / "config_sentence_transformers.json", similarity_fn_name="cosine")
    assert "similarity" not in findings(doctor(folder))


def test_truncation(bert, tmp_path):
    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "mean")
    long = "the wheel turns " * 100
    report = doctor(folder, [*TEXTS, "   ", long])
    assert report.faults == ["truncation"]
    assert finding(report, "truncation").seen.startswith("16.7% of 6 texts (1) are longer than 64 tokens; ")
    few = finding(doctor(folder, [*TEXTS * 5, long]), "truncation")
    assert few.severity == "warning" and few.seen.startswith("3.8% of 26 texts (1)")


@pytest.mark.slow
def test_texts_that_spell_special_tokens_are_no_disagreement(bert, tmp_path):
    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "mean")
    report = doctor(folder, [*TEXTS, "the mill [SEP] the pond", "[CLS][SEP] of the mill"])
    assert finding(report, "agreement").severity == "ok"


def test_weights_that_give_no_numbers(bert, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "mean")
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.LayerNorm.weight"][:] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    report = doctor(folder)
    assert report.faults == ["checkpoint"] and "not finite" in finding(report, "checkpoint").seen


def test_what_cannot_be_loaded_in_sentence_transformers(bert, tmp_path):
    from service.doctor.reference import NoReference, encode

    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "mean")
    add_unknown(folder, 2, "no.such.Module")
    with pytest.raises(NoReference, match="Module"):
        encode(folder, TEXTS)


def test_code_in_a_folder_is_not_run(bert, tmp_path):
    """sentence-transformers would take a file `millpond.py` for the package that the folder's pooling is from."""
    from service.doctor.reference import NoReference, encode

    folder = tmp_path / "model"
    folder.mkdir()
    fitted = pooling.build("attention", DIM)
    fitted.mark_trained()
    export.save(folder, read_checkpoint(str(bert)), fitted, 20)
    assert len(encode(folder, TEXTS)) == len(TEXTS)
    (folder / "millpond.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    with pytest.raises(NoReference, match="executes third-party code"):
        encode(folder, TEXTS)
    assert not (tmp_path / "run").exists()


def test_evidence_is_paired():
    """Equal strategies have no gain in any resample; a strategy that knows the answers wins."""
    from service.doctor import probe

    rng = np.random.default_rng(1)
    noise = rng.normal(size=(len(probe.sentences()), 16)).astype(np.float32)
    lines = len(noise) // 3
    oracle = noise.copy()
    oracle[lines : 2 * lines] = oracle[:lines]
    found = probe.compare({"noise": noise, "same": noise * 2, "oracle": oracle}, "noise")
    assert found["same"].gain == 0 and found["same"].interval == (0, 0) and not found["same"].better
    assert found["noise"].auc == pytest.approx(0.5, abs=0.15)
    assert found["oracle"].auc == 1 and found["oracle"].better
    assert found["oracle"].interval[0] <= found["oracle"].gain <= found["oracle"].interval[1]
    again = probe.compare({"noise": noise, "oracle": oracle}, "noise")
    assert again["oracle"] == found["oracle"]


@pytest.mark.slow
def test_each_route_of_a_router_is_examined(tmp_path):
    folder = checkpoints.routed(tmp_path, Normalize())
    report = doctor(folder, TEXTS)
    assert not report.faults, report.verdict
    for route, modules in (
        ("query", "StaticEmbedding > Normalize"),
        ("document", "Transformer > Pooling > Normalize"),
    ):
        assert finding(report, f"{route}: agreement").severity == "ok"
        assert modules in finding(report, f"{route}: modules").seen
    assert report.served["query: pooling"] == "mean" and report.served["document: pooling"] == "cls"
    assert report.served["default route"] == "document"


@pytest.mark.slow
def test_a_pooling_of_another_route_is_seen(tmp_path):
    report = doctor_of_served(checkpoints.routed(tmp_path, Normalize()), pooling="mean")
    assert finding(report, "document: pooling").severity != "ok"
    assert finding(report, "query: pooling").severity == "ok"
