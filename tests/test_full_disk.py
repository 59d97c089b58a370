"""Every stage that writes much, on a disk that fills up: one clear line, nothing that a rerun would trust.

What a whole run does then is in test_faults.py, a disk that is too small from the start in test_cut.py and
test_hub.py.
"""

import json

import pytest
import torch

from deeper_layers.checkpoints.qwen import convert
from deeper_layers.data.hub_corpus import Corpus
from deeper_layers.data.sample import write_sample
from deeper_layers.data.tokens import write_tokens
from deeper_layers.errors import UserError
from deeper_layers.evaluation.job import Job
from deeper_layers.healing.method import HealingFiles
from deeper_layers.healing.training import heal
from deeper_layers.importance.angular import AngularDistances
from deeper_layers.runtime import cli
from helpers import qwen
from helpers.healing import RECIPE, counting, tiny_llama


def sample(inputs, out):
    inputs.mkdir()
    (inputs / "train.jsonl").write_text(
        "".join(json.dumps({"text": f"{i} " * 50}) + "\n" for i in range(999))
    )
    write_sample(Corpus(str(inputs)), 900, out / "train.jsonl")


def tokens(inputs, out):
    write_tokens(out / "train.safetensors", counting(3000, seed=0))


def distances(inputs, out):
    sums = AngularDistances(80)
    sums.add(torch.rand(81, 3, 8))
    sums.write(out / "distances.csv")


def evaluation(inputs, out):
    inputs.mkdir()
    manifest = {"model": "tiny", "block": "full", "n_layers": 4}
    (inputs / "manifest.json").write_text(json.dumps(manifest))
    job = Job(inputs, ["full", "drop_1-2"], None, out, {}, {"suite": "quiz"})
    for block in job.missing:
        job.write(block, {"results": {str(i): i for i in range(6000)}})
    job.finish()


def conversion(inputs, out):
    convert(qwen.write(inputs, qwen.tensors()), "qwen", out)


def healing(inputs, out):
    tiny_llama().save_pretrained(inputs / "cut")
    write_tokens(inputs / "train.safetensors", counting(300, seed=1))
    heal(HealingFiles(inputs / "cut", inputs / "train.safetensors", out, inputs / "state"), RECIPE)


@pytest.mark.parametrize(
    "stage, last, many",
    [
        (sample, "train.json", "64k"),
        (tokens, "train.json", "64k"),
        (distances, "distances.csv", "64k"),
        (evaluation, "index.json", "192k"),  # the first block has room, the second has not
        (conversion, "manifest.json", "128k"),
        (healing, "heal.json", "16k"),
    ],
)
def test_a_disk_that_fills_up(stage, last, many, disk, tmp_path):
    out = disk(f"size={many}") / "out"
    out.mkdir()
    with pytest.raises(Exception) as caught:
        stage(tmp_path / "inputs", out)
    said = str(caught.value) if isinstance(caught.value, UserError) else cli.machine_fault(caught.value)
    assert said and ("No space left on device" in said or "no room for" in said) and "\n" not in said
    assert not (out / last).exists()
    for path in out.rglob("*"):  # whole, or not there, but for a folder that the next run clears
        if path.is_file() and path.parent.name != ".adapter.tmp":
            json.loads(path.read_text())
    disk("size=64m")
    stage(tmp_path / "again", out)
    assert (out / last).stat().st_size > 0
