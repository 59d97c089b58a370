"""One body, one table: every architecture is cut in memory and on disk and must equal the original whose
removed layers do nothing. docs/architectures.md lists them, by ``make docs``."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from deeper_layers.checkpoints import cut as cut_module
from deeper_layers.checkpoints import decoder_config as configs
from deeper_layers.checkpoints import limits
from deeper_layers.checkpoints.adopt import adopt_checkpoint
from deeper_layers.checkpoints.cut import cut_checkpoint
from deeper_layers.checkpoints.folder import load_config
from deeper_layers.checkpoints.model_types import FIRST_ATTENDS
from deeper_layers.errors import UserError
from deeper_layers.importance.angular import angular_distances, streamed_distances
from deeper_layers.models.adapters import add_adapter
from deeper_layers.models.layers import check_kept, decoder_layers, removed
from deeper_layers.models.load import load_model
from deeper_layers.models.streaming import Stream
from deeper_layers.models.verify import verify_checkpoint
from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.runtime.files import read_json
from helpers import tiny
from helpers.tiny import (
    ARCHITECTURES,
    CACHE_DIFFERS,
    FIRST_STAYS,
    IDS,
    REFUSED,
    identity_logits,
    logits,
    lora_targets,
    settled,
    tiny_config,
    tiny_model,
)

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)

BLOCK = LayerSet.parse("drop_2-2")  # one layer: whatever the period of a pattern, it shifts
SCATTERED, SCATTERED_LATER = LayerSet.parse("drop_0_4"), LayerSet.parse("drop_1_4")


def generate(model, use_cache: bool):
    return model.generate(
        IDS,
        attention_mask=torch.ones_like(IDS),
        max_new_tokens=4,
        do_sample=False,
        eos_token_id=None,
        use_cache=use_cache,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )


def assert_cache_exact(model) -> None:
    cached, plain = generate(model, True), generate(model, False)
    assert torch.equal(cached.sequences, plain.sequences)
    for a, b in zip(cached.logits, plain.logits, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def plain_distances(model, documents) -> np.ndarray:
    """Mean angular distance of every pair of boundaries, one document at a time, in a plain double loop."""
    layers, states = decoder_layers(model), []

    def keep(hidden):
        states.append(hidden[0, -1].double().numpy())

    hooks = [
        layers[0].register_forward_pre_hook(
            lambda module, args, kwargs: keep(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
    ]
    hooks += [
        layer.register_forward_hook(lambda module, args, out: keep(out if torch.is_tensor(out) else out[0]))
        for layer in layers
    ]
    total = np.zeros((len(layers) + 1, len(layers) + 1))
    for document in documents:
        states.clear()
        model(torch.from_numpy(document)[None], use_cache=False)
        for a, x in enumerate(states):
            for b, y in enumerate(states):
                cosine = x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
                total[a, b] += math.acos(min(1.0, cosine)) / math.pi / len(documents)
    for hook in hooks:
        hook.remove()
    return total


def assert_heals(model) -> None:
    """One LoRA step on the targets found, else on a layer's first linear module, lowers the loss."""
    layer = decoder_layers(model)[0]
    names = lora_targets(model) or [next(n for n, m in layer.named_modules() if isinstance(m, nn.Linear))]
    model = add_adapter(model, rank=2, alpha=2, dropout=0, targets=names)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) >= 2 * len(decoder_layers(model.base_model.model)) / 3
    loss = model(IDS, labels=IDS).loss
    loss.backward()
    start, slope = parameters_to_vector(trained).detach(), parameters_to_vector([p.grad for p in trained])
    assert slope.norm() > 0

    @torch.no_grad()
    def after(step: float) -> torch.Tensor:
        vector_to_parameters(start - step * slope / slope.norm(), trained)
        return model(IDS, labels=IDS).loss

    assert (
        min(map(after, [1e-1, 1e-2, 1e-3])) < loss
    )  # several, for a step may send a token to another expert


def assert_cut_by_the_manifest_alone(folder, block: LayerSet):
    """What is cut without transformers, by what the manifest records of the config, is the same; and what
    the cut's manifest then records is what transformers reads in the cut's config."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut_module, "load_config", None)
        cut_checkpoint(folder / "adopted", block, folder / "by manifest")
    files, again = (
        read_json(folder / name / "manifest.json")["files"] for name in (str(block), "by manifest")
    )
    assert again == files
    recorded = configs.Decoder(**read_json(folder / "by manifest/manifest.json")["decoder"])
    read = configs.Decoder.of(load_config(folder / str(block)))
    assert recorded == configs.Decoder(**json.loads(json.dumps(asdict(read))))


def assert_cut(folder, model, block: LayerSet, is_cache_exact: bool):
    """In memory and on the disk the model without ``block`` is the one whose layers of it do nothing, with a
    cache too; returns the one from the disk."""
    full, wanted = logits(model), identity_logits(model, block)
    assert (full - wanted).abs().max() > 1e-2  # so the layers matter
    with removed(model, block):
        assert torch.equal(logits(model), wanted)
        if is_cache_exact:
            assert_cache_exact(model)
    assert torch.equal(logits(model), full)
    cut_checkpoint(folder / "base", block, folder / str(block))
    verify_checkpoint(folder / str(block), folder / "base")
    assert_cut_by_the_manifest_alone(folder, block)
    cut = settled(load_model(folder / str(block)))
    assert torch.equal(logits(cut), wanted)
    if is_cache_exact:
        assert_cache_exact(cut)
    return cut


@torch.no_grad()
def assert_positions(model):
    """A model reads more tokens than its config says positions, or it is known not to (``limits``)."""
    limit, fixed = limits.positions(json.loads(model.config.to_json_string()))
    if limit is None or limit > 4096:  # scaled positions: too long to try
        return
    model(torch.ones((1, limit), dtype=torch.long), use_cache=False)
    longer = torch.ones((1, limit + 1), dtype=torch.long)
    if fixed:
        with pytest.raises((IndexError, RuntimeError)):
            model(longer, use_cache=False)
    else:
        model(longer, use_cache=False)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture(name, tmp_path):
    if not tiny.known(name):
        pytest.skip(f"this transformers has no {name}")
    tiny_model(name, **ARCHITECTURES[name]).save_pretrained(tmp_path / "base")
    model = settled(load_model(tmp_path / "base"))
    adopt_checkpoint(tmp_path / "base", "base", tmp_path / "adopted")
    cut = assert_cut(tmp_path, model, BLOCK, name not in CACHE_DIFFERS)
    if name in FIRST_STAYS:
        with pytest.raises(UserError, match="drop_0_4 cannot be removed from a .*: layer 1 would change"):
            check_kept(model.config, SCATTERED)
    if name in FIRST_ATTENDS:
        with pytest.raises(UserError, match="would be one of linear attention, .* keep the first layer"):
            cut_checkpoint(tmp_path / "adopted", SCATTERED, tmp_path / "refused")
    scattered = SCATTERED_LATER if name in FIRST_STAYS | FIRST_ATTENDS else SCATTERED
    assert_cut(tmp_path, model, scattered, name not in CACHE_DIFFERS)
    if name in CACHE_DIFFERS:
        with pytest.raises(AssertionError):
            assert_cache_exact(model)
    else:
        assert_cache_exact(model)

    documents = [IDS[0, :length].numpy() for length in (5, 12, 12, 9)]
    found = angular_distances(cut, documents, batch_tokens=24).mean
    np.testing.assert_allclose(found.numpy(), plain_distances(cut, documents), atol=2e-4)
    assert torch.equal(
        streamed_distances(Stream(tmp_path / str(BLOCK)), documents, batch_tokens=24).mean, found
    )

    assert_positions(model)
    assert_heals(cut)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    if not tiny.known(name):
        pytest.skip(f"this transformers has no {name}")
    config = tiny_config(name, **REFUSED[name])
    with pytest.raises(UserError, match=f"model type '{name}' cannot be removed: ."):
        configs.cut_config(config, BLOCK)
