"""What a training lowers: the loss of the next token, the divergence from what the uncut model says of it,
the difference from the uncut model's residual stream; or a weighted sum.

Teacher and student are one model in memory: without the removed layers and with what was trained it is the
student, with them and without that the teacher.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from ..errors import UserError
from ..models.head import HeadApart
from ..models.layers import Removal
from ..pruning.layer_set import LayerSet
from ..settings.healing import TrainingSettings

LOGITS = 2**26  # at once: 256 MB in fp32, and as much for each thing that is made of them
OBJECTIVES = ("cross_entropy", "logits", "interface")


class Objective:
    """The objective of a ``recipe`` for ``model``, a cut, whatever of it trains. ``teacher`` gives the uncut
    model back, where the recipe needs that. Raises UserError if there is nothing to learn from."""

    def __init__(self, model: PreTrainedModel, recipe: TrainingSettings, teacher: Teacher | None = None):
        self.weights = {name: weight for name in OBJECTIVES if (weight := getattr(recipe, name))}
        if teacher and not teacher.before:  # nothing was removed, or nothing comes before what was
            self.weights.pop("interface", None)
        if not self.weights:
            raise UserError(
                "healing: interface alone has nothing to learn for a cut from the first layer on: give "
                "cross_entropy or logits a weight too"
            )
        self.teacher, self.head = teacher, HeadApart(model)
        vocabulary = model.get_input_embeddings().weight.shape[0]
        self.piece = max(1, LOGITS // vocabulary)

    def __call__(self, ids: Tensor, last: Tensor, learned: Tensor | None = None) -> dict[str, Tensor]:
        """Each objective summed over documents, padded on the right: ``ids`` (int64 [B, T]), ``last`` (int64
        [B]) the position of each last token, ``learned`` (bool [B, T]) the tokens to predict; None: all.

        ``cross_entropy`` and ``logits`` are sums over these but the first token of each document, in nats:
        -ln q(x), and sum_v p(v) ln(p(v) / q(v)) with p of the uncut model. ``interface`` is the sum over all
        tokens of |s - t|^2 / |t|^2, where s and t are the residual streams of cut and uncut model behind a
        run of removed layers, and the mean over runs.
        """
        position = torch.arange(ids.shape[1], device=ids.device)
        real, predicts = position <= last[:, None], (position < last[:, None])[:, :-1]
        if learned is not None:
            predicts = predicts & learned[:, 1:]
        known, streams = None, []
        if self.teacher:
            with self.teacher.at_work(), self.teacher.listening(self.teacher.after) as streams:
                known = self.head.states(ids)[:, :-1][predicts]
        with self.teacher.listening(self.teacher.before) if self.teacher else nullcontext([]) as heard:
            states = self.head.states(ids)[:, :-1][predicts]
        sums: dict[str, Tensor] = {}
        if "interface" in self.weights:
            pairs = zip(heard, streams, strict=True)
            sums["interface"] = sum(_relative_square(s[real], t[real]) for s, t in pairs) / len(streams)
        if {"cross_entropy", "logits"} & self.weights.keys():
            sums |= self._of_logits(states, known, ids[:, 1:][predicts])
        return sums

    def total(self, sums: dict[str, Tensor], tokens: int, predicted: int) -> Tensor:
        """The weighted sum of means, given the sums over a part of a step with ``tokens`` in all, so many of
        them ``predicted``."""
        return sum(self.weights[name] * value for name, value in self.means(sums, tokens, predicted).items())

    @staticmethod
    def means(sums: dict[str, Any], tokens: int, predicted: int) -> dict[str, Any]:
        """Of sums, what they contribute to the means over the step."""
        counts = {"interface": tokens}
        return {name: value / counts.get(name, predicted) for name, value in sums.items()}

    def _of_logits(self, states: Tensor, known: Tensor | None, targets: Tensor) -> dict[str, Tensor]:
        """The sums of what is made of logits, a piece of positions at a time; what a piece is made of is
        computed again for its gradient, where there are several."""
        names = [name for name in ("cross_entropy", "logits") if name in self.weights]
        pieces = [
            states.split(self.piece),
            known.split(self.piece) if "logits" in names else [None] * -(-len(states) // self.piece),
            targets.split(self.piece),
        ]
        sums = torch.zeros(len(names), device=states.device)
        for piece in zip(*pieces, strict=True):
            if len(pieces[0]) == 1:
                sums = sums + self._piece(names, *piece)
            else:
                sums = sums + checkpoint(self._piece, names, *piece, use_reentrant=False)
        return dict(zip(names, sums.unbind(), strict=True))

    def _piece(self, names: Sequence[str], states: Tensor, known: Tensor | None, targets: Tensor) -> Tensor:
        log_q = F.log_softmax(self.head.logits(states).float(), -1)
        found = {"cross_entropy": F.nll_loss(log_q, targets, reduction="sum")}
        if known is not None:
            with self.teacher.at_work():
                log_p = F.log_softmax(self.head.logits(known).float(), -1)
            found["logits"] = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
        return torch.stack([found[name] for name in names])


def _relative_square(found: Tensor, expected: Tensor) -> Tensor:
    """Sum of |found - expected|^2 / |expected|^2 over tokens, of streams [N, d]."""
    found, expected = found.float(), expected.float()
    squares = expected.square().sum(-1).clamp(min=1e-12)
    return ((found - expected).square().sum(-1) / squares).sum()


class Teacher:
    """The uncut model behind a cut ``model``, whose ``removal`` is done, and where the two are compared:
    behind each run of removed layers that has layers before it."""

    def __init__(self, model: nn.Module, removal: Removal, cut: LayerSet):
        self.model, self.removal = model, removal
        runs = [(first, last) for first, last in cut.runs if first > 0]
        self.before = [removal.layers[first - 1] for first, _ in runs]  # in the student
        self.after = [removal.layers[last] for _, last in runs]  # in the teacher

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Within the context the model is uncut and without its adapter, and learns nothing."""
        training = self.model.training
        without_adapter = getattr(self.model, "disable_adapter", nullcontext)
        with torch.no_grad(), self.removal.undone(), without_adapter():
            self.model.eval()
            try:
                yield
            finally:
                self.model.train(training)

    @contextmanager
    def listening(self, layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
        """A list that has, after a forward pass within the context, what each of ``layers`` returned."""
        heard: list[Any] = [None] * len(layers)

        def keep(at: int, output: Any) -> None:
            heard[at] = output if isinstance(output, Tensor) else output[0]

        with ExitStack() as hooks:
            for at, layer in enumerate(layers):
                hook = layer.register_forward_hook(lambda _, __, output, at=at: keep(at, output))
                hooks.callback(hook.remove)
            yield heard
