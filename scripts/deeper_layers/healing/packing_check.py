"""Do packed documents see each other? Each model is asked before it is healed on packed rows."""

from __future__ import annotations

import inspect

import numpy as np
import torch
from transformers import PreTrainedModel

from ..data.packing import collate
from ..errors import UserError
from ..runtime.provenance import record


@torch.no_grad()
def check_packing(model: PreTrainedModel, length: int = 24) -> None:
    """Show on two short documents that a packed one gives the logits it gives alone. UserError if not: the
    architecture ignores position ids, or carries a state from one document to the next.

    In 16 bits the two differ by rounding, as other shapes use other kernels. What counts is therefore how far
    they are apart in comparison with the logits of the same row as a single document: below 0.05 where
    documents are kept apart, about 1 where they are not.
    """
    fault = UserError(f"{type(model).__name__} lets packed documents see each other: set packing to false")
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise fault
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = np.random.default_rng(0).integers(0, vocabulary, (2, length))

    def logits(row: list[np.ndarray], packing: bool) -> torch.Tensor:
        batch = collate([row], packing)
        inputs = {k: v.to(model.device) for k, v in batch.items() if k != "labels"}
        return model(**inputs).logits[0, -length:].float()

    alone = logits([ids[1]], packing=False)
    packed = (logits([ids[0], ids[1]], packing=True) - alone).norm()
    joined = (logits([ids[0], ids[1]], packing=False) - alone).norm()
    record(packing_check={"packed_over_joined": (packed / joined.clamp(min=1e-30)).item()})
    if not packed <= 0.25 * joined:
        raise fault
