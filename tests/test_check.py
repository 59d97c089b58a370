"""snakemake check: what holds is said to hold, and each fault that is put in is found."""

import pytest
from transformers import Trainer

from deeper_layers.models import nf4
from deeper_layers.models.head import HeadApart
from deeper_layers.self_check import findings
from deeper_layers.study import options
from helpers.config import checked, full_config
from helpers.small_study import prepare, run
from helpers.wrong import kernel, scales_of_the_next_block, swapped, wrong_tree


def fault(folder, what: str, precision: str = "fp32") -> str:
    """What is said of ``what``, which is found wrong; later checks are not run."""
    found = next(f for f in findings(folder, [precision]) if f.what == what)
    assert not found.holds
    return found.says


@pytest.fixture(autouse=True)
def the_kernel_of_the_library():
    yield
    while nf4._replacement:
        nf4._replacement.pop()._destroy()


def test_all_holds_on_this_machine(tmp_path):
    found = list(findings(tmp_path, ["fp32", "bf16", "nf4"]))
    assert [f.what for f in found if not f.holds] == []
    assert [f.what for f in found] == [
        "device",
        "NF4",
        *(f"tree of cuts, {p}" for p in ("fp32", "bf16", "nf4")),
        *(f"head, {p}" for p in ("fp32", "bf16", "nf4")),
        "resume of a killed healing, nf4",
    ]
    assert "the same bytes" in found[-1].says


def test_wrong_nf4_is_found(tmp_path):
    with kernel("dequantize_4bit", scales_of_the_next_block):  # replaced, and so right
        found = next(f for f in findings(tmp_path / "a", ["nf4"]) if f.what == "NF4")
        assert found.holds and "plain torch takes its place" in found.says
    with kernel("quantize_4bit", lambda *_: 1 / 0):
        assert fault(tmp_path / "b", "NF4", "nf4") == "division by zero"


def test_a_wrong_tree_is_found(tmp_path):
    with wrong_tree(swapped):
        assert "shared layers give other numbers" in fault(tmp_path, "tree of cuts, fp32")


def test_a_tree_check_that_accepts_everything_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("deeper_layers.evaluation.cut_scorer._agree", lambda *_: True)
    assert fault(tmp_path, "tree of cuts, fp32") == "a tree with two layers swapped was not refused"


def test_a_head_that_gives_other_logits_is_found(tmp_path, monkeypatch):
    right = HeadApart.logits
    monkeypatch.setattr(HeadApart, "logits", lambda self, states: right(self, 2 * states))
    assert "give other logits than the model" in fault(tmp_path, "head, fp32")


def test_a_check_of_the_head_that_accepts_everything_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(HeadApart, "_parts_at", lambda self, decoder: True)
    monkeypatch.setattr(HeadApart, "is_apart", True)
    assert "are not of its hidden states alone was not refused" in fault(tmp_path, "head, fp32")


def test_a_resume_that_forgets_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "_load_optimizer_and_scheduler", lambda *_: None)
    assert "the loss differs by" in fault(tmp_path, "resume of a killed healing, fp32")


def test_the_study_says_what_is_checked():
    assert options.check(checked(full_config())) == "--precisions fp32 nf4"


def test_a_study_that_measures_no_distances_is_checked_for_the_rest():
    config = full_config()
    config["study"]["strategies"] = ["deepest"]
    del config["distances"]
    assert options.check(checked(config)) == "--precisions fp32 nf4"


@pytest.mark.slow
def test_snakemake_check(tmp_path):
    said = run(prepare(tmp_path), "--cores", "1", "check")
    assert "everything that was checked holds on this machine" in said
