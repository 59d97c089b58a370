"""Held-out loss of a model, or of all cuts of one: nats per token, and divided by ln V (paper, figure 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..checkpoints.decoder_config import text_config
from ..data.statistics import per_token
from ..errors import UserError
from ..pruning.layer_set import LayerSet
from .cut_scorer import CutScorer
from .streamed_scorer import StreamedCutScorer


def losses(
    scorer: CutScorer | StreamedCutScorer,
    documents: Sequence[np.ndarray],
    label: str,
    journal: Path | None = None,
) -> dict[LayerSet, dict]:
    """For each block of ``scorer`` the loss of every token but the first of each document, in the layout of
    lm-eval's results: ``{"results": {"loss": {...}}}``. Documents of one token say nothing and are left out.
    """
    documents = [d.tolist() for d in documents if len(d) > 1]
    if not documents:
        raise UserError("no held-out document has two tokens or more: nothing to predict")
    requests = [(d[:1], d[1:]) for d in documents]
    tokens = np.array([len(continuation) for _, continuation in requests])
    scores = scorer.loglikelihoods(requests, int(tokens.max()), label, journal)
    vocabulary = text_config(scorer.model.config).vocab_size
    return {
        block: _result(np.array([-log_likelihood for log_likelihood, _ in by_document]), tokens, vocabulary)
        for block, by_document in scores.items()
    }


def _result(nats: np.ndarray, tokens: np.ndarray, vocabulary: int) -> dict:
    loss, error = map(float, per_token(nats, tokens))
    values = {
        "loss": loss,
        "loss_stderr": error,
        "normalised_loss": loss / math.log(vocabulary),
        "normalised_loss_stderr": error / math.log(vocabulary),
        "tokens": int(tokens.sum()),
        "sequences": len(tokens),
        "vocabulary": vocabulary,
    }
    return {"results": {"loss": values}}
