"""The forward pass of a causal language model in two parts, so that logits are made in pieces: hidden states
of the decoder, and all that the model does with them to get logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


class HeadApart:
    """``model`` in two parts. Where a model cannot be parted exactly, as a try on a few tokens shows, the
    first part is the whole model, and the second gives back what it gets (``is_apart`` is False)."""

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.decoder: nn.Module | None = None
        self._output: type | None = None
        for decoder in dict.fromkeys((model.get_decoder(), model.base_model)):
            if decoder is not model and self._parts_at(decoder):
                break
        else:
            self.decoder = None

    @property
    def is_apart(self) -> bool:
        return self.decoder is not None

    def states(self, ids: Tensor) -> Tensor:
        """Of ``ids`` (int64 [B, T]): hidden states [B, T, d], or logits [B, T, V]."""
        if self.decoder is None:
            return self.model(input_ids=ids, use_cache=False).logits
        output = self.decoder(input_ids=ids, use_cache=False)
        self._output = type(output)
        return output.last_hidden_state

    def logits(self, states: Tensor) -> Tensor:
        """Logits [P, V] of ``states`` at P positions, [P, d] or [P, V]."""
        if self.decoder is None:
            return states
        ids = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
        with self._decoder_gives(states[None]):
            return self.model(input_ids=ids, use_cache=False).logits[0]

    @contextmanager
    def _decoder_gives(self, states: Tensor) -> Iterator[None]:
        own = vars(self.decoder).get("forward")  # accelerate puts its own there
        self.decoder.forward = lambda *_, **__: self._output(last_hidden_state=states)
        try:
            yield
        finally:
            del self.decoder.forward
            if own is not None:
                self.decoder.forward = own

    @torch.no_grad()
    def _parts_at(self, decoder: nn.Module) -> bool:
        """Whether both parts together are the model, to rounding; ``decoder`` is kept."""
        self.decoder, training = decoder, self.model.training
        ids = torch.arange(10, device=self.model.device).view(2, 5)
        ids %= self.model.get_input_embeddings().weight.shape[0]
        self.model.eval()
        try:
            whole = self.model(input_ids=ids, use_cache=False).logits.float()
            parts = self.logits(self.states(ids).flatten(0, 1)).float().view_as(whole)
        except (AttributeError, TypeError, ValueError, RuntimeError, IndexError):
            return False
        finally:
            self.model.train(training)
        return bool((parts - whole).norm() <= 0.01 * whole.norm())
