"""Tensors that a healing replaces as a whole: written, and put into a model with proof that all fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..errors import UserError
from ..runtime.files import atomic_write


def write_tensors(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write ``tensors``, by the names that they have in the checkpoint."""
    with atomic_write(file) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)


@torch.no_grad()
def replace_tensors(model: PreTrainedModel, file: Path) -> PreTrainedModel:
    """``model`` with the tensors of ``file`` in place of its own, not over them, in its precision;
    what is in 4 bits is quantised as at loading. Raises UserError unless each has a namesake of its shape."""
    stored = load_file(file)
    if not stored:
        raise UserError(f"{file} replaces nothing: it has no tensor")
    own = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    for name, tensor in stored.items():
        if name not in own:
            raise UserError(f"{file} does not fit {model.name_or_path}: it has no tensor {name}")
        module = model.get_submodule(name.rpartition(".")[0])
        four_bits = hasattr(own[name], "quant_state")
        shape = tuple(own[name].shape)
        if four_bits:
            shape = (module.out_features, module.in_features)
            shape = shape[::-1] if issubclass(module.source_cls, Conv1D) else shape
        if tuple(tensor.shape) != shape:
            raise UserError(
                f"{file} does not fit {model.name_or_path}: {name} is {list(tensor.shape)}, not {list(shape)}"
            )
        if four_bits:
            module.weight = quantised(module, tensor.to(module.compute_dtype))
        else:
            _replace(model, own[name], torch.empty_like(own[name]).copy_(tensor))
    return model


def _replace(model: PreTrainedModel, old: torch.Tensor, new: torch.Tensor) -> None:
    """Put ``new`` wherever ``old`` is: tied weights have several places."""
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is old:
                    table[name] = nn.Parameter(new, False) if isinstance(old, nn.Parameter) else new


def quantised(layer: nn.Module, weight: torch.Tensor) -> nn.Parameter:
    """``weight``, as the checkpoint has it, in 4 bits as that of the bitsandbytes ``layer``."""
    old = layer.weight
    new = type(old)(
        weight.T if issubclass(layer.source_cls, Conv1D) else weight,
        requires_grad=False,
        blocksize=old.blocksize,
        compress_statistics=old.compress_statistics,
        quant_type=old.quant_type,
        quant_storage=old.quant_storage,
        module=layer,
    )
    return new.to(old.device)
