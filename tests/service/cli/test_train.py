"""`millpond train`: from files to a model that is served."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from service.cli import app, main
from tests.support import checkpoints

from .conftest import COMMAND, ROOT

SUBJECTS = ("mill", "pond", "river", "wheel", "bridge", "grain")
FILLER = ("the", "in", "evening", "when", "slowly", "and", "then", "it", "over", "a")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return checkpoints.plain_bert(tmp_path_factory.mktemp("checkpoint") / "bert")


def rows(count, seed):
    """Pairs of sentences; those with the same subject have the score 5, others less."""
    draw = random.Random(seed)

    def sentence(subject):
        words = [*draw.choices(FILLER, k=draw.randint(2, 8)), subject]
        draw.shuffle(words)
        return " ".join([*words, str(draw.randint(0, 10**6))])

    for _ in range(count):
        left, right = draw.choice(SUBJECTS), draw.choice(SUBJECTS)
        yield sentence(left), sentence(right), 5 if left == right else draw.randint(0, 2)


def write(path, count, seed=0, header="sentence1,sentence2,score"):
    path.parent.mkdir(exist_ok=True)
    lines = [",".join(map(str, row[: header.count(",") + 1])) for row in rows(count, seed)]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.fixture
def data(tmp_path):
    """A folder with train, dev and test."""
    for seed, (split, count) in enumerate((("train", 200), ("dev", 60), ("test", 80))):
        write(tmp_path / "data" / f"{split}.csv", count, seed)
    return tmp_path / "data"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, bert):
    """The command within this process; gives exit status, output and errors."""

    def call(*arguments, model=bert, output="out"):
        given = {"--model": model, "--output": tmp_path / output, "--cache": tmp_path / "cache"}
        words = [*arguments, *(word for pair in given.items() if pair[0] not in arguments for word in pair)]
        monkeypatch.setattr(sys, "argv", ["millpond", "train", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


@pytest.mark.slow
def test_from_files_to_a_model_that_is_served(millpond, bert, data, tmp_path):
    out = tmp_path / "out"
    command = ("train", "--model", bert, "--train", data, "--cache", tmp_path / "cache", "--max-tokens", 16)
    result = millpond(*command, "--output", out, "--seeds", 2, "--epochs", 3)
    assert result.returncode == 0, result.stderr
    assert "token states of 680 texts" in result.stderr
    assert "attention: seed 1, epoch 3: loss " in result.stderr
    assert "attention: average of the seeds: dev " in result.stderr
    record = json.loads((out / "pooler" / "training.json").read_text())
    for name, scores in record["scores"].items():
        row = next(line for line in result.stdout.splitlines() if line.startswith(f"{name} "))
        assert row.split()[-2:] == [f"{scores['dev']:.2f}", f"{scores['test']:.2f}"]
    assert set(record["fitted"]) < set(record["scores"]) >= {"cls", "mean", "max", "last", "weighted_mean"}
    verdict = record["verdict"]
    assert verdict["pooling"] == max(record["fitted"], key=lambda name: record["scores"][name]["dev"])
    assert record["worth_it"] == (verdict["low"] > 0)
    worth_it, use = f"{verdict['pooling']} is worth having", f"Use pooling: {verdict['other']}."
    assert (worth_it if record["worth_it"] else use) in result.stdout

    config = yaml.safe_load(result.stdout[result.stdout.index("models:") : result.stdout.index("\n\n" + str(out))])
    settings = config["models"]["default"]
    assert settings["encoder"] == str(bert) and settings["max_tokens"] == 16
    assert settings["pooling"] == ({"weights": f"{out}/pooler"} if record["worth_it"] else verdict["other"])
    texts = [text for row in rows(30, 9) for text in row[:2]]
    wanted = SentenceTransformer(str(out), device="cpu", trust_remote_code=True).encode(texts)
    with checkpoints.served(out) as models:
        assert checkpoints.close(checkpoints.embed(models, texts, truncate="right"), wanted)
    with checkpoints.served(bert, pooling={"weights": f"{out}/pooler"}, max_tokens=16) as models:
        assert checkpoints.close(checkpoints.embed(models, texts, truncate="right"), wanted)

    again = millpond(*command, "--output", out)
    assert (again.returncode, again.stdout) == (2, "")
    assert f"--output {out}: exists already" in again.stderr


def test_the_same_command_gives_the_same_parameters_from_the_kept_states(run, data, tmp_path):
    arguments = ("--train", data, "--pooling", "attention", "--epochs", 2)
    status, first, err = run(*arguments)
    assert status == 0 and ": 1 MB, of which 1 MB are still to be made" in err
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("states.bin")}
    status, second, err = run(*arguments, output="again")
    assert status == 0 and ": 1 MB, of which 0 MB are still to be made" in err
    assert second.replace(str(tmp_path / "again"), str(tmp_path / "out")) == first
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("states.bin")}
    files = [tmp_path / name / "pooler" / "pooler.safetensors" for name in ("out", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_without_dev_and_test(run, tmp_path):
    status, out, err = run("--train", write(tmp_path / "pairs.csv", 300), "--pooling", "gated", "--epochs", 1)
    assert status == 0
    assert "warning: There is no dev split: 30 of the 300 pairs or queries" in err
    assert "warning: There is no test split: 30 of the 300 pairs or queries" in err
    assert out.splitlines()[0].split() == ["Spearman", "x", "100", "dev", "test"]


def beir(folder):
    """A folder in BEIR's layout, whose train and test splits are the same."""
    (folder / "qrels").mkdir(parents=True)
    pairs = list(enumerate(rows(120, 0)))
    for name, column in (("corpus", 0), ("queries", 1)):
        lines = [json.dumps({"_id": f"{name}{number}", "text": row[column]}) for number, row in pairs]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    relevant = "".join(f"queries{number}\tcorpus{number}\t1\n" for number, _ in pairs)
    for split in ("train", "test"):
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + relevant)
    return folder


@pytest.mark.parametrize("layout", ["positives", "beir"])
def test_other_data(run, tmp_path, layout):
    folder = tmp_path / "data"
    if layout == "positives":
        write(folder / "train.csv", 120, header="anchor,positive")
    else:
        beir(folder)
    status, out, err = run("--train", folder, "--pooling", "attention", "--epochs", 1)
    assert status == 0, err
    assert out.splitlines()[0].split() == ["nDCG@10", "x", "100", "dev", "test"]
    with checkpoints.served(tmp_path / "out") as models:
        assert models.get().recipe.pooler.spec == "attention"


def test_a_split_that_overlaps_train_is_warned_of_by_number(run, data):
    dev = data / "dev.csv"
    dev.write_text(dev.read_text() + "".join((data / "train.csv").read_text().splitlines(keepends=True)[1:9]))
    status, _, err = run("--train", data, "--pooling", "gated", "--epochs", 1)
    assert status == 0
    assert "warning: 8 of the 68 pairs or queries of the dev split are in train too" in err


def test_it_knows_a_difference_from_noise(run, tmp_path):
    """Texts that are equal but for a number are told apart by nothing that could be fitted."""
    lines = [f"the mill {number},the mill {-number},{number % 7}" for number in range(300)]
    (tmp_path / "pairs.csv").write_text("\n".join(["sentence1,sentence2,score", *lines]) + "\n")
    status, out, _ = run("--train", tmp_path / "pairs.csv", "--epochs", 2)
    record = json.loads((tmp_path / "out" / "pooler" / "training.json").read_text())
    assert status == 0 and not record["worth_it"]
    assert out.count("    pooling: ") == 1 and f"    pooling: {record['verdict']['other']}\n" in out


def test_what_the_model_declares_is_one_of_those_to_beat(run, bert, data, tmp_path):
    declares = checkpoints.sentence_transformer(bert, tmp_path / "declares", ("mean", "max"))
    status, out, _ = run("--train", data, "--pooling", "gated", "--epochs", 1, model=declares)
    assert status == 0 and "\ndeclared " in out


def nan(text):
    lines = text.splitlines()
    return "\n".join([*lines[:4], lines[4].rpartition(",")[0] + ",nan", *lines[5:]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nan, "train.csv: line 5: score is 'nan', which is no finite number"),
        (
            lambda text: text.replace(",5\n", ",1\n").replace(",0\n", ",1\n").replace(",2\n", ",1\n"),
            "every pair has the score 1, so there is no order to follow",
        ),
        (lambda text: text + " ,b,1\n", "train.csv: line 202: sentence1 is empty"),
        (lambda text: "\n".join(text.splitlines()[:4]), "has 3 pairs to fit to, and at least 50 are needed"),
        (lambda text: "text,label\n" + "a,x\nb,x\n" * 50, "these are labelled texts. Poolers are fitted to scored"),
        (lambda text: "", "train.csv: holds no data"),
    ],
)
def test_bad_data(run, data, tmp_path, change, message):
    train = data / "train.csv"
    train.write_text(change(train.read_text()))
    status, out, err = run("--train", data)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and message in err
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--pooling", "mean"),
            "--pooling 'mean': has nothing to fit; attention, gated, multihead_attention and gem",
        ),
        (("--pooling", "atention"), "--pooling 'atention': unknown pooling 'atention' (did you mean 'attention'?)"),
        (
            ("--pooling", "multihead_attention(heads=7, split_heads=true)"),
            "split heads must divide the dimension, 24",
        ),
        (("--layers", "--pooling", 'token("[MASK]")'), "takes one token's state, which is not told apart"),
        (("--layers", "--pooling", "gem"), "--pooling 'gem': is fitted itself, and --layers fits the weights of"),
        (("--max-tokens", "900"), "--max-tokens: 900 is more than the 64 positions"),
        (("--model", "nowhere"), "encoder 'nowhere': there is no such folder"),
        (("--train", "nowhere.csv"), "nowhere.csv: No such file or directory"),
        (("--output", "/proc/out"), "--output /proc/out: cannot be made"),
        (("--cache-limit", "0.000001"), "and --cache-limit is 0 MB"),
        (("--learning-rate", "2"), "Input should be less than or equal to 1"),
    ],
)
def test_bad_arguments(run, data, tmp_path, arguments, message):
    given = arguments if "--train" in arguments else ("--train", data, *arguments)
    status, out, err = run(*given)
    assert (status, out) == (2, "")
    assert message in err
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "sent"),
    [("token states of", signal.SIGINT), ("token states of", signal.SIGKILL), ("epoch 1:", signal.SIGINT)],
)
def test_stopped_it_leaves_nothing_half_done_and_goes_on_from_what_is_whole(
    run, environment, bert, data, tmp_path, at, sent
):
    write(data / "train.csv", 2900)
    cache, out = tmp_path / "cache", tmp_path / "out"
    arguments = ["--train", data, "--pooling", "gated"]
    command = [*COMMAND, "train", "--model", bert, "--output", out, "--cache", cache, *arguments]
    endless = ["--epochs", "100000", "--patience", "100000"]
    process = subprocess.Popen(
        [*map(str, command), *endless], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert any(at in line for line in process.stderr)  # reads up to there
    process.send_signal(sent)
    _, err = process.communicate(timeout=120)
    assert not out.exists()
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert f"Interrupted: nothing is written to {out}. Run the same command again to go on" in err
        assert not list(tmp_path.rglob("*.part"))
    kept = {path: path.stat().st_mtime_ns for path in cache.glob("states-*/states.bin")}
    assert len(kept) == 5 if at == "epoch 1:" else len(kept) < 5

    assert run(*arguments, "--epochs", 1)[0] == 0
    assert (out / "pooler" / "pooler.json").exists() and not list(tmp_path.rglob("*.part"))
    made = {path: path.stat().st_mtime_ns for path in cache.glob("states-*/states.bin")}
    assert len(made) == 5 and kept.items() <= made.items()


@pytest.mark.slow
def test_a_pooler_of_another_encoder_is_refused(run, millpond, data, tmp_path):
    assert run("--train", data, "--pooling", "gated", "--epochs", 1)[0] == 0
    other = checkpoints.plain_bert(tmp_path / "wider", hidden_size=48)
    models = {"default": {"encoder": str(other), "pooling": {"weights": str(tmp_path / "out" / "pooler")}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"models": models}))
    result = millpond("serve", "--config", tmp_path / "config.yaml", "--port", 0)
    assert result.returncode == 2
    assert "was fitted for token states of 24 dimensions; this encoder has 48" in result.stderr


def test_the_figures_are_those_of_the_served_model(run, data, tmp_path):
    from scipy.stats import spearmanr

    status, *_ = run("--train", data, "--pooling", "attention", "--epochs", 2, "--states", "float32")
    assert status == 0
    pairs = list(rows(80, 2))
    with checkpoints.served(tmp_path / "out", normalize=True) as models:
        left, right = (checkpoints.embed(models, [row[side] for row in pairs]) for side in (0, 1))
    found = 100 * spearmanr(np.sum(left * right, axis=1), [row[2] for row in pairs]).statistic
    record = json.loads((tmp_path / "out" / "pooler" / "training.json").read_text())
    assert record["scores"]["attention"]["test"] == pytest.approx(found, abs=0.05)


def scored_by(models, path, seed, count):
    """Write pairs whose scores are the cosines that a model gives them."""
    pairs = [row[:2] for row in rows(count, seed)]
    left, right = (checkpoints.embed(models, [pair[side] for pair in pairs], normalize=True) for side in (0, 1))
    cosines = np.sum(left * right, axis=1)
    lines = [f"{one},{other},{cosine}" for (one, other), cosine in zip(pairs, cosines, strict=True)]
    path.write_text("\n".join(["sentence1,sentence2,score", *lines]) + "\n")


@pytest.mark.slow
def test_weights_of_layers(run, bert, data, tmp_path):
    """Fitted to what the first layer alone says; what is written is a WeightedLayerPooling."""
    from scipy.stats import spearmanr

    with checkpoints.served(bert, pooling="mean", layers={"use": [1]}) as models:
        for seed, (split, count) in enumerate((("train", 200), ("dev", 60), ("test", 80))):
            scored_by(models, data / f"{split}.csv", seed, count)
    status, out, err = run("--train", data, "--layers", "--learning-rate", 0.02, "--states", "float32")
    assert status == 0, err
    record = json.loads((tmp_path / "out" / "pooler" / "training.json").read_text())
    starts = ["mean, layers from equal weights", "mean, layers from the last"]
    assert record["fitted"] == starts and all(f"\n{start} (fitted)" in out for start in starts)
    chosen = record["verdict"]["pooling"]
    assert chosen == max(starts, key=lambda name: record["scores"][name]["dev"])
    assert record["worth_it"] and f"\n    encoder: {tmp_path / 'out'}\n\n" in out
    weights = load_file(tmp_path / "out" / "layers" / "model.safetensors")["layer_weights"]
    assert weights.argmax() == 1

    pairs = list(rows(80, 2))
    sides = [[row[side] for row in pairs] for side in (0, 1)]
    wanted = [float(line.rpartition(",")[2]) for line in (data / "test.csv").read_text().splitlines()[1:]]

    def score(served):
        left, right = (checkpoints.embed(served, texts, normalize=True) for texts in sides)
        return 100 * spearmanr(np.sum(left * right, axis=1), wanted).statistic

    with checkpoints.served(bert, pooling="mean") as models:
        plain = models.get().fingerprint
        assert record["scores"]["mean"]["test"] == pytest.approx(score(models), abs=0.05)
    with checkpoints.served(tmp_path / "out") as models:
        assert record["scores"][chosen]["test"] == pytest.approx(score(models), abs=0.05)
        assert models.get().recipe.layers.used == (0, 1, 2) and models.get().fingerprint != plain
        found = checkpoints.embed(models, sides[0])
    wanted = SentenceTransformer(str(tmp_path / "out"), device="cpu", trust_remote_code=True).encode(sides[0])
    assert checkpoints.close(found, wanted)

    status, out, err = run("--train", data, "--layers", "--epochs", 1, model=tmp_path / "out", output="again")
    assert status == 0, err
    kinds = [module["type"] for module in json.loads((tmp_path / "again" / "modules.json").read_text())]
    assert [kind.rpartition(".")[2] for kind in kinds] == ["Transformer", "WeightedLayerPooling", "LearnedPooling"]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["scored", "beir"])
def test_the_figures_are_those_of_an_evaluation(run, bert, data, tmp_path, layout):
    folder = data if layout == "scored" else beir(tmp_path / "beir")
    options = ("--train", folder, "--test", folder, "--pooling", "attention", "--epochs", 1, "--states", "float32")
    assert run(*options)[0] == 0
    record = json.loads((tmp_path / "out" / "pooler" / "training.json").read_text())
    deployment = {"models": {"m": {"encoder": str(bert), "pooling": "mean"}}}
    deployment["runtime"] = {"backend": "torch", "precision": "fp32"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(deployment))
    given = ("--pairs", folder / "test.csv") if layout == "scored" else ("--retrieval", folder)
    arguments = ["evaluate", tmp_path / "config.yaml", *given, "--pooler", tmp_path / "out" / "pooler"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--json", str(tmp_path / "found.json")])
    assert result.exit_code == 0, result.output
    [found] = json.loads((tmp_path / "found.json").read_text())["data"]
    scores = {row["strategy"]: 100 * row["scores"][found["metrics"][0]]["value"] for row in found["rows"]}
    scores["attention"] = scores[str(tmp_path / "out" / "pooler")]
    for name, trained in record["scores"].items():
        assert trained["test"] == pytest.approx(scores[name], abs=1e-6), name
