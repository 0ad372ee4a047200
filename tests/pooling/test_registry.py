"""From words to strategies, and what is said when there is none."""

import importlib
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pooling import GeM, PluginWarning, Pooler, PoolingError, available, build, load, options_of, stages

DIM = 8


def test_spec_and_config_lead_back(strategy):
    pooler = strategy.untrained()
    for again in (
        build(pooler.spec, DIM),
        build(pooler.config(), DIM),
        build(json.loads(json.dumps(pooler.config())), DIM),
    ):
        assert again.spec == pooler.spec == strategy.spec
        assert again.config() == pooler.config()
        assert again.fingerprint() == pooler.fingerprint()


@pytest.mark.parametrize(
    ("spec", "canonical"),
    [
        ("gem(p=3)", "gem(p=3.0)"),
        ("gem", "gem(p=3.0)"),
        ("  mean+max ", "mean + max"),
        ("gem(negative='clamp')", "gem(p=3.0, negative=clamp)"),
        ("kmax", "kmax(k=3)"),
        ("logsumexp(beta=4)", "logsumexp(beta=4.0)"),
        ('token("[MASK]")', "token('[MASK]')"),
        ("token(token='[MASK]')", "token('[MASK]')"),
        ("window(4, 2, by=max) > mean", "window(size=4, stride=2, by=max) > mean"),
        ("piecewise(by=mean)", "piecewise(n=3, by=mean)"),
        ("(mean+max)+cls", "mean + max + cls"),
        (["mean", {"strategy": "gem", "p": 2}], "mean + gem(p=2.0)"),
        (["mean", ["max", "cls"]], "mean + max + cls"),
        ({"strategy": "mean + max"}, "mean + max"),
        ({"strategy": "sequence", "stages": ["attention", "mean"]}, "attention > mean"),
        ("window(stride=2, size=4)>mean+max", "window(size=4, stride=2) > mean + max"),
    ],
)
def test_many_ways_to_say_one_thing(spec, canonical):
    assert build(spec, DIM).spec == canonical


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("meen", "did you mean 'mean'.*known: cls, mean"),
        ("nothing_like_it", "unknown pooling.*known: "),
        ("gem(q=3)", "gem has no option 'q'; accepted: p=3.0, per_dim=False"),
        ("gem(per_dims=True)", "did you mean 'per_dim'"),
        ("mean(p=3)", "accepted: none"),
        ("gem(p=0)", "gem: p=0"),
        ("gem(p=x)", "gem: p='x'"),
        ("gem(p=[1])", "must be a number"),
        ("kmax(k=0)", "kmax: k=0: must be a whole number from 1"),
        ("kmax(k=2.0)", "k=2.0: must be a whole number"),
        ("logsumexp(beta=0)", "logsumexp: beta=0: must be a number from 0.001 to 1000"),
        ("logsumexp(beta=-1)", "beta=-1"),
        ("logsumexp(beta=nan)", "beta='nan'"),
        ("logsumexp(beta=1e400)", "beta=inf"),
        ("piecewise(n=0)", "piecewise: n=0: must be a whole number from 1 to 64"),
        ("piecewise(n=65)", "n=65"),
        ("piecewise(by=min)", "by='min': must be one of 'max', 'mean'"),
        ("token", r"token needs token, as in token\(\"\[MASK\]\"\)"),
        ("window > mean", r"window needs size, stride, as in window\(size=8, stride=4\) > mean"),
        ("token('')", "must be a special token"),
        ("token(3)", "token=3: must be a special token"),
        ("token([MASK])", "must be a plain value"),
        ("token('[MASK]', '[SEP]')", "cannot read"),
        ("token('[MASK]', token='[SEP]')", "cannot read"),
        ("token('[MASK]') + mean", "token\\('\\[MASK\\]'\\) stands alone"),
        ("window(4, 2) > token('[MASK]')", "stands alone"),
        ("gem(p=open('x'))", "must be a plain value"),
        ("gem(3)", "cannot read"),
        ("gem(p=3, p=4)", "cannot read"),
        ("gem(strategy=max)", "cannot read"),
        ("gem(**{'p': 3})", "cannot read"),
        ("mean < max", "cannot read"),
        ("mean - max", "cannot read"),
        ("mean +", "cannot read"),
        ("", "cannot read"),
        ("mean; max", "cannot read"),
        ("mean.__class__", "cannot read"),
        ("__import__('os').system('true')", "cannot read"),
        ("mean\0", "cannot read"),
        ("(" * 900, "cannot read"),
        ("-" * 900 + "1", "cannot read"),
        ("gem(p=" + "-" * 900 + "1)", "."),
        ("+".join(["max"] * 240), "parts|nested"),
        ("mean" * 1000, "at most 1000"),
        ("window(size=2)", "needs stride"),
        ("window(size=2, stride=2)", "as in 'window.* > mean'"),
        ("mean > max", "nothing can come after"),
        ("attention > window(size=1, stride=1)", "must end in"),
        (["mean", 3], "not 3"),
        ({"p": 3}, "'strategy'"),
        ({"strategy": 3}, "'strategy'"),
        ({"strategy": "gem", 3: 4}, "no option 3"),
        ({"strategy": "mean", "dim": 4}, "dimension 4, not 8"),
        ({"strategy": "concatenation", "parts": "mean"}, "a list"),
        ({"strategy": "concatenation"}, "a list"),
        ({"strategy": "sequence", "stages": ["mean"], "x": 1}, "nothing else"),
        ([], "0 parts"),
        (None, "not None"),
    ],
)
def test_what_is_wrong_is_said(spec, says):
    with pytest.raises(PoolingError, match=says):
        build(spec, DIM)


def test_lists_nested_without_end_are_refused():
    spec: list = ["mean"]
    for _ in range(100_000):
        spec = [spec]
    with pytest.raises(PoolingError, match="nested"):
        build(spec, DIM)


def test_a_bad_dimension_is_refused():
    with pytest.raises(PoolingError, match="dim=0"):
        build("mean", 0)


words = st.sampled_from(
    [*"()+>=,*.[]{}'\"\\ \n-", "mean", "max", "gem", "p", "3", "window", "size", "lambda", "**", "1e9"]
)


@given(st.one_of(st.text(), st.lists(words, max_size=20).map("".join)))
def test_any_string_is_a_strategy_or_an_error(text):
    try:
        assert isinstance(build(text, DIM), Pooler)
    except PoolingError as error:
        assert len(str(error)) < 1000


def test_options_come_from_the_signature():
    assert options_of(GeM) == {"p": 3.0, "per_dim": False, "negative": "signed"}
    assert list(stages()) == ["window", "adaptive"]


def test_fingerprints_tell_options_and_parameters_apart():
    specs = [
        "mean",
        "max",
        "gem(p=3)",
        "gem(p=2)",
        "gem(negative=clamp)",
        "mean + max",
        "max + mean",
        "attention",
    ]
    prints = [build(spec, DIM).fingerprint() for spec in specs] + [build("mean", 4).fingerprint()]
    fitted = build("attention", DIM)
    with torch.no_grad():
        fitted.query[0] = 1e-7
    prints.append(fitted.fingerprint())
    assert len(set(prints)) == len(prints)
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in prints)


# Saved folders


@pytest.mark.parametrize("fitted", [True, False])
def test_saved_and_loaded_is_the_same(strategy, fitted, tmp_path, tokens, mask):
    pooler = strategy.fitted() if fitted else strategy.untrained()
    pooler.save(tmp_path / "new" / "folder")
    again = load(tmp_path / "new" / "folder")
    assert type(again) is type(pooler)
    assert torch.equal(again(tokens, mask), pooler(tokens, mask))
    assert (again.spec, again.trained, again.fingerprint()) == (
        pooler.spec,
        pooler.trained,
        pooler.fingerprint(),
    )


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path):
    build("attention", DIM).save(tmp_path)
    build("gated", DIM).save(tmp_path)
    assert load(tmp_path).spec == "gated"
    assert {path.name for path in tmp_path.iterdir()} == {"pooler.json", "pooler.safetensors"}


def damage(folder, change):
    about = json.loads((folder / "pooler.json").read_text())
    change(about)
    (folder / "pooler.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda f: (f / "pooler.json").unlink(), "pooler.json: not found"),
        (lambda f: (f / "pooler.json").write_text("{"), "pooler.json: cannot be read"),
        (lambda f: (f / "pooler.json").write_bytes(b"\xff\xfe"), "pooler.json: cannot be read"),
        (lambda f: (f / "pooler.json").write_text("[]"), "not the description"),
        (lambda f: damage(f, lambda a: a.update(format=2)), "format 2"),
        (lambda f: damage(f, lambda a: a["config"].update(dim=10**9)), "dim=1000000000: .* from 1 to 65536"),
        (lambda f: damage(f, lambda a: a.pop("trained")), "not the description"),
        (lambda f: damage(f, lambda a: a["config"].update(strategy="atention")), "did you mean 'attention'"),
        (lambda f: damage(f, lambda a: a.update(config={"strategy": "gated", "dim": 8})), "but gated has"),
        (
            lambda f: damage(f, lambda a: a["config"].update(dim=4)),
            r"shape \(8,\), but attention needs \(4,\)",
        ),
        (lambda f: (f / "pooler.safetensors").unlink(), "pooler.safetensors: cannot be read"),
        (lambda f: (f / "pooler.safetensors").write_bytes(b"abc"), "pooler.safetensors: cannot be read"),
        (
            lambda f: save_file({"query": torch.full((8,), torch.nan)}, f / "pooler.safetensors"),
            "query is not finite",
        ),
        (lambda f: save_file({"query": torch.ones(8, 1)}, f / "pooler.safetensors"), r"shape \(8, 1\)"),
        (lambda f: save_file({"other": torch.ones(8)}, f / "pooler.safetensors"), "holds .'other'"),
    ],
)
def test_a_damaged_folder_says_what_is_wrong(harm, says, tmp_path):
    build("attention", DIM).save(tmp_path)
    harm(tmp_path)
    with pytest.raises(PoolingError, match=says):
        load(tmp_path)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(PoolingError, match="not found"):
        load(tmp_path / "nowhere")


def test_the_parameters_are_plain_safetensors(tmp_path):
    build("cls + gated", DIM).save(tmp_path)
    assert {n: tuple(t.shape) for n, t in load_file(tmp_path / "pooler.safetensors").items()} == {
        "parts.1.weight": (8,),
        "parts.1.bias": (),
    }


# Other packages' strategies

MIDRANGE = """
import torch
from pooling import Pooler

class Midrange(Pooler):
    name = "midrange"
    summary = good_for = weak_at = "halfway between smallest and largest"

    def __init__(self, dim, share=0.5):
        super().__init__(dim)
        if not 0 <= share <= 1:
            raise ValueError("share must lie between 0 and 1")
        self.share = share

    def _pool(self, tokens, mask):
        masked = ~mask.unsqueeze(2)
        low = tokens.masked_fill(masked, torch.inf).amin(1)
        high = tokens.masked_fill(masked, -torch.inf).amax(1)
        return low + self.share * (high - low)

    def _weights(self, tokens, mask):
        return mask / mask.sum(1, keepdim=True)

class Mean(Midrange):
    name = "mean"
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package with entry points on the path, as an installer would."""

    def _install(package: str, source: str, entry_points: str) -> None:
        site = tmp_path / package
        about = site / f"{package}-1.0.dist-info"
        about.mkdir(parents=True)
        (site / f"{package}.py").write_text(source)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[millpond.poolers]\n{entry_points}\n")
        monkeypatch.syspath_prepend(site)
        importlib.invalidate_caches()

    return _install


def test_a_strategy_of_another_package_is_found(install, tmp_path):
    install("midrange_pooling", MIDRANGE, "midrange = midrange_pooling:Midrange")
    assert list(available())[-1] == "midrange"
    pooler = build("midrange(share=0.25) + mean", 1)
    vector = pooler(torch.tensor([[[1.0], [5.0], [9.0]]]), torch.tensor([[1, 1, 0]]))
    assert vector.tolist() == [[2.0, 3.0]]
    pooler.save(tmp_path / "saved")
    assert load(tmp_path / "saved").fingerprint() == pooler.fingerprint()
    with pytest.raises(PoolingError, match="midrange: share must lie"):
        build("midrange(share=2)", 1)
    with pytest.raises(PoolingError, match="did you mean 'midrange'"):
        build("midrang", 1)


@pytest.mark.parametrize(
    ("package", "source", "entry", "says"),
    [
        (
            "breaks_on_import",
            "raise RuntimeError('no luck')",
            "lucky = breaks_on_import:X",
            "RuntimeError: no luck",
        ),
        ("lacks_the_class", "", "lucky = lacks_the_class:X", "AttributeError"),
        ("offers_no_pooler", "X = int", "lucky = offers_no_pooler:X", "not a Pooler"),
        (
            "offers_half_a_pooler",
            "from pooling import Pooler as X",
            "lucky = offers_half_a_pooler:X",
            "not a Pooler",
        ),
        ("goes_by_two_names", MIDRANGE, "lucky = goes_by_two_names:Midrange", "calls itself 'midrange'"),
    ],
)
def test_a_broken_package_is_named_and_the_rest_works(install, package, source, entry, says):
    install(package, source, entry)
    with pytest.warns(PluginWarning, match=f"'lucky' of package '{package}'.*{says}"):
        assert set(available()) >= {"mean", "gem"}
    with pytest.raises(PoolingError, match=f"package '{package}'.*{says}"):
        build("lucky", DIM)
    assert build("mean", DIM).spec == "mean"


def test_a_name_that_is_taken_is_refused(install):
    install("takes_a_name", MIDRANGE, "mean = takes_a_name:Mean")
    with pytest.warns(PluginWarning, match="'mean' of package 'takes_a_name' is refused: the name is taken"):
        assert available()["mean"].__module__ == "pooling.fixed"
