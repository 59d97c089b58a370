"""The scale repair of a cut. Prune&Comp multiplies all that is written into the residual stream before the
cut by a. Norms do not see the scale of the stream, so it is the same to divide all that is written behind the
cut: then the embeddings stay, which many models share with their head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UserError
from ..models.layers import stream_writers
from ..settings.repair import RepairSettings
from .repair import Batch, Candidate, NothingToRepair, Site, Weights, outputs

MOST_WRONG = 0.1  # of what the scale changes in the logits


def fit(
    site: Site, fitted: Sequence[Batch], held_out: Sequence[Batch], settings: RepairSettings
) -> list[Candidate]:
    """One candidate: a for this run. Raises NothingToRepair where no layer follows, and UserError where the
    model sees the scale of the stream (norms behind the modules that write, other ways into the stream)."""
    if site.last == len(site.layers) - 1:
        raise NothingToRepair("no layer follows the cut, and the last norm does not see the stream's scale")
    a = ratio(site, fitted)
    weights = divided(site, a)
    check(site, a, weights, fitted[0].ids[:1])
    return [Candidate(weights, {"a": a}, site.scale * a)]


def ratio(site: Site, part: Sequence[Batch]) -> float:
    """a: the mean over channels of the mean magnitude of the stream behind the run, in the uncut model, over
    that before it."""
    sums: list[Tensor] = [torch.zeros(()), torch.zeros(())]
    for batch in part:
        before, behind = streams(site, batch.ids)
        for i, stream in enumerate((before, behind)):
            sums[i] = sums[i] + stream[batch.real].abs().double().sum(0).cpu()
    before, behind = sums
    return (behind / (site.scale * before).clamp(min=1e-12)).mean().item()


def streams(site: Site, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The residual stream [B, T, d] before the run, in the model as it is, and behind it in the uncut one."""
    found: list[Tensor] = []

    def keep(_module, args, named) -> None:
        found.append(args[0] if args else named["hidden_states"])

    first = site.layers[site.first]
    hook = first.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        (behind,) = outputs(site.model, ids, site.layers[site.last])
        if site.before.n:
            with site.as_it_is():
                outputs(site.model, ids, first)
    finally:
        hook.remove()
    return found[-1], behind


def divided(site: Site, a: float) -> Weights:
    """All that the layers behind the run write, divided by ``a``."""
    weights = dict(site.weights)
    for layer in list(site.layers)[site.last + 1 :]:
        for module in stream_writers(layer):
            for parameter in module.parameters():
                value = site.weights.get(parameter, parameter.data)
                weights[parameter] = (value.double() / a).to(value.dtype)
    return weights


@torch.inference_mode()
def check(site: Site, a: float, weights: Weights, ids: Tensor) -> None:
    """Compare the logits with those of a stream that really is multiplied at the cut."""
    behind = site.layers[site.last + 1]

    def multiplied(_module, args, named):
        if args:
            return (args[0] * a, *args[1:]), named
        return args, named | {"hidden_states": named["hidden_states"] * a}

    as_cut = _logits(site, site.weights, ids)
    hook = behind.register_forward_pre_hook(multiplied, with_kwargs=True)
    try:
        right = _logits(site, site.weights, ids)
    finally:
        hook.remove()
    wrong, effect = (_logits(site, weights, ids) - right).norm(), (right - as_cut).norm()
    if not wrong <= MOST_WRONG * effect + 1e-3 * right.norm():
        raise UserError(
            f"scale repair: a {type(site.model).__name__} sees the scale of its residual stream (norms "
            "behind attention or feed-forward network, or another way into it): choose another repair"
        )


def _logits(site: Site, weights: Weights, ids: Tensor) -> Tensor:
    with site.cut(weights):
        return site.model(ids, use_cache=False).logits.float()
