"""Few shapes of batches. H100 and later compute attention by cuDNN, which makes a plan for each shape that it
meets: tens to hundreds of milliseconds, more than the batch itself takes."""

from __future__ import annotations

import functools

import torch

from ..checkpoints.decoder_config import text_config


def padded_length(length: int, device: torch.device, longest: int | None = None) -> int:
    """To how many tokens sequences of ``length`` are padded on ``device``: on a GPU that plans for each shape
    to a multiple of 64, of 16 where they are short, not beyond ``longest``; elsewhere not at all."""
    if not _plans_for_each_shape(device):
        return length
    step = 16 if length < 256 else 64
    rounded = -(-length // step) * step
    return rounded if longest is None else max(length, min(rounded, longest))


def positions(model) -> int | None:
    """For how many tokens ``model`` has positions, where its configuration says so."""
    return getattr(text_config(model.config), "max_position_embeddings", None)


@functools.cache
def _plans_for_each_shape(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
