"""A study of one's own: three lines of the template are changed, or the README has it as it is."""

import json
import re

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file
from snakemake.utils import update_config

from deeper_layers.errors import UserError
from deeper_layers.study.jobs import jobs
from deeper_layers.study.overlay import effective
from deeper_layers.study.study import Study
from helpers.config import ROOT, checked

TEMPLATE = (ROOT / "studies/template.yaml").read_text()
EXAMPLE = re.search(r"```yaml\n(# studies/mine.yaml\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]


@pytest.fixture
def place(tmp_path):
    """A folder with a model of 24 layers (its config.json and one weight) and a text."""
    config = {"model_type": "llama", "num_hidden_layers": 24, "hidden_size": 64, "intermediate_size": 128}
    config |= {"num_attention_heads": 4, "vocab_size": 1000, "max_position_embeddings": 2048}
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))
    save_file({"model.norm.weight": np.ones(64, np.float32)}, tmp_path / "model/model.safetensors")
    (tmp_path / "texts").mkdir()
    lines = (json.dumps({"text": f"Document {i} has some words."}) for i in range(12_000))
    (tmp_path / "texts/all.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def study_of(text: str) -> Study:
    """The study of an overlay, as the Snakefile reads it."""
    own, config = yaml.safe_load(text), yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(config, own)
    return checked(effective(config, own, "mine"))


def filled(place) -> str:
    """The template with its marked lines changed."""
    text = TEMPLATE
    for line, value in {
        "outdir: results/mine": f"outdir: {place}/results",
        "source: /data/my-model": f"source: {place}/model",
        "source: /data/my-texts": f"source: {place}/texts",
    }.items():
        assert text.count(f"{line} # CHANGE: ") == 1
        text = text.replace(f"{line} # CHANGE: ", f"{value} # ")
    assert "CHANGE: " not in text  # these three are all
    return text


def test_three_lines_make_a_study_of_the_template(place):
    study = study_of(filled(place))
    assert study.out == f"{place}/results" and study.model("mine").n_layers == 24
    planned = jobs(study)
    assert {job.model for job in planned} == {"mine", None}
    assert not any(job.stage in ("world", "pretrain") for job in planned)  # nothing of the default study
    assert study.healed("healed", "mine", study.expected("mine"))[0].n > 0  # no control
    assert study.config["texts"].keys() == {"mine"} and study.config["suites"].keys() == {"quality", "loss"}


def test_a_template_that_is_not_filled_in_is_one_line():
    with pytest.raises(UserError, match="models.mine.source: there is no folder /data/my-model"):
        study_of(TEMPLATE)


def test_the_readmes_example_takes_nothing_from_the_default_study(place):
    study = study_of(EXAMPLE.replace("/data/my-model", f"{place}/model"))
    assert study.out == "results/mine" and study.config["texts"].keys() == {"c4"}
    assert study.config["recipes"].keys() == {"healed"} and not study.config["recipes"]["healed"]["control"]
    with pytest.raises(UserError, match="write outdir: results/mine"):
        study_of(EXAMPLE.replace("/data/my-model", f"{place}/model").replace("outdir: results/mine\n", ""))
