"""Does this machine compute what a study needs? NF4, the tree of cuts, the head and resuming, each on a small
model made for it, in the precisions of the study. Each guard is also shown a wrong input that it must refuse.
"""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from .data.tokens import write_tokens
from .evaluation.cut_scorer import CutScorer
from .evaluation.layer_tree import LayerTree
from .healing.method import HealingFiles
from .healing.training import heal
from .models.head import HeadApart
from .models.load import device, load_model
from .models.nf4 import check_nf4
from .pruning.layer_set import FULL, LayerSet
from .runtime.files import read_json
from .runtime.provenance import provenance
from .settings.healing import Healing

LAYERS, VOCABULARY = 6, 320
WIDTHS = (64, 96, 100, 128)  # of NF4 weights: multiples of the block of 64, of 32 and of neither


@dataclass(frozen=True)
class Finding:
    """``holds``: whether what was tried is right; ``says``: what was seen, in a few words."""

    what: str
    holds: bool
    says: str

    def __str__(self) -> str:
        return f"{'holds' if self.holds else 'WRONG'}  {self.what}: {self.says}"


def findings(folder: Path, precisions: Sequence[str]) -> Iterator[Finding]:
    """All checks for a study in these ``precisions`` (fp32, bf16, nf4); ``folder`` is a temporary one to
    write in. A check that fails in an unforeseen way is a finding too."""
    yield _device()
    model = write_model(folder / "model")
    checks = [(f"tree of cuts, {p}", _tree, (model, p)) for p in precisions]
    if "nf4" in precisions:
        checks.insert(0, ("NF4", _nf4, ()))
    checks += [(f"head, {p}", _head, (model, p)) for p in precisions]
    healing = "nf4" if "nf4" in precisions else precisions[0]
    checks.append((f"resume of a killed healing, {healing}", _resume, (model, folder, healing)))
    for what, check, words in checks:
        try:
            yield Finding(what, *check(*words))
        except Exception as error:  # whatever a driver or a library throws
            yield Finding(what, False, str(error).splitlines()[0] if str(error) else repr(error))


def write_model(folder: Path) -> Path:
    """A small Llama whose random weights are large enough for each layer to show in the logits."""
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(
        num_hidden_layers=LAYERS, vocab_size=VOCABULARY, initializer_range=0.15, pad_token_id=0, **shape
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _device() -> Finding:
    facts = provenance()
    if device().type == "cpu":
        return Finding("device", True, f"CPU {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}")
    memory = torch.cuda.get_device_properties(0).total_memory / 1e9
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    text = f"{facts['device']}, {memory:.0f} GB, CUDA {torch.version.cuda} of torch"
    return Finding("device", bf16, text + ("" if bf16 else ": it has no bf16, which studies compute in"))


def _nf4() -> tuple[bool, str]:
    """As ``load_model`` checks it, for widths that it may meet."""
    from bitsandbytes.nn import Linear4bit

    dtype = torch.bfloat16 if device().type == "cuda" else torch.float32
    torch.manual_seed(0)
    layers = [
        Linear4bit(width, 256, compute_dtype=dtype, quant_type="nf4", compress_statistics=True)
        for width in WIDTHS
    ]
    for layer in layers:
        layer.weight.data.normal_()
    check_nf4(nn.Sequential(*layers).to(dtype).to(device()))
    kernel = provenance()["nf4"]["dequantisation"]
    if kernel == "bitsandbytes":
        return True, f"bitsandbytes is right for widths {', '.join(map(str, WIDTHS))}"
    return True, "bitsandbytes is wrong on this CPU, plain torch takes its place"


class _Swapped(LayerTree):
    """A wrong tree: its middle layers change places."""

    def _start(self, *rows):
        before, call = super()._start(*rows)
        other = {LAYERS // 2: LAYERS // 2 - 1, LAYERS // 2 - 1: LAYERS // 2}
        return before, lambda i, hidden: call(other.get(i, i), hidden)


class _WrongScorer(CutScorer):
    def _make_tree(self) -> LayerTree:
        return _Swapped(self.model)


def _tree(folder: Path, precision: str) -> tuple[bool, str]:
    model, blocks = load_model(folder, precision), [FULL, LayerSet.contiguous(4, 1)]
    if CutScorer(model, blocks).tree is None:
        return False, "shared layers give other numbers than each cut by itself, which is then run so: slower"
    if _WrongScorer(model, blocks).tree is not None:
        return False, "a tree with two layers swapped was not refused"
    return True, "the numbers of each cut by itself; a wrong tree is refused"


def _head(folder: Path, precision: str) -> tuple[bool, str]:
    """The head by itself, which healing takes logits from in pieces."""
    model = load_model(folder, precision)
    if not HeadApart(model).is_apart:
        return (
            False,
            "decoder and head give other logits than the model, which is then run whole",
        )
    forward = model.forward

    def wrong(input_ids: Tensor, **how):
        output = forward(input_ids=input_ids, **how)
        output.logits = output.logits + input_ids[..., None]
        return output

    model.forward = wrong
    if HeadApart(model).is_apart:
        return False, "a model whose logits are not of its hidden states alone was not refused"
    return True, "the logits of the whole model; one that does more after its decoder is run whole"


def _resume(model: Path, folder: Path, precision: str) -> tuple[bool, str]:
    """Heal twice, the second time ended by SIGTERM and started again."""
    rng = np.random.default_rng(0)
    write_tokens(folder / "text", [rng.integers(3, VOCABULARY, 24) for _ in range(200)])
    shape = {"rank": 4, "warmup": 2, "steps": 20, "batch": 4, "length": 32, "learning_rate": 1e-3}
    recipe = Healing(**shape, precision=precision)

    def run(name: str, **how) -> Path:
        files = HealingFiles(model, folder / "text", folder / name, folder / f"{name}.state")
        heal(files, replace(recipe, **how))
        return files.out

    calm = run("calm")
    threading.Thread(target=_end_at_checkpoint, args=(folder / "killed.state",), daemon=True).start()
    try:
        run("killed", save_every=0)
    except SystemExit:
        run("killed")
    at = read_json(folder / "killed/heal.json")["resumed_from_step"]
    if not at:
        return False, "the healing was done before it could be ended: try again"
    weights = [load_file(out / "adapter/adapter_model.safetensors") for out in (calm, folder / "killed")]
    if all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items()):
        return True, f"ended at step {at} of {recipe.steps} and started again: the same bytes"
    losses = [read_json(out / "heal.json")["final_loss"] for out in (calm, folder / "killed")]
    off = abs(losses[1] / losses[0] - 1)  # a GPU sums in another order each time
    text = f"ended at step {at} and started again: the loss differs by {100 * off:.2g} %"
    return device().type == "cuda" and off < 0.01, text


def _end_at_checkpoint(state: Path, patience: float = 60.0) -> None:
    """Send this process SIGTERM when healing has written its second checkpoint."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if any((state / f"checkpoint-{step}").is_dir() for step in range(2, 12)):
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(0.002)
