"""Healing by distillation: each objective against its formula, with the uncut model loaded by itself."""

import csv
import json
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from deeper_layers.checkpoints.cut import cut_checkpoint
from deeper_layers.data.batches import padded
from deeper_layers.data.tokens import write_tokens
from deeper_layers.errors import UserError
from deeper_layers.healing import objective as objectives
from deeper_layers.healing.method import HealingFiles
from deeper_layers.healing.methods import healing_method
from deeper_layers.healing.objective import Objective, Teacher
from deeper_layers.healing.training import heal
from deeper_layers.models.adapters import add_adapter
from deeper_layers.models.artifacts import ReplacedTensors, healed_artifact, load_healed
from deeper_layers.models.layers import Removal
from deeper_layers.models.load import load_model
from deeper_layers.pruning.layer_set import FULL, LayerSet
from deeper_layers.settings.healing import HealingAfterRepair
from helpers.healing import RECIPE, counting, tiny_llama

torch.set_num_threads(1)
BOTH = replace(RECIPE, cross_entropy=0.5, logits=1.0, interface=2.0, dropout=0.0, steps=10)
CUTS = [LayerSet.contiguous(2, 2), LayerSet((1, 3)), LayerSet((0, 2))]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    tiny_llama(layers=5).save_pretrained(folder)
    return folder


@pytest.fixture
def documents():
    return [np.array(d) for d in counting(9, seed=5)]


def student(folder, block: LayerSet):
    """A cut with an adapter that does something, and its teacher."""
    model = load_model(folder)
    removal = Removal(model, block)
    with removal.done():
        model = add_adapter(model, 4, 4, 0.0, ["auto"])
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        yield model, Teacher(model, removal, block)


@pytest.mark.parametrize("block", CUTS, ids=str)
@pytest.mark.parametrize("logits", [64 * 7, 2**26])
def test_objectives_are_their_formulas(full, documents, block, logits, monkeypatch):
    """Against one document at a time, the uncut model loaded again, hidden states as transformers gives
    them; and the gradients of all adapters."""
    monkeypatch.setattr(objectives, "LOGITS", logits)
    plain = load_model(full)
    for model, teacher in student(full, block):
        found = Objective(model.get_base_model(), BOTH, teacher)(*padded(documents))
        expected = {"cross_entropy": 0.0, "logits": 0.0, "interface": 0.0}
        runs = [(first, last) for first, last in block.runs if first]
        for document in documents:
            ids = torch.from_numpy(document)[None]
            with torch.no_grad():
                uncut = plain(input_ids=ids, output_hidden_states=True)
            cut = model(input_ids=ids, output_hidden_states=True)
            log_q, log_p = (o.logits[0, :-1].log_softmax(-1) for o in (cut, uncut))
            expected["cross_entropy"] += F.nll_loss(log_q, ids[0, 1:], reduction="sum")
            expected["logits"] += (log_p.exp() * (log_p - log_q)).sum()
            for first, last in runs:
                gone = sum(layer < first for layer in block.removed)
                s, t = cut.hidden_states[first - gone][0], uncut.hidden_states[last + 1][0]
                expected["interface"] += ((s - t).square().sum(-1) / t.square().sum(-1)).sum() / len(runs)
        assert found.keys() == expected.keys()
        adapter = [p for p in model.parameters() if p.requires_grad]
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)
            both = [
                torch.autograd.grad(v, adapter, retain_graph=True, allow_unused=True)
                for v in (found[name], value)
            ]
            for ours, theirs in zip(*both, strict=True):
                if theirs is not None:
                    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
        again = plain(input_ids=padded(documents)[0]).logits
        with teacher.at_work():
            torch.testing.assert_close(model(input_ids=padded(documents)[0]).logits, again)


def test_a_teacher_has_nothing_to_teach_itself(full, documents):
    """Divergence and gradient are 0 where nothing is removed and the adapter does nothing."""
    model = load_model(full)
    removal = Removal(model, FULL)
    model = add_adapter(model, 4, 4, 0.0, ["auto"])
    recipe = replace(BOTH, cross_entropy=0, interface=0)
    loss = Objective(model.get_base_model(), recipe, Teacher(model, removal, FULL))(*padded(documents))
    loss["logits"].backward()
    assert loss["logits"].abs() < 1e-4
    assert max(p.grad.abs().max() for p in model.parameters() if p.requires_grad) < 1e-4


def test_the_same_stream_is_no_difference(documents):
    s = torch.randn(7, 5, requires_grad=True)
    loss = objectives._relative_square(s, s.detach().clone())
    loss.backward()
    assert loss == 0 and not s.grad.any()
    assert objectives._relative_square(2 * s.detach(), s.detach()).item() == pytest.approx(7)


@pytest.fixture(scope="module")
def study(full, tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    for block in CUTS:
        cut_checkpoint(full, block, root / str(block))
    write_tokens(root / "train.safetensors", counting(300, seed=1))
    return root


def run(full, root, block: LayerSet, name: str, recipe):
    files = HealingFiles(root / str(block), root / "train.safetensors", root / name, root / "state", full)
    heal(files, recipe)
    return root / name


def test_an_adapter_comes_closer_to_the_uncut_model(full, study, documents):
    """It is one of the cut's checkpoint, and the training says what became of each objective."""
    block = CUTS[0]
    out = run(full, study, block, "distilled", replace(BOTH, cross_entropy=0, steps=40))
    healed, plain = load_healed(study / str(block), out / "adapter"), load_model(full)
    unhealed = load_model(study / str(block))
    ids = padded(documents)[0]
    with torch.no_grad():
        log_p = plain(input_ids=ids).logits.log_softmax(-1)
        before, after = (
            F.kl_div(m(input_ids=ids).logits.log_softmax(-1), log_p, reduction="sum", log_target=True)
            for m in (unhealed, healed)
        )
    assert after < 0.7 * before
    rows = list(csv.DictReader((out / "training.csv").read_text().splitlines()))
    last = {name: float(rows[-1][name]) for name in ("loss", "logits", "interface")}
    assert last["loss"] == pytest.approx(last["logits"] + 2 * last["interface"], rel=1e-5)
    summary = json.loads((out / "heal.json").read_text())
    assert summary["final_objectives"].keys() == {"logits", "interface"}
    assert summary["recipe"]["logits"] == 1.0


def test_with_the_next_token_alone_it_is_the_training_of_the_checkpoint(full, study, monkeypatch):
    """The cut taken out of the uncut model is the cut's checkpoint: a teacher that has nothing to say changes
    no step."""
    recipe = replace(BOTH, logits=0, interface=0, cross_entropy=1.0, dropout=0.05)
    block = CUTS[1]
    plain = run(full, study, block, "plain", recipe)
    taught = run(full, study, block, "taught", replace(recipe, logits=1e-30))
    losses = [
        [row["loss"] for row in csv.DictReader((out / "training.csv").read_text().splitlines())]
        for out in (plain, taught)
    ]
    assert losses[0] == losses[1]
    adapters = [(out / "adapter/adapter_model.safetensors").read_bytes() for out in (plain, taught)]
    assert adapters[0] == adapters[1]


def test_gradient_checkpointing_changes_no_objective(full, study):
    curves = []
    for how in ("off", "on"):
        out = run(full, study, CUTS[0], how, replace(BOTH, checkpointing=how))
        curves.append(np.loadtxt(out / "training.csv", delimiter=",", skiprows=1))
    np.testing.assert_allclose(*curves, rtol=1e-3)


@pytest.fixture(scope="module")
def repaired(study):
    """A cut whose layer before it is changed: as an artifact, and written into a checkpoint."""
    model = load_model(study / str(CUTS[0]))
    name = "model.layers.1.mlp.down_proj.weight"
    ReplacedTensors.write(study / "repair", {name: 3 * model.get_parameter(name).detach()})
    healed_artifact(study / "repair").merge(model).save_pretrained(study / "merged")
    return study / "repair/replaced/replaced.safetensors"


def test_healing_goes_on_from_a_repair(full, study, repaired, documents):
    """It is what it would be of a checkpoint with the repair written into it, and its artifact is the whole;
    put on the cut, or merged."""
    recipe = replace(BOTH, logits=0.0, interface=0.0, dropout=0.05)
    files = HealingFiles(study / str(CUTS[0]), study / "train.safetensors", study / "after", study / "state")
    after = HealingAfterRepair(**asdict(recipe), after="repair")
    healing_method("repaired_qlora").heal(replace(files, repair=repaired), after)
    healing_method("qlora").heal(replace(files, checkpoint=study / "merged", out=study / "written"), recipe)
    curves = [(study / out / "training.csv").read_text() for out in ("after", "written")]
    assert curves[0] == curves[1]
    artifact, ids = healed_artifact(study / "after"), padded(documents)[0]
    assert artifact.describe().kind == "LoRA on repaired weights"
    expected = load_healed(study / "merged", study / "written/adapter")(input_ids=ids).logits
    found = load_healed(study / str(CUTS[0]), study / "after/repaired_adapter")(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    merged = artifact.merge(load_model(study / str(CUTS[0])))(input_ids=ids).logits
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-4)


def test_the_teacher_of_a_repaired_cut_is_not_repaired(full, study, repaired, documents):
    ids, plain = padded(documents)[0], load_model(full)
    for model, teacher in student(full, CUTS[0]):
        base = model.get_base_model()
        before = model(input_ids=ids).logits
        name = "model.layers.1.mlp.down_proj.base_layer.weight"
        new = torch.nn.Parameter(3 * base.get_parameter(name).detach(), False)
        teacher.removal.replace(partial(setattr, base.get_submodule(name[:-7]), "weight", new))
        assert (model(input_ids=ids).logits - before).abs().max() > 0.01
        with teacher.at_work():
            torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits)
        assert base.get_parameter(name) is new


def test_a_cut_from_the_first_layer_on_has_no_interface(full, study, tmp_path):
    block = LayerSet.contiguous(0, 2)
    cut_checkpoint(full, block, study / str(block))
    with pytest.raises(UserError, match="interface alone has nothing to learn for a cut from the first"):
        run(full, study, block, "none", replace(BOTH, cross_entropy=0, logits=0))
