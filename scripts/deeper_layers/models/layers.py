"""The decoder layers of a loaded model: find them, take a set of them out, put it back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..checkpoints.decoder_config import cut_config, layer_count, text_config
from ..errors import UserError
from ..pruning.layer_set import LayerSet
from .auto import model_class

_INDICES = ("layer_idx", "layer_id", "layer_index", "layer_number")  # names of a module's own layer number
_EXPECTED = (*_INDICES, "num_hidden_layers")  # attributes that a cut changes

# A linear module is part of the feed-forward network by the name of a module that holds it, or by its own.
_FFN_PART = re.compile(r"mlp|feed_?forward|ffn|expert|moe|^ff$")
_FFN_LEAF = re.compile(r"^(fc1|fc2|fc_in|fc_out|dense_h_to_4h|dense_4h_to_h|up_proj|down_proj)$")
# The modules by which a layer writes into the residual stream, by their own names.
_WRITER = re.compile(r"(^|\.)(o_proj|out_proj|c_proj|dense|wo|dense_4h_to_h|down_proj|fc2|fc_out|w2)$")
_ROUTER = re.compile(r"router|^gate$|^wg$|expert_gate$")


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The list of the L decoder layers: the outermost ModuleList of that length.

    Raises UserError when there is none.
    """
    return _owner_of_layers(model)[2]


def _owner_of_layers(model: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """(module, attribute, list): the layers and where they hang. Breadth first, so outermost first; of a
    model that reads pictures too, in its language model, whatever lists the others have."""
    n_layers = layer_count(model.config)
    inside = getattr(getattr(model, "base_model", model), "language_model", None)
    level = [model if inside is None else inside]
    while level:
        for module in level:
            for name, child in module.named_children():
                if isinstance(child, nn.ModuleList) and len(child) == n_layers:
                    return module, name, child
        level = [child for module in level for child in module.children()]
    raise UserError(f"no list of {n_layers} layers in a model of type {model.config.model_type!r}")


class Removal:
    """What it takes to remove the layers of ``block`` from ``model``, and to put them back, at once and as
    often as one likes: no weight is copied. What the layers know of their own number and what the modules
    know of the configuration is changed along, so that cached generation works too."""

    def __init__(self, model: PreTrainedModel, block: LayerSet):
        config = model.config
        new_config = cut_config(config, block)
        owner, name, layers = _owner_of_layers(model)
        kept = nn.ModuleList(layers[i] for i in block.kept(len(layers)))
        self.model, self.layers = model, layers
        # (module, attribute, value before, value of the cut)
        self._changes: list[tuple[nn.Module, str, object, object]] = [(owner, name, layers, kept)]
        for new, layer in enumerate(kept):
            for module in layer.modules():
                for attribute in _INDICES:
                    if isinstance(old := getattr(module, attribute, None), int):
                        self._changes.append((module, attribute, old, new))
        configs = {id(config): new_config, id(text_config(config)): text_config(new_config)}
        for module in model.modules():
            for attribute, value in vars(module).items():
                if isinstance(value, PretrainedConfig) and id(value) in configs:
                    self._changes.append((module, attribute, value, configs[id(value)]))

    @contextmanager
    def done(self) -> Iterator[None]:
        """Within the context the layers are gone."""
        try:
            for module, attribute, _, new in self._changes:
                setattr(module, attribute, new)
            yield
        finally:
            self._undo()

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Within the context, inside of ``done``, the layers are there."""
        self._undo()
        try:
            yield
        finally:
            for module, attribute, _, new in self._changes:
                setattr(module, attribute, new)

    def replace(self, change: Callable[[], object]) -> None:
        """Let ``change``, called within ``done``, put parameters in place of others: they belong to the cut
        from now on, and the layers see the old ones while it is undone."""
        before = [(m, name, p) for m in self.model.modules() for name, p in m._parameters.items()]
        change()
        after = [(*one, one[0]._parameters[one[1]]) for one in before]
        self._changes += [one for one in after if one[2] is not one[3]]

    def _undo(self) -> None:
        for module, attribute, old, _ in reversed(self._changes):
            setattr(module, attribute, old)


@contextmanager
def removed(model: PreTrainedModel, block: LayerSet) -> Iterator[PreTrainedModel]:
    """Within the context ``model`` lacks the layers of ``block``; afterwards it is as it was (see
    ``Removal``)."""
    with Removal(model, block).done():
        yield model


def without_weights(config: PretrainedConfig, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model on torch's meta device (seconds at 70B)."""
    with torch.device("meta"):
        return model_class(config).from_config(config, trust_remote_code=trust_remote_code)


def check_kept(
    config: PretrainedConfig,
    block: LayerSet,
    trust_remote_code: bool = False,
    uncut: PreTrainedModel | None = None,
) -> None:
    """Raise UserError unless the config without ``block`` describes the same model but for those layers.

    Both are built without weights (``uncut`` is the model of ``config``, if it is there): each kept layer
    must have the same modules, shapes and scalar attributes as before, and so must all that is not a layer.
    """
    cut = without_weights(cut_config(config, block), trust_remote_code)
    models = [uncut or without_weights(config, trust_remote_code), cut]
    layers = [decoder_layers(model) for model in models]
    pairs = [(i, layers[0][i], layer) for i, layer in zip(block.kept(len(layers[0])), layers[1], strict=True)]
    faults = {f"layer {i}": _difference(_describe_layer(old), _describe_layer(new)) for i, old, new in pairs}
    outside = [_shapes_outside(model, at) for model, at in zip(models, layers, strict=True)]
    faults["what is not a layer"] = _difference(*outside)
    for what, fault in faults.items():
        if fault:
            raise UserError(
                f"{block} cannot be removed from a {config.model_type!r} model: {what} would change ({fault})"
            )


def _describe_layer(layer: nn.Module) -> dict[str, object]:
    """Classes, shapes and scalar attributes of a layer's modules; what is its number is left out."""
    found: dict[str, object] = {name: tuple(t.shape) for name, t in layer.state_dict(keep_vars=True).items()}
    for name, module in layer.named_modules():
        found[f"class of {name or 'layer'}"] = type(module)
        for attribute, value in vars(module).items():
            if attribute not in _EXPECTED and isinstance(value, int | float | str | tuple | None):
                found[f"{name}.{attribute}".lstrip(".")] = value
    return found


def _shapes_outside(model: nn.Module, layers: nn.ModuleList) -> dict[str, object]:
    inside = {id(t) for t in layers.state_dict(keep_vars=True).values()}
    state = model.state_dict(keep_vars=True)
    return {name: tuple(t.shape) for name, t in state.items() if id(t) not in inside}


def _difference(old: dict[str, object], new: dict[str, object]) -> str:
    for name in old | new:
        if old.get(name) != new.get(name):
            return f"{name}: {old.get(name, 'absent')} before, {new.get(name, 'absent')} after"
    return ""


def ffn_modules(model: nn.Module) -> list[str]:
    """Names for peft's ``target_modules`` that pick exactly the linear modules of the decoder's
    feed-forward networks: ``['gate_proj', 'up_proj', 'down_proj']`` for Llama, ``['mlp.c_fc',
    'mlp.c_proj']`` for GPT-2, whose attention has a ``c_proj`` too. Routers of experts are left out.

    Raises UserError, listing the linear modules of a layer, when none is found.
    """
    owner, attribute, layers = _owner_of_layers(model)
    at = next(f"{name}.".lstrip(".") for name, module in model.named_modules() if module is owner)
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)]
    wanted = [n for n in linear if n.startswith(f"{at}{attribute}.") and _is_ffn(n)]
    if not wanted:
        names = dict.fromkeys(n for n, m in layers[0].named_modules() if isinstance(m, nn.Linear | Conv1D))
        raise UserError(
            f"no feed-forward module found in a layer of type {model.config.model_type!r}; name the LoRA "
            f"targets yourself, from: {', '.join(names) or 'no linear module at all'}"
        )
    others = [n for n in linear if n not in set(wanted)]
    return list(dict.fromkeys(_shortest_suffix(n, others) for n in wanted))


def feed_forward_linears(layer: nn.Module, width: int) -> list[nn.Module]:
    """The linear modules of a decoder layer's feed-forward network that give ``width`` numbers, in order."""
    return [
        m for name, m in layer.named_modules() if _is_linear(m) and _is_ffn(name) and _outputs(m) == width
    ]


def stream_writers(layer: nn.Module) -> list[nn.Module]:
    """The linear modules whose output a decoder layer adds to the residual stream, by their names: of
    attention and feed-forward network, as far as both are made of linear modules."""
    return [m for name, m in layer.named_modules() if _is_linear(m) and _WRITER.search(name)]


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _outputs(linear: nn.Module) -> int:
    """How many numbers a linear module gives."""
    return linear.nf if isinstance(linear, Conv1D) else linear.out_features


def _is_ffn(name: str) -> bool:
    parts = name.split(".")
    if any(map(_ROUTER.search, parts)):
        return False
    return bool(_FFN_LEAF.search(parts[-1])) or any(_FFN_PART.search(p) for p in parts[:-1])


def _shortest_suffix(name: str, others: list[str]) -> str:
    """The last parts of a dotted name, as few as tell it from all ``others``."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        suffix = ".".join(parts[-count:])
        if not any(other == suffix or other.endswith("." + suffix) for other in others):
            return suffix
    return name
