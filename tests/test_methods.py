"""Healing methods: one new file and one line add one, a training or a repair, for every stage."""

import csv
import json
import subprocess
import sys
import types

import pytest
import yaml

from deeper_layers.errors import UserError
from deeper_layers.healing.methods import METHODS, healing_method
from deeper_layers.models.artifacts import healed_artifact
from deeper_layers.settings.json_schema import with_defaults
from deeper_layers.study import code_hash, options
from deeper_layers.study.asked import asked_by
from deeper_layers.study.checks import check
from deeper_layers.study.jobs import jobs
from deeper_layers.study.study import Study
from helpers.config import ROOT, checked
from helpers.config import changed as default_study
from helpers.small_study import changed, prepare, run
from helpers.workflow import copy_workflow, edit

# A repair: no training, one matrix of the layer before the cut times a constant.
RESCALE = """
from dataclasses import dataclass

from ..models.artifacts import ReplacedTensors
from ..settings.base import Settings, setting
from .method import Demand, Method, estimate
from .results import begin_results, write_summary


@dataclass(frozen=True, kw_only=True)
class Rescaling(Settings):
    WHAT = "rescaling"

    factor: float = setting(float, 1.0, "Of the matrix.", above=0)


class Rescale(Method):
    TITLE = "Rescaling"
    SETTINGS = Rescaling
    ARTIFACT = ReplacedTensors
    NEEDS = frozenset({"full"})

    @estimate
    def demand(self, settings, shape, document_tokens):
        return Demand("fp32", 0, 2, 0, 4 * shape.width * shape.ffn_width)

    def heal(self, files, settings, trust_remote_code=False):
        from safetensors import safe_open

        from ..pruning.layer_set import LayerSet
        from ..runtime.files import read_json

        assert read_json(files.full / "manifest.json")["block"] == "full" and files.tokens is None
        cut = LayerSet.parse(read_json(files.checkpoint / "manifest.json")["block"])
        name = f"model.layers.{max(0, cut.first - 1)}.mlp.down_proj.weight"
        with safe_open(files.checkpoint / "model.safetensors", "pt") as weights:
            tensor = weights.get_tensor(name)
        begin_results(files.out)
        ReplacedTensors.write(files.out, {name: settings.factor * tensor})
        write_summary(files, self.TITLE, settings)


METHOD = Rescale()
"""

# A training of its own: a few steps of the last norm, by keys that recipes have already.
TUNE_NORM = """
from dataclasses import dataclass

from ..models.artifacts import ReplacedTensors
from ..settings.base import Settings, setting
from .method import Demand, Method, estimate
from .results import begin_results, write_summary, write_training


@dataclass(frozen=True, kw_only=True)
class NormTuning(Settings):
    steps: int = setting(int, 1, "Documents, one per step.", least=1)
    learning_rate: float = setting(float, 0.1, "Of plain gradient descent.", above=0)


class TuneNorm(Method):
    TITLE = "Tuning of the last norm"
    SETTINGS = NormTuning
    ARTIFACT = ReplacedTensors
    WRITES = ("training.csv",)

    @estimate
    def demand(self, settings, shape, document_tokens):
        return Demand("fp32", settings.steps * min(64, document_tokens), 6, 100, 4 * shape.width)

    def heal(self, files, settings, trust_remote_code=False):
        import torch

        from ..data.tokens import Tokens
        from ..models.load import load_model

        model, tokens, log = load_model(files.checkpoint, "fp32", trust_remote_code), Tokens(files.tokens), []
        weight = model.model.norm.weight
        for step in range(settings.steps):
            ids = torch.from_numpy(tokens[step])[None]
            loss = model(ids, labels=ids).loss
            (gradient,) = torch.autograd.grad(loss, weight)
            weight.data -= settings.learning_rate * gradient
            facts = {"learning_rate": settings.learning_rate, "grad_norm": gradient.norm().item()}
            log.append({"step": step + 1, "loss": loss.item(), **facts})
        begin_results(files.out)
        ReplacedTensors.write(files.out, {"model.norm.weight": weight.data})
        write_training(files.out, log, tokens.lengths.cumsum())
        write_summary(files, self.TITLE, settings)


METHOD = TuneNorm()
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """A copy of the workflow with two methods more: two new files, and a line for each."""
    code = copy_workflow(tmp_path_factory.mktemp("code"))
    healing = code / "scripts/deeper_layers/healing"
    (healing / "rescale.py").write_text(RESCALE)
    (healing / "tune_norm.py").write_text(TUNE_NORM)
    line = '    "qlora": "qlora",\n'
    lines = line + '    "rescale": "rescale",\n    "tune_norm": "tune_norm",\n'
    edit(healing / "methods.py", line, lines)
    return code


@pytest.fixture(scope="module")
def study(code, tmp_path_factory):
    """The folder of a small study with a recipe of each method, after a run."""
    config = changed(
        study__remove=[2],
        study__recipes=["healed", "rescaled", "tuned"],
        recipes__rescaled={"text": "world", "method": "rescale", "settings": {"factor": 0.5}},
        recipes__tuned={"text": "world", "method": "tune_norm", "steps": 5, "learning_rate": 0.5},
        export=["tiny/rescaled/2", "tiny/tuned/2"],
    )
    folder = prepare(tmp_path_factory.mktemp("study"), config)
    run(folder, "all", "export", "--cores", "1", "--snakefile", str(code / "Snakefile"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["rescaled", "tuned"])
def test_an_added_method_heals_is_evaluated_and_exported(code, study, recipe):
    results = study / "results"
    (healed,) = (results / f"tiny/{recipe}").glob("drop_*")
    evaluation = json.loads((healed / "loss.json").read_text())
    assert evaluation["deeper_layers"]["adapter"] == healed_artifact(healed).digest()
    assert evaluation["deeper_layers"]["treatment"] == recipe
    loss = evaluation["results"]["loss"]["loss"]
    pruned = json.loads((results / f"tiny/pruned/loss/{healed.name}.json").read_text())
    assert abs(loss - pruned["results"]["loss"]["loss"]) > 1e-3  # the artifact counts

    rows = list(csv.DictReader((results / "table.csv").read_text().splitlines()))
    (row,) = (row for row in rows if row["treatment"] == recipe and row["n"] == "2")
    assert float(row["loss"]) == pytest.approx(loss)

    exported = results / f"export/tiny-{healed.name}-{recipe}"
    title = {"rescaled": "Rescaling", "tuned": "Tuning of the last norm"}[recipe]
    text = " ".join((exported / "README.md").read_text().split())
    assert "healed with new weights, which replace those of the cut. " in text
    assert f"{title} on the cut model. " in text and "rank" not in text
    options = ["--loss", "--suite", "loss", "--sequences", "30", "--length", "64", "--precision", "fp32"]
    tokens, out = results / "tiny/tokens/world-validation.json", study / f"{recipe}.json"
    program = [sys.executable, code / "scripts/evaluate.py", *options, "--threads", "1"]
    subprocess.run([*program, "--checkpoint", exported, "--tokens", tokens, "--out", out], check=True)
    assert json.loads(out.read_text())["results"]["loss"]["loss"] == pytest.approx(loss, abs=1e-6)


@pytest.mark.slow
def test_an_added_method_reruns_nothing_of_others(study):
    """In the workflow as it is: what qlora healed in the one with two methods more is as it should be."""
    (study / "config.yaml").write_text(yaml.safe_dump(changed(study__remove=[2])))
    target = "results/tiny/healed/evaluated/loss-1of1.json"
    assert "Nothing to be done" in run(study, target, "--dry-run", "--cores", "1")


def test_the_default_method_adds_nothing_to_the_parameters_of_a_job():
    study = Study(default_study())
    recipe = study.recipes[0]
    assert "--method" not in options.heal(study, recipe, study.models[0])
    assert set(METHODS) == {"qlora", "repaired_qlora", "partial", "linear", "scale"}
    assert healing_method("qlora").TITLE == "QLoRA"


@pytest.fixture
def rescaled(monkeypatch):
    """A study with a recipe of the repair, registered in this process."""
    return with_method(monkeypatch, "rescale", RESCALE, "rescaled")


def with_method(monkeypatch, name, text, recipe):
    """The default study with one recipe, of the method ``name``, whose module is ``text``."""
    module = types.ModuleType(f"deeper_layers.healing.{name}")
    module.__package__ = "deeper_layers.healing"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(text, vars(module))
    monkeypatch.setitem(METHODS, name, name)
    recipes = {recipe: {"text": "world", "method": name}}
    return checked(with_defaults(default_study(recipes=recipes, study__recipes=[recipe])))


def test_defaults_of_a_method_are_parameters_so_that_a_changed_one_heals_again(rescaled):
    assert options.heal(rescaled, "rescaled", "embedded") == "--factor 1.0 --method rescale"


def test_a_method_has_its_own_defaults_for_keys_that_the_default_method_has_too(monkeypatch):
    study = with_method(monkeypatch, "tune_norm", TUNE_NORM, "tuned")
    assert options.heal(study, "tuned", "embedded") == "--learning-rate 0.1 --method tune_norm --steps 1"


def test_its_jobs_are_planned_by_the_name_of_its_rule(rescaled):
    stages = {job.stage for job in jobs(rescaled)}
    assert "heal_rescale" in stages and "heal" not in stages


def test_a_text_that_its_method_does_not_read_is_not_made_for_it(rescaled):
    rescaled.config["recipes"]["rescaled"]["split"] = "calibration"
    rescaled.config["study"]["strategies"][:] = ["deepest"]
    assert list(rescaled.documents("world")) == ["train", "validation"]  # of the base model and the loss
    assert [job.stage for job in jobs(rescaled)].count("tokenise") == 1


def test_a_method_asks_of_a_model_only_what_its_own_settings_say(rescaled):
    asked = asked_by(rescaled, "embedded")
    assert not asked.lengths["recipes.rescaled.length"]
    assert "recipes.rescaled.precision" not in asked.precisions
    assert options.check(rescaled) == "--precisions fp32"


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"method": "qlorra"}, "recipes.healed.method: 'qlorra' is not known; did you mean 'qlora'?"),
        ({"settings": {"ranks": 3}}, "recipes.healed.settings: qlora has no setting 'ranks'; did you mean"),
        (
            {"models": {"embedded": {"method": "x"}}},
            "recipes.healed.models.embedded.method: a recipe has one",
        ),
    ],
)
def test_a_method_that_cannot_be_is_one_line(changes, said):
    config = default_study()
    config["recipes"]["healed"] |= changes
    with pytest.raises(UserError) as error:
        check(Study(config))
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


def test_another_method_in_the_table_changes_no_hash(code, monkeypatch):
    def now(scripts):
        monkeypatch.setattr(code_hash, "SCRIPTS", scripts)
        return code_hash.code("heal", "healing/qlora"), code_hash.code("evaluate"), code_hash.code("card")

    assert now(ROOT / "scripts") == now(code / "scripts")
