"""The linear repair of a cut: sums over all tokens, the solution for each ridge, the weights that follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import UserError
from ..models.layers import feed_forward_linears
from ..settings.repair import LinearSettings
from .repair import Batch, Candidate, NothingToRepair, Site, Weights, outputs

MOST_WRONG = 0.1  # of a change of the feed-forward output, in the output of its layer


class Moments:
    """Over tokens, in float64: with M [P, D] the feed-forward output and R [P, D] what the residual stream
    lacks, M'M, M'R and the sum of R's squares. Memory: two D x D matrices, whatever the number of tokens."""

    def __init__(self, width: int, device: torch.device):
        self.mm = torch.zeros(width, width, dtype=torch.float64, device=device)
        self.mr = torch.zeros_like(self.mm)
        self.rr, self.tokens = 0.0, 0

    def add(self, m: Tensor, r: Tensor) -> None:
        m, r = m.double(), r.double()
        self.mm += m.T @ m
        self.mr += m.T @ r
        self.rr += r.square().sum().item()
        self.tokens += len(m)

    def error(self, change: Tensor) -> float:
        """Mean square, per token, of R - M change."""
        fitted = 2 * (change * self.mr).sum() - (change * (self.mm @ change)).sum()
        return (self.rr - fitted.item()) / self.tokens


def fit(
    site: Site, fitted: Sequence[Batch], held_out: Sequence[Batch], settings: LinearSettings
) -> list[Candidate]:
    """A candidate for each ridge. Raises NothingToRepair where no layer precedes the run, and UserError where
    the layer's output is not the residual stream plus that of its feed-forward network."""
    if site.first == 0:
        raise NothingToRepair("no layer precedes the cut")
    layer = site.layers[site.first - 1]
    linear = projection(site, layer, fitted[0].ids[:1])
    sums = []
    for part in (fitted, held_out):
        pairs = stream_pairs(site, layer, linear, part)
        m, lacking = next(pairs)
        moments = Moments(m.shape[1], m.device)
        moments.add(m, lacking)
        for m, lacking in pairs:
            moments.add(m, lacking)
        sums.append(moments)
    fitting, judging = sums
    before = {parameter: site.weights.get(parameter, parameter.data) for parameter in linear.parameters()}
    candidates = []
    for ridge in settings.ridges:
        change = solve(fitting, ridge, settings.toward)
        told = {
            "layer": site.first - 1,
            "ridge": ridge,
            "error_cut": judging.rr / judging.tokens,
            "error_repaired": judging.error(change),
            "sums_bytes": 2 * 8 * change.numel(),
        }
        candidates.append(Candidate(site.weights | mapped(linear, before, change), told, site.scale))
    return candidates


def stream_pairs(
    site: Site, layer: nn.Module, linear: nn.Module, part: Sequence[Batch]
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each batch M [P, D], the feed-forward output of ``layer``, and R [P, D], the stream behind the run
    in the uncut model less the layer's own output: all that the cut changes."""
    behind = site.layers[site.last]
    for batch in part:
        if not site.before.n:
            m, out, target = outputs(site.model, batch.ids, linear, layer, behind)
        else:
            (target,) = outputs(site.model, batch.ids, behind)
            with site.as_it_is():
                m, out = outputs(site.model, batch.ids, linear, layer)
        yield m[batch.real], (target.float() - out.float())[batch.real]


def solve(sums: Moments, ridge: float, toward: str) -> Tensor:
    """The change C [D, D] of M's map, so that M (I + C) is close to M + R: (M'M + aI) C = M'R, with a the
    ``ridge`` times the mean eigenvalue; toward zero (M'M + aI)(I + C) = M'(M + R), as in ReplaceMe."""
    eye = torch.eye(len(sums.mm), dtype=torch.float64, device=sums.mm.device)
    left = sums.mm + ridge * sums.mm.trace() / len(eye) * eye
    if toward == "zero":
        return torch.linalg.solve(left, sums.mr + sums.mm) - eye
    return torch.linalg.solve(left, sums.mr)


def mapped(linear: nn.Module, before: Weights, change: Tensor) -> Weights:
    """The parameters of ``linear``, of whose output y they make y (I + ``change``)."""
    new = {}
    for parameter, value in before.items():
        wide = value.double()
        if wide.ndim == 2 and not isinstance(linear, Conv1D):
            wide = wide + change.T @ wide
        else:
            wide = wide + wide @ change
        new[parameter] = wide.to(value.dtype)
    return new


def projection(site: Site, layer: nn.Module, ids: Tensor) -> nn.Module:
    """The linear module whose output the layer's feed-forward network adds to the residual stream, found by
    its place and proven: a change of its output is the change of the layer's."""
    width = outputs(site.model, ids, layer)[0].shape[-1]
    names = feed_forward_linears(layer, width)
    for linear in reversed(names):
        try:
            before, m = outputs(site.model, ids, layer, linear)
        except UserError:  # a module that is not called
            continue
        change = torch.randn(m.shape, generator=torch.Generator().manual_seed(0)).to(m) * m.std()
        with torch.inference_mode():
            hook = linear.register_forward_hook(lambda _module, _args, output, change=change: output + change)
            try:
                (after,) = outputs(site.model, ids, layer)
            finally:
                hook.remove()
        wrong = ((after - before - change).abs() / change.abs()).float().median().item()
        if wrong <= MOST_WRONG:
            return linear
    raise UserError(
        f"linear repair: the output of a {type(layer).__name__} is not the residual stream plus that of one "
        "linear module (a norm behind it, a mixture of experts): heal this model by qlora instead"
    )
