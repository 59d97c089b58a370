"""Repairs: weights beside a cut are computed from what the uncut model does there, without training.

Runs of removed layers are repaired one after the other, the first one first: each sees the model as it is by
then, with the earlier runs removed and repaired and the later ones still there. What a repair is worth is the
loss on documents that were kept aside: one that raises it is not applied, and heal.json says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..checkpoints.folder import MANIFEST
from ..data.batches import batches_by_length, padded
from ..data.statistics import per_token
from ..data.tokens import Tokens
from ..errors import UserError
from ..models.artifacts import ReplacedTensors
from ..models.layers import decoder_layers, removed
from ..models.load import load_model
from ..pruning.layer_set import FULL, LayerSet
from ..runtime.files import read_json
from ..runtime.memory import free_memory, is_out_of_memory
from ..runtime.progress import Progress
from ..settings.repair import RepairSettings
from .method import HealingFiles
from .results import begin_results, write_summary

Weights = dict[nn.Parameter, Tensor]  # parameters, and what takes their place


@dataclass(frozen=True)
class Batch:
    """Documents, padded on the right: ``ids`` (int64 [B, T]), and which are tokens (``real``, bool [B, T]).
    Under causal attention a token does not see the padding behind it."""

    ids: Tensor
    real: Tensor


def batches(documents: Sequence[np.ndarray], batch_tokens: int, device: torch.device) -> list[Batch]:
    """``documents`` by length, at most ``batch_tokens`` with padding in a batch, or one document."""
    made = []
    for batch in batches_by_length([len(document) for document in documents], batch_tokens):
        ids, last = padded([documents[i] for i in batch])
        real = torch.arange(ids.shape[1]) <= last[:, None]
        made.append(Batch(ids.to(device), real.to(device)))
    return made


@dataclass
class Site:
    """A run of removed layers, ``first`` to ``last``, of ``model``, as its repair meets it: the runs in
    ``before`` are gone already, and ``weights`` repaired for them."""

    model: PreTrainedModel
    layers: nn.ModuleList
    first: int
    last: int
    before: LayerSet = FULL
    weights: Weights = field(default_factory=dict)
    scale: float = 1.0  # of the residual stream before the run, in units of that here

    @contextmanager
    def as_it_is(self) -> Iterator[None]:
        """The earlier runs removed and repaired."""
        with removed(self.model, self.before), exchanged(self.weights):
            yield

    @contextmanager
    def cut(self, weights: Weights) -> Iterator[None]:
        """This run removed too, and the model repaired by ``weights``."""
        gone = LayerSet((*self.before.removed, *range(self.first, self.last + 1)))
        with removed(self.model, gone), exchanged(weights):
            yield


@contextmanager
def exchanged(weights: Weights) -> Iterator[None]:
    """Within the context the parameters have other values."""
    old = {parameter: parameter.data for parameter in weights}
    try:
        for parameter, value in weights.items():
            parameter.data = value
        yield
    finally:
        for parameter, value in old.items():
            parameter.data = value


@torch.inference_mode()
def outputs(model: PreTrainedModel, ids: Tensor, *modules: nn.Module) -> list[Tensor]:
    """What each of ``modules`` returns (its first part, [B, T, d]) when the model reads ``ids``; nothing
    after the last of them is computed."""
    found: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        first = output if isinstance(output, Tensor) else output[0]
        found[module] = first.view(*ids.shape, -1)  # some feed-forward networks have rows of tokens
        if len(found) == len(set(modules)):
            raise _Found

    with ExitStack() as hooks:
        for module in set(modules):
            hooks.callback(module.register_forward_hook(keep).remove)
        try:
            model.base_model(ids, use_cache=False)
        except _Found:
            return [found[module] for module in modules]
    raise UserError(f"{type(model).__name__} does not call its layers one by one: it cannot be repaired")


class _Found(Exception):
    """All that was asked for is known."""


@torch.inference_mode()
def document_losses(model: PreTrainedModel, held_out: Sequence[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """Summed loss of every token but the first of each document, in nats, and how many those are."""
    nats, tokens = [], []
    for batch in held_out:
        logits = model(batch.ids, use_cache=False).logits[:, :-1]
        expected = batch.ids[:, 1:].masked_fill(~batch.real[:, 1:], -100)
        each = nn.functional.cross_entropy(logits.transpose(1, 2).float(), expected, reduction="none")
        nats.append(each.sum(1).double().cpu().numpy())
        tokens.append(batch.real[:, 1:].sum(1).cpu().numpy())
    return np.concatenate(nats), np.concatenate(tokens)


class NothingToRepair(Exception):
    """Why a run has no weights that a repair could change: it is left as it is cut."""


@dataclass(frozen=True)
class Candidate:
    """A repair that may be taken: the ``weights`` of the whole model by then, and ``facts`` for heal.json.
    ``scale`` is that of the residual stream behind the run."""

    weights: Weights
    facts: dict[str, Any]
    scale: float = 1.0


Fit = Callable[[Site, Sequence[Batch], Sequence[Batch], Any], Sequence[Candidate]]


def repair(
    files: HealingFiles, settings: RepairSettings, title: str, fit: Fit, trust_remote_code: bool = False
) -> None:
    """Repair the cut in ``files.checkpoint`` by what ``fit`` proposes for each run of removed layers, given
    the run and the documents to fit and to judge by. Writes the artifact and heal.json. Where ``fit`` raises
    NothingToRepair the run stays as it is cut.

    Raises UserError for the uncut model, for too few documents, and for what does not fit in memory.
    """
    cut = LayerSet.parse(read_json(files.checkpoint / MANIFEST)["block"])
    if not cut.n:
        raise UserError(f"{title}: the uncut model has nothing to repair; set the recipe's control to false")
    documents = Tokens(files.tokens).first(settings.samples, settings.length)
    documents = [document for document in documents if len(document) > 1]
    aside = max(1, round(settings.held_out * len(documents)))
    if len(documents) - aside < 1:
        raise UserError(
            f"{title}: {len(documents)} documents are too few to fit and to judge by; more samples"
        )
    model = load_model(files.full, settings.precision, trust_remote_code).requires_grad_(False)
    batch_tokens = settings.batch_tokens
    while True:
        parts = [
            batches(part, batch_tokens, model.device) for part in (documents[:-aside], documents[-aside:])
        ]
        try:
            weights, facts = _repaired(model, cut, *parts, settings, fit)
            break
        except Exception as error:
            if not is_out_of_memory(error) or batch_tokens <= settings.length:
                raise
        batch_tokens //= 2
        print(f"out of memory: trying batches of {batch_tokens} tokens", flush=True)
        free_memory()
    with removed(model, cut):
        names = {parameter: name for name, parameter in model.named_parameters()}
    if not weights:  # an artifact holds something: the smallest tensor, as it is
        smallest = min(names, key=lambda parameter: parameter.numel())
        weights = {smallest: smallest.data}
    begin_results(files.out)
    ReplacedTensors.write(files.out, {names[parameter]: value for parameter, value in weights.items()})
    tokens = sum(map(len, documents[:-aside]))
    write_summary(
        files,
        title,
        settings,
        documents=len(documents) - aside,
        documents_held_out=aside,
        tokens=tokens,
        **facts,
    )


def _repaired(
    model: PreTrainedModel,
    cut: LayerSet,
    fitted: Sequence[Batch],
    held_out: Sequence[Batch],
    settings: RepairSettings,
    fit: Fit,
) -> tuple[Weights, dict[str, Any]]:
    """The weights that the repair changes, as they are to be, and what heal.json tells of it."""
    site = Site(model, decoder_layers(model), *cut.runs[0])
    runs = []
    with Progress(f"repairing {cut}", len(cut.runs), "run") as progress:
        for first, last in cut.runs:
            site = replace(site, first=first, last=last)
            try:
                best, told = _best(site, fit(site, fitted, held_out, settings), held_out)
            except NothingToRepair as reason:
                best, told = Candidate(site.weights, {}, site.scale), {"repaired": False, "why": str(reason)}
            runs.append({"first": first, "last": last, **told})
            gone = LayerSet((*site.before.removed, *range(first, last + 1)))
            site = replace(site, before=gone, weights=best.weights, scale=best.scale)
            progress.update()
    for run in runs:
        if not run["repaired"]:
            why = run.get("why") or (
                "on the documents kept aside the best repair raises the loss from "
                f"{run['loss_cut']:.4f} to {run['loss_repaired']:.4f}"
            )
            print(f"without {run['first']}-{run['last']} the model is left as it was cut: {why}", flush=True)
    return site.weights, {"repaired": any(run["repaired"] for run in runs), "runs": runs}


def _best(
    site: Site, candidates: Sequence[Candidate], held_out: Sequence[Batch]
) -> tuple[Candidate, dict[str, Any]]:
    """The candidate with the least loss on the documents kept aside, or the weights of before if that is less
    still; and what there is to tell of it."""
    # All candidates of a run change the same weights; those of before are what they change.
    touched = {parameter: parameter.data for parameter in candidates[0].weights}
    as_cut = Candidate(touched | site.weights, {}, site.scale)
    found = []
    for candidate in (as_cut, *candidates):
        with site.cut(candidate.weights):
            found.append(document_losses(site.model, held_out))
    tokens = found[0][1]
    means = [nats.sum() / tokens.sum() for nats, _ in found]
    means = [mean if math.isfinite(mean) else math.inf for mean in means]  # one that overflows is none
    number = 1 + int(np.argmin(means[1:]))
    difference, error = map(float, per_token(found[number][0] - found[0][0], tokens))
    is_better = means[number] < means[0]
    told = {
        "repaired": bool(is_better),
        "loss_cut": float(means[0]),
        "loss_repaired": float(means[number]),
        "difference": difference,
        "difference_stderr": error if math.isfinite(error) else None,
        **candidates[number - 1].facts,
    }
    return (candidates[number - 1] if is_better else as_cut), told
