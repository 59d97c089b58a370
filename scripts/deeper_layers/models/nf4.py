"""NF4 weights that are checked, not trusted: bitsandbytes is wrong for some shapes on some machines.

After a model was loaded in 4 bits, one linear layer of each distinct shape is compared with a reference in
plain torch, which is short enough to be read: its quantisation, its dequantised weights and its products. On
a CPU a wrong dequantisation is replaced, for the rest of the process, by one in plain torch; everything else
that is wrong ends the job. docs/nf4-on-cpus.md describes the fault that made this necessary.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..runtime.provenance import record

log = logging.getLogger(__name__)

# Dettmers et al., QLoRA (arXiv 2305.14314), appendix E: the 16 values of the data type.
CODE = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
WIDEST_GAP = max(b - a for a, b in zip(CODE[:-1], CODE[1:], strict=True))
SAMPLED_ROWS = 256  # of a weight, evenly spread

_replacement: list[torch.library.Library] = []  # kept alive: its kernel is registered as long as it is


def check_nf4(model: nn.Module) -> None:
    """Check the 4-bit linear layers of ``model``, one of each distinct shape, and record under ``nf4`` in the
    provenance which dequantisation is used. Raises UserError where NF4 is wrong on this machine."""
    layers = _distinct(model)
    if not layers:
        return
    fault = next(_faults(layers), None)
    if fault and _on_cpu(layers) and not _replacement:
        log.warning("bitsandbytes is wrong on this CPU (%s): dequantising in plain torch instead", fault)
        replace_dequantisation()
        fault = next(_faults(layers), None)
    if fault:
        raise UserError(
            f"bitsandbytes computes NF4 wrongly on this machine: {fault}. Choose precision bf16 or fp32, or "
            "another version of bitsandbytes"
        )
    shapes = ["x".join(map(str, layer.weight.quant_state.shape)) for layer in layers]
    kernel = "plain torch" if _replacement and _on_cpu(layers) else "bitsandbytes"
    record(nf4={"dequantisation": kernel, "checked_shapes": shapes})


def _distinct(model: nn.Module) -> list[nn.Module]:
    """One 4-bit linear layer of each shape and kind of quantisation."""
    found = {}
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            kind = (*state.shape, state.blocksize, state.quant_type, state.nested, state.dtype)
            found.setdefault(kind, module)
    return list(found.values())


def _on_cpu(layers: Sequence[nn.Module]) -> bool:
    return layers[0].weight.device.type == "cpu"


@torch.no_grad()
def _faults(layers: Sequence[nn.Module]) -> Iterator[str]:
    """What is wrong with these layers, a short text each."""
    for layer in layers:
        for check in (_quantiser_fault, _dequantiser_fault, _product_fault):
            if fault := check(layer):
                shape = " x ".join(map(str, layer.weight.quant_state.shape))
                yield f"{fault} for a weight of {shape}"


def _quantiser_fault(layer: nn.Module) -> str | None:
    """Quantise noise of the layer's row length: no value may be further from its code than half the widest
    gap between codes (and the error of the scales, which are quantised too)."""
    from bitsandbytes.functional import quantize_4bit

    state = layer.weight.quant_state
    shape = min(state.shape[0], SAMPLED_ROWS), state.shape[-1]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(shape, generator=generator).to(layer.weight.device, state.dtype)
    packed, new = quantize_4bit(
        noise, None, None, state.blocksize, compress_statistics=state.nested, quant_type=state.quant_type
    )
    noise = noise.float().flatten()
    errors = (reference(packed, new, torch.arange(noise.numel(), device=noise.device)) - noise).abs()
    blocks = nn.functional.pad(noise, (0, -len(noise) % state.blocksize)).view(-1, state.blocksize)
    scales = blocks.abs().amax(1).repeat_interleave(state.blocksize)[: len(noise)]
    worst = (errors / scales).max().item()
    return (
        None if worst <= WIDEST_GAP / 2 + 0.05 else f"quantising is off by {worst:.2g} of a block's maximum"
    )


def _dequantiser_fault(layer: nn.Module) -> str | None:
    """Compare what the library makes of the packed weight, as its products do, with ``reference``."""
    from bitsandbytes.functional import dequantize_4bit

    state = layer.weight.quant_state
    rows = _sampled_rows(layer)
    expected = _reference_rows(layer, rows)
    found = dequantize_4bit(layer.weight.data, state).view(state.shape)[rows].float()
    worst = ((found - expected).abs().max() / expected.abs().max()).item()
    return None if worst <= 4 * torch.finfo(state.dtype).eps else f"dequantised values are off by {worst:.2g}"


def _product_fault(layer: nn.Module) -> str | None:
    """Compare products with one row (a kernel of its own, on most devices), a few and, on a GPU, many."""
    state = layer.weight.quant_state
    rows = _sampled_rows(layer)
    weight = _reference_rows(layer, rows).double()
    bias = 0 if layer.bias is None else layer.bias[rows].double()
    dtype = layer.compute_dtype or state.dtype
    generator = torch.Generator().manual_seed(0)
    for count in (1, 8) if _on_cpu([layer]) else (1, 8, 2048):
        inputs = torch.randn(count, state.shape[-1], generator=generator).to(layer.weight.device, dtype)
        expected = inputs.double() @ weight.T + bias
        found = layer(inputs)[:, rows].double()
        off = ((found - expected).norm() / expected.norm()).item()
        if not off <= max(1e-4, 4 * torch.finfo(dtype).eps):
            return f"a product with {count} rows is off by {off:.2g}"
    return None


def _sampled_rows(layer: nn.Module) -> Tensor:
    n_rows = layer.weight.quant_state.shape[0]
    return torch.linspace(0, n_rows - 1, min(n_rows, SAMPLED_ROWS), device=layer.weight.device).long()


def _reference_rows(layer: nn.Module, rows: Tensor) -> Tensor:
    """float32 [rows, in]: these rows of the layer's weight, by ``reference``."""
    state = layer.weight.quant_state
    width = state.shape[-1]
    where = rows[:, None] * width + torch.arange(width, device=rows.device)
    return reference(layer.weight.data, state, where.flatten()).view(where.shape)


def reference(packed: Tensor, state, where: Tensor) -> Tensor:
    """The values (float32 [N]) at the places ``where`` (int64 [N]) of a flattened 4-bit weight: a code, two
    to a byte, the first in the upper half, times the scale of its block. ``state`` is bitsandbytes'
    QuantState, whose scales may be 8-bit codes with scales and an offset (double quantisation)."""
    halves = packed.view(torch.uint8).flatten()[where // 2]
    codes = torch.where(where % 2 == 0, halves >> 4, halves & 15).long()
    table = torch.tensor(CODE, device=packed.device) if state.quant_type == "nf4" else state.code.float()
    block = where // state.blocksize
    scales = state.absmax[block]
    if state.nested:
        outer = state.state2
        scales = (
            outer.code.float()[scales.long()] * outer.absmax.float()[block // outer.blocksize] + state.offset
        )
    return table[codes] * scales.float()


def replace_dequantisation() -> None:
    """Put ``dequantise`` in the place of the library's kernel for CPUs. The operator, not the library's
    Python function: products go through it too."""
    import bitsandbytes  # noqa: F401 (registers its operators, which ours replaces)

    library = torch.library.Library("bitsandbytes", "IMPL")
    with warnings.catch_warnings(category=UserWarning, action="ignore"):  # that it is an override
        library.impl("dequantize_4bit", dequantise, "CPU", allow_override=True)
    _replacement.append(library)


def dequantise(
    packed: Tensor, absmax: Tensor, blocksize: int, quant_type: str, shape: Sequence[int], dtype: torch.dtype
) -> Tensor:
    """The operator ``bitsandbytes::dequantize_4bit`` in plain torch: a weight of ``shape`` and ``dtype`` from
    its codes and the scales ``absmax`` of its blocks."""
    from bitsandbytes.backends.utils import _get_4bit_code

    code = torch.tensor(CODE) if quant_type == "nf4" else _get_4bit_code(quant_type, packed.device).float()
    pairs = torch.stack([code.repeat_interleave(16), code.repeat(16)], 1)  # of a byte's upper and lower half
    size = torch.Size(shape).numel()
    values = pairs.index_select(0, packed.view(torch.uint8).flatten().int()).flatten()
    values = nn.functional.pad(values, (0, -len(values) % blocksize)).view(-1, blocksize)
    return (values * absmax.float()[:, None]).flatten()[:size].view(*shape).to(dtype)
