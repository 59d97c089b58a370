"""Repairs against plain implementations: least squares by numpy from stored activations, and the scale as a
loop that multiplies all that is written before the cut."""

import copy
import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from deeper_layers.checkpoints.adopt import adopt_checkpoint
from deeper_layers.checkpoints.cut import cut_checkpoint
from deeper_layers.data.tokens import Tokens, write_tokens
from deeper_layers.errors import UserError
from deeper_layers.healing import least_squares, stream_scale
from deeper_layers.healing.method import HealingFiles
from deeper_layers.healing.methods import healing_method
from deeper_layers.healing.repair import Site, batches
from deeper_layers.models.artifacts import load_healed
from deeper_layers.models.layers import decoder_layers
from deeper_layers.models.load import load_model
from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.settings.repair import LinearSettings, RepairSettings
from helpers.config import changed, checked
from helpers.healing import counting, tiny_llama
from helpers.small_study import changed as small
from helpers.small_study import prepare, run
from helpers.tiny import tiny_model

SAMPLES, ASIDE = 40, 10
COMMON = {"samples": SAMPLES, "length": 24, "held_out": 0.25, "precision": "fp32", "batch_tokens": 200}


MENDED = {
    "text": "world",
    "method": "repaired_qlora",
    "control": False,
    "rank": 4,
    "steps": 6,
    "warmup": 1,
    "batch": 4,
    "length": 32,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def documents() -> list[list[int]]:
    return [document for document in counting(60, seed=3) if len(document) > 1][:SAMPLES]


def taught(model):
    """A model that knows what follows, so that a loss says what a repair is worth."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows = [torch.tensor(d[:12]) for d in counting(1500, seed=9) if len(d) >= 12]
    for step in range(60):
        batch = torch.stack(rows[8 * step % 800 :][:8])
        model(batch, labels=batch).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory, documents) -> Path:
    """A folder with the uncut model (tied embeddings) in full/ and tokens."""
    folder = tmp_path_factory.mktemp("repair")
    model = taught(tiny_llama(6, tie_word_embeddings=True))
    model.save_pretrained(folder / "plain")
    adopt_checkpoint(folder / "plain", "tiny", folder / "full")
    write_tokens(folder / "tokens", documents)
    return folder


def heal(base: Path, out: Path, method: str, settings, block: str) -> dict:
    """heal.json of a repair of the cut called ``block``."""
    cut_checkpoint(base / "full", LayerSet.parse(block), out / "cut")
    files = HealingFiles(out / "cut", base / "tokens", out / "healed", out / "state", base / "full")
    healing_method(method).heal(files, settings)
    return json.loads((out / "healed/heal.json").read_text())


def replaced(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "healed/replaced/replaced.safetensors")


def plain(base: Path) -> torch.nn.Module:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(base / "plain").eval()


@torch.no_grad()
def streams(model, documents) -> dict[str, np.ndarray]:
    """Of all tokens in float64, for each layer what comes out of it and of its down projection."""
    found: dict[str, list[np.ndarray]] = {}
    hooks = []
    for i, layer in enumerate(model.model.layers):
        for name, module in ((f"out{i}", layer), (f"mlp{i}", layer.mlp.down_proj)):
            hooks.append(module.register_forward_hook(
                lambda _m, _a, out, name=name: found.setdefault(name, []).append(
                    (out if isinstance(out, torch.Tensor) else out[0])[0].double().numpy()
                )
            ))  # fmt: skip
    for document in documents:
        model(torch.tensor([document[:24]]))
    for hook in hooks:
        hook.remove()
    return {name: np.concatenate(parts) for name, parts in found.items()}


@torch.no_grad()
def loss(model, documents) -> float:
    nats = tokens = 0
    for document in documents:
        ids = torch.tensor([document[:24]])
        nats += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    return nats / tokens


@pytest.mark.parametrize("toward", ["identity", "zero"])
def test_linear_is_the_least_squares_solution_of_numpy(base, documents, tmp_path, toward):
    told = heal(base, tmp_path, "linear", LinearSettings(**COMMON, ridges=[1e-9], toward=toward), "drop_2-3")
    model = plain(base)
    s = streams(model, documents[: SAMPLES - ASIDE])
    m, y, z = s["mlp1"], s["out1"] - s["mlp1"], s["out3"]
    solution, *_ = np.linalg.lstsq(m, z - y, rcond=None)
    (run,) = told["runs"]
    assert run["repaired"] and told["repaired"] and run["layer"] == 1 and told["tokens"] == len(m)
    weight = model.model.layers[1].mlp.down_proj.weight.detach().double().numpy()
    (name,) = replaced(tmp_path)
    assert name == "model.layers.1.mlp.down_proj.weight"
    assert np.allclose(replaced(tmp_path)[name].numpy(), solution.T @ weight, rtol=1e-4, atol=1e-5)
    # It lowers the error that it was fitted to, and what it says of the others is so.
    assert np.square(z - y - m @ solution).mean() < np.square(z - y - m).mean()
    aside = streams(model, documents[SAMPLES - ASIDE :])
    lacking = aside["out3"] - aside["out1"]
    wrong = lacking - aside["mlp1"] @ (solution - np.eye(len(solution)))
    assert run["error_cut"] == pytest.approx(np.square(lacking).sum(1).mean(), rel=1e-5)
    assert run["error_repaired"] == pytest.approx(np.square(wrong).sum(1).mean(), rel=1e-4)


def test_the_losses_that_it_is_judged_by_are_those_of_the_checkpoints(base, documents, tmp_path):
    told = heal(base, tmp_path, "linear", LinearSettings(**COMMON), "drop_2-3")
    (run,) = told["runs"]
    aside = documents[SAMPLES - ASIDE :]
    from transformers import LlamaForCausalLM

    cut = LlamaForCausalLM.from_pretrained(tmp_path / "cut").eval()
    assert run["loss_cut"] == pytest.approx(loss(cut, aside), rel=1e-5)
    healed = load_healed(tmp_path / "cut", tmp_path / "healed/replaced")
    assert run["loss_repaired"] == pytest.approx(loss(healed, aside), rel=1e-5)
    assert run["difference"] == pytest.approx(run["loss_repaired"] - run["loss_cut"], rel=1e-4)
    assert run["difference"] < 0 < run["difference_stderr"] and run["ridge"] in LinearSettings.ridges


def test_a_ridge_is_what_the_formula_says(base, documents, tmp_path):
    s = streams(plain(base), documents[: SAMPLES - ASIDE])
    m, lacking = s["mlp1"], s["out3"] - s["out1"]
    a = 0.5 * np.trace(m.T @ m) / m.shape[1]
    for toward, right in (("identity", lacking), ("zero", lacking + m)):
        change = np.linalg.solve(m.T @ m + a * np.eye(m.shape[1]), m.T @ right)
        change -= np.eye(m.shape[1]) * (toward == "zero")
        settings = LinearSettings(**COMMON, ridges=[0.5], toward=toward)
        told = heal(base, tmp_path / toward, "linear", settings, "drop_2-3")
        before = plain(base).model.layers[1].mlp.down_proj.weight.detach().double().numpy()
        after = before + change.T @ before if told["repaired"] else before
        (found,) = replaced(tmp_path / toward).values()
        assert np.allclose(found.numpy(), after, rtol=1e-4, atol=1e-5)


def test_runs_are_repaired_one_after_the_other(base, documents, tmp_path):
    """The second run's input is that of the repaired model, its target still that of the uncut one."""
    told = heal(base, tmp_path, "linear", LinearSettings(**COMMON, ridges=[1e-9]), "drop_1_4")
    first, second = told["runs"]
    assert (first["layer"], second["layer"]) == (0, 3) and first["repaired"] and second["repaired"]
    model = plain(base)
    uncut = streams(model, documents[: SAMPLES - ASIDE])
    m = uncut["mlp0"]
    solution, *_ = np.linalg.lstsq(m, uncut["out1"] - uncut["out0"] + m, rcond=None)
    by_then = copy.deepcopy(model)
    by_then.model.layers[0].mlp.down_proj.weight.data.copy_(
        replaced(tmp_path)["model.layers.0.mlp.down_proj.weight"]
    )
    expected = solution.T @ model.model.layers[0].mlp.down_proj.weight.detach().double().numpy()
    assert np.allclose(by_then.model.layers[0].mlp.down_proj.weight.detach(), expected, rtol=1e-4, atol=1e-5)
    del by_then.model.layers[1]
    s = streams(by_then, documents[: SAMPLES - ASIDE])
    m = s["mlp2"]  # layer 3, of which one before is gone
    solution, *_ = np.linalg.lstsq(m, uncut["out4"] - s["out2"] + m, rcond=None)
    weight = model.model.layers[3].mlp.down_proj.weight.detach().double().numpy()
    found = replaced(tmp_path)["model.layers.2.mlp.down_proj.weight"].numpy()
    assert np.allclose(found, solution.T @ weight, rtol=1e-3, atol=1e-4)


def test_scale_is_a_loop_that_multiplies_all_that_is_written_before_the_cut(base, documents):
    """Of two runs, the second on top of the first."""
    rows = [np.array(document[:24]) for document in documents[: SAMPLES - ASIDE]]
    given = batches(rows, 200, torch.device("cpu"))
    model = load_model(base / "full")
    site = Site(model, decoder_layers(model), 1, 1)
    (first,) = stream_scale.fit(site, given, [], RepairSettings(**COMMON))
    site = replace(site, first=3, last=4, before=LayerSet((1,)), weights=first.weights, scale=first.scale)
    (second,) = stream_scale.fit(site, given, [], RepairSettings(**COMMON))

    uncut, formula = plain(base), plain(base)
    target = streams(uncut, documents[: SAMPLES - ASIDE])
    formula.lm_head.weight = torch.nn.Parameter(formula.lm_head.weight.detach().clone())  # untied

    def multiply(layers, a: float) -> None:
        with torch.no_grad():
            formula.model.embed_tokens.weight *= a
            for layer in layers:
                layer.self_attn.o_proj.weight *= a
                layer.mlp.down_proj.weight *= a

    a = (np.abs(target["out1"]).mean(0) / np.abs(target["out0"]).mean(0)).mean()
    assert first.facts["a"] == pytest.approx(a, rel=1e-5) and abs(a - 1) > 0.02
    multiply(formula.model.layers[:1], a)
    del formula.model.layers[1]
    before = streams(formula, documents[: SAMPLES - ASIDE])["out1"]  # layer 2
    a = (np.abs(target["out4"]).mean(0) / np.abs(before).mean(0)).mean()
    assert second.facts["a"] == pytest.approx(a, rel=1e-4)
    multiply(formula.model.layers[:2], a)
    del formula.model.layers[2:4]
    ids = torch.tensor([documents[0][:24]])
    with torch.no_grad(), site.cut(second.weights):
        found = model(ids, use_cache=False).logits
        assert torch.allclose(found, formula(ids, use_cache=False).logits, rtol=1e-3, atol=1e-3)
    with torch.no_grad(), site.cut({}):
        assert not torch.allclose(found, model(ids, use_cache=False).logits, rtol=1e-2, atol=1e-2)


def test_a_scale_of_one_changes_nothing(base, documents, tmp_path, monkeypatch):
    monkeypatch.setattr(stream_scale, "ratio", lambda *_: 1.0)
    heal(base, tmp_path, "scale", RepairSettings(**COMMON), "drop_2-3")
    for name, tensor in replaced(tmp_path).items():
        own = load_file(tmp_path / "cut/model.safetensors")[name]
        assert torch.equal(tensor, own)


def test_what_makes_it_worse_is_not_applied(base, tmp_path, monkeypatch, capsys):
    """A repair that turns the output round: the tensor stays, and heal.json and the log say so."""
    monkeypatch.setattr(
        least_squares, "solve", lambda sums, *_: -20 * torch.eye(len(sums.mm), dtype=torch.float64)
    )
    told = heal(base, tmp_path, "linear", LinearSettings(**COMMON), "drop_2-3")
    (run,) = told["runs"]
    assert not told["repaired"] and not run["repaired"] and run["difference"] > 0
    ((name, tensor),) = replaced(tmp_path).items()
    assert torch.equal(tensor, load_file(tmp_path / "cut/model.safetensors")[name])
    assert "without 2-3 the model is left as it was cut" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "model_type", "block", "fault"),
    [
        ("linear", "olmo2", "drop_1-1", "not the residual stream plus that of one linear module"),
        ("linear", "mixtral", "drop_1-1", "not the residual stream plus that of one linear module"),
        ("scale", "olmo2", "drop_1-1", "sees the scale of its residual stream"),
        ("scale", "gemma2", "drop_1-1", "sees the scale of its residual stream"),
        ("linear", "llama", "full", "the uncut model has nothing to repair"),
    ],
)
def test_models_that_cannot_be_repaired_are_refused(tmp_path, method, model_type, block, fault):
    tiny_model(model_type).save_pretrained(tmp_path / "plain")
    adopt_checkpoint(tmp_path / "plain", "tiny", tmp_path / "full")
    write_tokens(tmp_path / "tokens", [[5, 6, 7, 8, 9, 10]] * 12)
    few = {**COMMON, "samples": 12}
    settings = {"linear": LinearSettings, "scale": RepairSettings}[method](**few)
    with pytest.raises(UserError, match=fault):
        heal(tmp_path, tmp_path, method, settings, block)


@pytest.mark.parametrize(
    ("method", "block", "why"),
    [
        ("linear", "drop_0-1", "no layer precedes the cut"),
        ("scale", "drop_4-5", "no layer follows the cut, and the last norm does not see the stream's scale"),
    ],
)
def test_a_cut_at_the_edge_is_left_as_it_is(base, tmp_path, capsys, method, block, why):
    settings = healing_method(method).SETTINGS(**COMMON)
    told = heal(base, tmp_path, method, settings, block)
    assert not told["repaired"] and told["runs"][0]["why"] == why and why in capsys.readouterr().out
    own = load_file(tmp_path / "cut/model.safetensors")
    assert all(torch.equal(tensor, own[name]) for name, tensor in replaced(tmp_path).items())


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox", "phi", "qwen2", "opt", "gemma", "cohere"])
def test_linear_repairs_what_adds_its_feed_forward_output(tmp_path, model_type):
    """Biases, transposed weights, attention beside the feed-forward network."""
    tiny_model(model_type).save_pretrained(tmp_path / "plain")
    adopt_checkpoint(tmp_path / "plain", "tiny", tmp_path / "full")
    rng = np.random.default_rng(0)
    write_tokens(tmp_path / "tokens", [rng.integers(2, 30, 12).tolist() for _ in range(60)])
    told = heal(tmp_path, tmp_path, "linear", LinearSettings(**COMMON | {"samples": 60}), "drop_2-2")
    (run,) = told["runs"]
    assert run["error_repaired"] < run["error_cut"]
    healed = load_healed(tmp_path / "cut", tmp_path / "healed/replaced")
    assert sum(p.numel() for p in healed.parameters()) > 0


def test_a_repair_has_no_control(tmp_path):
    with pytest.raises(UserError, match="control: linear does nothing to the uncut model"):
        checked(changed(recipes__healed={"text": "world", "method": "linear", "control": True}))


@pytest.mark.parametrize("after", [None, "nobody", "healed", "mended"])
def test_a_healing_after_a_repair_names_one(after):
    recipe = MENDED | {"settings": {"after": after} if after else {}}
    config = changed(study__recipes=["healed", "mended"], recipes__mended=recipe)
    with pytest.raises(
        UserError, match=f"recipes.mended.settings.after: '?{after}'? is no recipe of the study that"
    ):
        checked(config)


@pytest.mark.slow
def test_a_study_with_repairs_ends_with_their_rows(tmp_path):
    """Evaluated, exported as a plain checkpoint whose loss is the evaluated one's."""
    few = {"samples": 30, "length": 32, "precision": "fp32"}
    config = small(
        study__remove=[2],
        study__recipes=["linear", "scale", "mended"],
        recipes__linear={"text": "world", "method": "linear", "settings": few},
        recipes__scale={"text": "world", "method": "scale", "settings": few},
        recipes__mended=MENDED | {"settings": {"after": "linear"}, "logits": 0.5},
        export=["tiny/linear/2", "tiny/mended/2"],
    )
    folder = prepare(tmp_path, config)
    assert "heal_linear" in run(folder, "plan", "--cores", "1")
    run(folder, "all", "export", "--cores", "2")
    with open(folder / "results/table.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["n"] == "2"]
    assert {row["treatment"] for row in rows} == {"pruned", "linear", "scale", "mended"}
    for recipe, said in (("linear", "replace those of the cut"), ("mended", "LoRA on repaired weights")):
        (exported,) = folder.glob(f"results/export/tiny-drop_*-{recipe}")
        (block,) = [path.name for path in (folder / f"results/tiny/{recipe}").glob("drop_*")]
        evaluated = json.loads((folder / f"results/tiny/{recipe}/{block}/loss.json").read_text())
        tokens = Tokens(folder / "results/tiny/tokens/world-validation").first(30, 64)
        assert loss_of(exported, tokens) == pytest.approx(evaluated["results"]["loss"]["loss"], rel=1e-5)
        assert said in (exported / "README.md").read_text()


def loss_of(checkpoint: Path, tokens: list) -> float:
    """Nats per token of a plain checkpoint, one document at a time."""
    from transformers import AutoModelForCausalLM

    nats = count = 0
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    for document in tokens:
        ids = torch.from_numpy(document)[None]
        with torch.no_grad():
            nats += model(ids, labels=ids).loss.item() * (len(document) - 1)
        count += len(document) - 1
    return nats / count
