"""Text of the uncut model's own: it goes on from the beginnings of another text's documents (self-data
distillation, arXiv 2410.09982)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from ..errors import UserError
from ..runtime.memory import free_memory, is_out_of_memory
from ..runtime.progress import Progress
from ..settings.texts import ContinuationSettings

ROWS = {"cpu": 32, "cuda": 256}  # at once, at most


def continuations(
    model: PreTrainedModel, prompts: Sequence[np.ndarray], settings: ContinuationSettings
) -> Iterator[np.ndarray]:
    """Each of ``prompts`` (int64 [T]) with what ``model`` goes on with, int64 [T + new] with at most
    ``new_tokens`` new ones, up to the first end of text, which is left out.

    A token is drawn by one random number of its own, from the seed, the prompt's number and its place, so
    that a document does not depend on those beside it but by rounding. Raises UserError if one row does not
    fit into memory.
    """
    numbers = np.random.default_rng(settings.seed).random((len(prompts), settings.new_tokens))
    rows = settings.batch or ROWS.get(model.device.type, ROWS["cuda"])
    written: dict[int, np.ndarray] = {}
    todo = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))  # of one length together
    with Progress("writing", len(prompts), "document") as progress:
        while todo:
            some = [i for i in todo[:rows] if len(prompts[i]) == len(prompts[todo[0]])]
            try:
                found = _written(model, np.stack([prompts[i] for i in some]), numbers[some], settings)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(some) == 1:
                    raise UserError("one document does not fit into memory: take precision nf4") from None
                rows = len(some) // 2
                free_memory()
                continue
            written.update(zip(some, found, strict=True))
            todo = todo[len(some) :]
            progress.update(len(some))
    for i in range(len(prompts)):
        yield written.pop(i)


@torch.inference_mode()
def _written(
    model: PreTrainedModel, prompts: np.ndarray, numbers: np.ndarray, settings: ContinuationSettings
) -> list[np.ndarray]:
    """The documents of ``prompts`` [B, T] of one length."""
    ends = _ends(model)
    ids = torch.from_numpy(prompts).to(model.device)
    draw = Drawn(torch.from_numpy(numbers).to(model.device), ids.shape[1], settings.temperature)
    how = GenerationConfig(
        do_sample=False,  # the drawing is ours
        num_beams=1,
        max_new_tokens=settings.new_tokens,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
    )
    # What the model's own file asks of generation (penalties, forced tokens) is no part of its distribution.
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=how,
            logits_processor=LogitsProcessorList([draw] if settings.temperature else []),
            use_cache=True,
        )
    finally:
        model.generation_config = own
    return [_until_end(row, ids.shape[1], ends) for row in found.cpu().numpy()]


def _ends(model: PreTrainedModel) -> list[int]:
    """The tokens that end a text, as the model says."""
    end = model.generation_config.eos_token_id
    return [] if end is None else end if isinstance(end, list) else [end]


def _until_end(row: np.ndarray, start: int, ends: Sequence[int]) -> np.ndarray:
    last = np.flatnonzero(np.isin(row[start:], ends))
    return row[: start + last[0]] if len(last) else row


class Drawn(LogitsProcessor):
    """Draws from the distribution at a ``temperature``: by ``numbers`` [B, new] in [0, 1), of the tokens at
    the places from ``start`` on, that where the distribution function passes the number."""

    def __init__(self, numbers: Tensor, start: int, temperature: float):
        self.numbers, self.start, self.temperature = numbers, start, temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        number = self.numbers[:, input_ids.shape[1] - self.start, None]
        below = (scores.double() / self.temperature).softmax(-1).cumsum(-1)
        token = torch.searchsorted(below, number * below[:, -1:], right=True)
        token = token.clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, token, 0.0)
