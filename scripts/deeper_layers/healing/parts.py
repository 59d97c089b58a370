"""What of a cut trains, and what is written of it in the end."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod

import torch
from torch import nn
from transformers import PreTrainedModel

from ..errors import UserError
from ..models.adapters import add_adapter, save_adapter
from ..models.artifacts import LoraAdapter, RepairedAdapter, ReplacedTensors
from ..models.layers import Removal, decoder_layers
from ..settings.healing import Healing, HealingAfterRepair, PartialHealing, TrainingSettings
from .method import HealingFiles


class Part(ABC):
    """The part of a cut that trains; ``model`` is what the Trainer gets, ``base`` the model in it."""

    title: str  # of the method, for heal.json
    model: nn.Module
    base: PreTrainedModel

    @abstractmethod
    def __init__(self, model: PreTrainedModel, recipe: TrainingSettings, removal: Removal):
        """A part of ``model``, whose ``removal`` is done. UserError for a recipe that does not fit."""

    @abstractmethod
    def write(self, files: HealingFiles) -> None:
        """Write the artifact."""


class Adapter(Part):
    """A LoRA adapter, on the cut or on a repaired cut."""

    def __init__(self, model: PreTrainedModel, recipe: Healing, removal: Removal):
        alpha = recipe.alpha or recipe.rank
        self.base = model
        self.model = add_adapter(model, recipe.rank, alpha, recipe.dropout, recipe.targets)
        self.title = "QLoRA on a repaired cut" if isinstance(recipe, HealingAfterRepair) else "QLoRA"

    def write(self, files: HealingFiles) -> None:
        """The folder of the adapter and of what repaired the cut before, written beside and renamed."""
        folder = files.out / (RepairedAdapter if files.repair else LoraAdapter).FOLDER
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)  # of a run killed just here
        save_adapter(self.model, temporary, files.checkpoint, folder)
        if files.repair:
            shutil.copyfile(files.repair, temporary / RepairedAdapter.MARKS[0])
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)


class LastLayers(Part):
    """The last layers, the norms outside of layers, and the head, as weights of their own in fp32; a head
    that is the embedding trains as that too. The uncut model keeps the old ones."""

    def __init__(self, model: PreTrainedModel, recipe: PartialHealing, removal: Removal):
        layers = decoder_layers(model)
        if recipe.layers > len(layers):
            raise UserError(
                f"healing: layers is {recipe.layers}, and the cut has {len(layers)}; write {len(layers)} or "
                "less"
            )
        self.base = self.model = model.requires_grad_(False)
        inside = {p for layer in layers for p in layer.parameters()}
        chosen = {p for layer in layers[-recipe.layers :] for p in layer.parameters()}
        chosen |= {p for p in model.parameters() if p not in inside and p.dim() == 1}
        chosen |= set(model.get_output_embeddings().parameters())
        new = {p: nn.Parameter(p.detach().to(torch.float32, copy=True)) for p in chosen}
        self.dtypes = {new[p]: p.dtype for p in chosen}
        removal.replace(lambda: self._put(new))
        self.title = "Partial training"

    def _put(self, new: dict[nn.Parameter, nn.Parameter]) -> None:
        """Wherever a parameter is: tied ones have several places."""
        for module in self.base.modules():
            for name, parameter in module._parameters.items():
                if parameter in new:
                    module._parameters[name] = new[parameter]

    def write(self, files: HealingFiles) -> None:
        """The weights that were trained, in the precision of the model in memory."""
        named = {name: p for name, p in self.base.named_parameters() if p in self.dtypes}
        ReplacedTensors.write(files.out, {n: p.detach().to(self.dtypes[p]) for n, p in named.items()})
