"""LoRA adapters: put on a model, saved with a relative path to their base, loaded with proof of use."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..checkpoints.layer_names import split_name
from ..errors import UserError
from .layers import decoder_layers, ffn_modules


def lora_targets(model: PreTrainedModel, targets: Sequence[str]) -> list[str]:
    """Module names to adapt: the FFN for ``["auto"]`` (paper, appendix A.1), else ``targets``, each the
    end of a module name, as in ``mlp.c_proj``. Raises UserError if one names no module."""
    if list(targets) == ["auto"]:
        return ffn_modules(model)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in linear):
            ends = sorted({".".join(name.split(".")[-2:]) for name in linear})
            raise UserError(f"no linear layer is called {target!r}: choose targets among {', '.join(ends)}")
    return list(targets)


def add_adapter(
    model: PreTrainedModel, rank: int, alpha: float, dropout: float, targets: Sequence[str]
) -> PeftModel:
    """``model`` with a new LoRA adapter, the only part that trains."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=(names := lora_targets(model, targets)),
        exclude_modules=_of_other_towers(model, names) or None,
    )
    model = get_peft_model(model, config)
    if dropout and model.device.type == "cpu":
        for module in model.modules():
            for name in getattr(module, "lora_dropout", ()):
                module.lora_dropout[name] = CpuDropout(dropout)
    return model


def _of_other_towers(model: PreTrainedModel, targets: Sequence[str]) -> list[str]:
    """Modules with names of the ``targets`` in layers that are not the decoder's but, say, see pictures."""
    layers = decoder_layers(model)
    (place,) = (name for name, module in model.named_modules() if module is layers)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and any(f".{name}".endswith(f".{target}") for target in targets)
        and split_name(name)[1] is not None
        and not name.startswith(f"{place}.")
    ]


class CpuDropout(nn.Module):
    """Dropout whose masks cost a third of torch's on a CPU, where drawing them took a fifth of a healing
    step: four 16-bit numbers from each 64-bit draw, so ``p`` is rounded to a multiple of 2**-16."""

    def __init__(self, p: float):
        super().__init__()
        self.dropped = round(p * 2**16)  # of the 2**16 numbers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` with elements set to 0 at random in training, the others scaled to keep the mean."""
        if not self.training:
            return x
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.int16)[: x.numel()].view(x.shape) >= self.dropped - 2**15
        return x * kept.to(x.dtype).mul_(2**16 / (2**16 - self.dropped))


def save_adapter(model: PeftModel, folder: Path, checkpoint: Path, final: Path) -> None:
    """Write the adapter to ``folder``, which will be renamed to ``final``: adapter_config.json, whose base
    is the path from ``final`` to ``checkpoint``, and adapter_model.safetensors. The same adapter gives
    the same bytes."""
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / CONFIG_NAME).read_text())
    config["base_model_name_or_path"] = os.path.relpath(checkpoint, final)
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()  # peft keeps a set, whose order changes from process to process
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n")


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """``model`` with the adapter of ``folder`` on it, unmerged.

    peft takes an adapter that does not fit without an error and then does nothing. So every tensor of
    the file must be found in the loaded model, equal, and none may be left as it was made: UserError
    otherwise.
    """
    checkpoint, stored = model.name_or_path, load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    try:
        model = PeftModel.from_pretrained(model, folder)
    except (RuntimeError, ValueError) as error:  # other shapes, or no such modules
        reason = str(error).splitlines()[0]
        raise UserError(f"adapter {folder} does not fit {checkpoint}: {reason}") from None
    used = get_peft_model_state_dict(model, save_embedding_layers=False)
    strangers = sorted(stored.keys() ^ used.keys())
    if strangers:
        raise UserError(
            f"adapter {folder} does not fit {checkpoint}: {len(strangers)} tensors, {strangers[0]} ..."
        )
    for name, tensor in stored.items():
        if not torch.equal(used[name].cpu().to(tensor.dtype), tensor):
            raise UserError(f"adapter {folder} was not loaded into {checkpoint}: {name} differs")
    return model


def multiply_in_bf16(model: PeftModel) -> PeftModel:
    """On a GPU, let the products of an adapter of a model in bf16 or NF4 be in bf16, as they are in training
    (autocast). peft keeps them in fp32, which a GPU multiplies ten times slower; TF32 would be that of all
    fp32 products, those of positions with rotary frequencies among them."""
    if model.device.type == "cuda" and model.dtype == torch.bfloat16:
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.data = parameter.data.to(torch.bfloat16)
    return model
