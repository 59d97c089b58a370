"""Exported checkpoints: equal to the healed model that was measured, and loaded where there is no project."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from deeper_layers.checkpoints.adopt import adopt_checkpoint
from deeper_layers.checkpoints.cut import cut_checkpoint
from deeper_layers.checkpoints.folder import Checkpoint
from deeper_layers.errors import UserError
from deeper_layers.export.merge import export
from deeper_layers.export.model_card import licence
from deeper_layers.models.adapters import add_adapter, save_adapter
from deeper_layers.models.artifacts import load_healed
from deeper_layers.models.load import load_model
from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.reporting.text import layers_in_words
from helpers.small_study import changed, prepare, run
from helpers.tiny import logits, tiny_model
from helpers.workflow import copy_workflow

pytestmark = pytest.mark.slow
CUT = LayerSet.contiguous(1, 2)

# What a user of the checkpoint runs: no project, no hub, no module of ours in sight.
CLEAN = """
import sys, torch
assert not any("deeper" in path for path in sys.path), sys.path
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = sys.argv[1]
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
inputs = tokenizer("the parents of", return_tensors="pt", return_token_type_ids=False)
made = model.generate(**inputs, max_new_tokens=5, min_new_tokens=5)
assert made.shape[1] == inputs["input_ids"].shape[1] + 5
print(model.config.num_hidden_layers, sum(p.numel() for p in model.parameters()))
print(tokenizer.decode(made[0]))
"""


def adapted(folder, model_type, dtype=torch.float32, **differing):
    """A cut of a tiny model and an adapter for it whose B matrices are not zero; returns both folders."""
    tiny_model(model_type, **differing).to(dtype).save_pretrained(folder / "full")
    adopt_checkpoint(folder / "full", "tiny", folder / "checkpoints/full")
    cut = folder / f"checkpoints/{CUT}"
    cut_checkpoint(folder / "checkpoints/full", CUT, cut)
    model = add_adapter(load_model(cut), 4, 8, 0.0, ["auto"])
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    save_adapter(model, folder / "adapter", cut, folder / "adapter")
    return cut, folder / "adapter"


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "qwen2"])
def test_the_merged_model_is_the_healed_one(model_type, tmp_path):
    cut, adapter = adapted(tmp_path, model_type)
    export(cut, adapter, tmp_path / "out")
    healed, merged = load_healed(cut, adapter), load_model(tmp_path / "out")
    torch.testing.assert_close(logits(merged), logits(healed), rtol=1e-4, atol=1e-4)
    assert (logits(merged) - logits(load_model(cut))).abs().max() > 0.1  # the adapter does something
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config == json.loads((cut / "config.json").read_text())
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["block"] == "drop_1-2" and "model.safetensors" in manifest["files"]


def test_weights_stay_in_the_precision_of_the_file(tmp_path):
    cut, adapter = adapted(tmp_path, "llama", torch.bfloat16)
    export(cut, adapter, tmp_path / "out")
    tensors = Checkpoint.read(tmp_path / "out").tensors
    assert {tensor.dtype for tensor in tensors.values()} == {"BF16"}
    assert load_model(tmp_path / "out", "stored").dtype == torch.bfloat16


def test_without_an_adapter_the_cut_is_linked(tmp_path):
    cut, _ = adapted(tmp_path, "llama")
    export(cut, None, tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").samefile(cut / "model.safetensors")
    assert torch.equal(logits(load_model(tmp_path / "out")), logits(load_model(cut)))
    shutil.rmtree(cut)
    load_model(tmp_path / "out")


def test_an_adapter_of_another_cut_is_refused_and_leaves_nothing(tmp_path):
    cut, adapter = adapted(tmp_path, "llama")
    cut_checkpoint(tmp_path / "checkpoints/full", LayerSet.contiguous(1, 3), tmp_path / "other")
    with pytest.raises(UserError, match="does not fit"):
        export(tmp_path / "other", adapter, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(UserError, match="has no manifest.json"):
        export(tmp_path / "full", None, tmp_path / "out")


def test_the_licence_is_that_of_the_base_models_card(tmp_path, monkeypatch):
    text = "---\nlicense: apache-2.0\nunheard_of: [1]\n---\n# A model\n"
    source = {"kind": "folder", "id": str(tmp_path), "revision": None}
    assert licence(source) is None
    (tmp_path / "README.md").write_text(text)
    assert licence(source) == "apache-2.0"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--owner--name/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text(text.replace("apache-2.0", "mit"))
    assert licence({"kind": "hub", "id": "owner/name", "revision": "abc"}) == "mit"
    assert licence({"kind": "hub", "id": "owner/other", "revision": "abc"}) is None


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A tiny study after ``snakemake export`` of a healed and an un-healed cut."""
    folder = prepare(
        tmp_path_factory.mktemp("study"),
        changed(study__remove=[2], export=["tiny/healed/2", "tiny/pruned/2"]),
    )
    (folder / "tiny/README.md").write_text("---\nlicense: mit\n---\n")
    run(folder, "export", "--cores", "1")
    return folder


def test_snakemake_export_writes_checkpoints_that_load_anywhere(study, tmp_path):
    healed, pruned = sorted((study / "results/export").iterdir())
    assert healed.name.endswith("-healed") and pruned.name.endswith("-pruned")
    for folder in (healed, pruned):
        away = shutil.copytree(folder, tmp_path / folder.name)
        done = subprocess.run(
            [sys.executable, "-I", "-c", CLEAN, str(away)], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        layers, parameters = map(int, done.stdout.splitlines()[0].split())
        manifest = json.loads((away / "manifest.json").read_text())
        assert (layers, parameters) == (3, manifest["parameters"])
    assert "nothing to be done" in run(study, "export", "--cores", "1").lower()


def test_the_card_tells_what_was_removed_healed_and_measured(study):
    folder = next((study / "results/export").glob("*-healed"))
    block = folder.name.split("-", 1)[1].removesuffix("-healed")
    loaded = ModelCard.load(folder / "README.md")
    assert loaded.data.license == "mit" and loaded.data.library_name == "transformers"
    removed = layers_in_words(LayerSet.parse(block))
    assert f"without its layers {removed}: 2 of 5" in " ".join(loaded.text.split())
    results = study / "results/tiny"
    for path, column in ((f"healed/{block}/loss.json", 3), ("pruned/loss/full.json", 2)):
        loss = json.loads((results / path).read_text())["results"]["loss"]
        row = next(line for line in loaded.text.splitlines() if line.startswith("| loss "))
        assert row.split("|")[column].strip() == f"{loss['loss']:.3f} ± {loss['loss_stderr']:.3f}"
    assert "| rank | 4 |" in loaded.text and "| learning rate | 0.01 |" in loaded.text
    assert "gate_proj" in loaded.text and "torch 2" in loaded.text
    un_healed = next((study / "results/export").glob("*-pruned")) / "README.md"
    assert "nothing was trained" in un_healed.read_text() and "rank" not in un_healed.read_text()


def test_a_changed_card_writes_no_weights_again(study, tmp_path):
    code = copy_workflow(tmp_path / "code")
    program = code / "scripts/card.py"
    program.write_text(program.read_text() + "\nother = 1\n")
    output = run(study, "export", "--dry-run", "--snakefile", str(code / "Snakefile"))
    stats = output.split("Job stats:")[1].split("total")[0].split()
    assert "card" in stats and "merge" not in stats


@pytest.mark.parametrize(
    "named, said",
    [
        ([], "nothing to export: name it as MODEL/TREATMENT/N, for example snakemake export"),
        (["tiny/healed"], "export: 'tiny/healed' is not MODEL/TREATMENT/N"),
        (["tiny/heald/2"], "'heald' is not in the study; did you mean 'healed'?"),
        (["tiny/healed/3"], "'tiny/healed/3': the study does not remove 3 layers; it removes 0, 2"),
    ],
)
def test_what_cannot_be_exported_is_one_line(study, named, said):
    config = yaml.safe_load((study / "config.yaml").read_text())
    (study / "other.yaml").write_text(yaml.safe_dump(config | {"export": named}))
    with pytest.raises(AssertionError) as failure:
        run(study, "export", "--cores", "1", "--configfile", "other.yaml")
    assert said in str(failure.value) and "Traceback" not in str(failure.value)
