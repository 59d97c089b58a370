"""Optimiser steps in parts: documents of similar length go through the model together, each in a row of its
own, as many tokens at once as memory holds.

The parts of a step add up to the mean over its tokens, so what is trained does not depend on them; rounding
and the masks of dropout do. Documents never see each other, since none shares a row, and attention needs no
mask, since padding is on the right, where a causal model never looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer

from ..data.batches import batches_of_least_cost, padded
from ..models.shapes import padded_length
from ..runtime.memory import free_memory, is_out_of_memory
from .batch_plan import BatchPlan
from .monitor import TrainingMonitor, random_state, set_random_state
from .objective import Objective
from .resume import TRAINED

OVERHEAD = {"cpu": 64, "cuda": 1024}  # of a part, in tokens that take as long


class StepTrainer(Trainer):
    """The Trainer of transformers for items that are whole steps (``data.packing.Steps``).

    Args:
        objective: what is lowered.
        plan: how a step goes through memory; ``smaller`` gives the next one to try where memory runs out in
            a part of so many tokens whose longest document has so many, or raises. The model stays loaded.
        monitor: knows of SIGTERM, which ends the training within a step: a step of a large model takes
            minutes, more than a scheduler waits. What is saved then is the last whole step.
        longest: tokens of the longest documents.
        **options: of the Trainer.
    """

    def __init__(
        self,
        *,
        objective: Callable[[], Objective],
        plan: BatchPlan,
        smaller: Callable[[BatchPlan, int, int], BatchPlan],
        monitor: TrainingMonitor,
        longest: int,
        **options,
    ):
        super().__init__(**options, data_collator=lambda items: items[0], callbacks=[monitor])
        self.remove_callback(PrinterCallback)
        self.plan, self.smaller, self.monitor = plan, smaller, monitor
        self.padded = partial(padded_length, device=self.args.device, longest=longest)
        self.overhead = OVERHEAD.get(self.args.device.type, OVERHEAD["cuda"])
        self.objective = objective()  # what the Trainer does to the model is done
        self.means: dict[str, float] = {}  # of the last step
        self._checkpoint(plan)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device):
        return [next(epoch_iterator)], None

    def floating_point_ops(self, inputs: Sequence[np.ndarray]) -> int:
        return 0

    def training_step(self, model, inputs: Sequence[np.ndarray], num_items_in_batch=None) -> Tensor:
        """Loss of a step of documents; its gradients are in the model."""
        model.train()
        before = random_state()
        while True:
            try:
                return self._step(inputs, before)
            except _OutOfMemory as fault:
                tokens, longest = fault.args
            model.zero_grad()
            free_memory()
            set_random_state(before)
            self.plan = self.smaller(self.plan, tokens, longest)
            self._checkpoint(self.plan)

    def _step(self, documents: Sequence[np.ndarray], before: list[Tensor]) -> Tensor:
        tokens, device = sum(map(len, documents)), self.args.device
        predicted = sum(int((document[1:] >= 0).sum()) for document in documents)
        total, means = torch.zeros((), device=device), dict.fromkeys(self.objective.weights, 0.0)
        lengths = [len(document) for document in documents]
        for part in batches_of_least_cost(lengths, self.plan.batch_tokens, self.overhead, self.padded):
            if self.monitor.sigterm.is_set():
                self._end_before(before)
            ids, last = (x.to(device) for x in padded([documents[i] for i in part], to=self.padded))
            learned = ids >= 0  # see Tokens.marked
            try:
                with torch.autocast(device.type, torch.bfloat16, enabled=self.args.bf16):
                    sums = self.objective(torch.where(learned, ids, ~ids), last, learned)
                    loss = self.objective.total(sums, tokens, predicted)
                self.accelerator.backward(loss)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                raise _OutOfMemory(ids.numel(), ids.shape[1]) from None
            total += loss.detach()
            found = self.objective.means(sums, tokens, predicted)
            means = {name: mean + found[name].detach() for name, mean in means.items()}
        self.means = means
        return total

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """With the objectives of which the loss is made."""
        if "loss" in logs:
            logs |= {name: float(mean) for name, mean in self.means.items()}
        super().log(logs, *args, **kwargs)

    def _end_before(self, random: list[Tensor]) -> None:
        """End the training as it was before this step, whose random state was ``random``."""
        self.model.zero_grad()
        set_random_state(random)
        if self.state.global_step > self.monitor.saved_step:
            self._save_checkpoint(self.model, trial=None)
        raise Terminated

    def _checkpoint(self, plan: BatchPlan) -> None:
        if plan.gradient_checkpointing:
            self.objective.head.model.gradient_checkpointing_enable({"use_reentrant": False})

    # A checkpoint has what trains alone: peft sees to that for an adapter.

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if isinstance(self.model, PeftModel):
            return super()._save(output_dir, state_dict)
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        save_file({name: p.detach() for name, p in self._trained()}, Path(output_dir, TRAINED))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        if isinstance(self.model, PeftModel):
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        stored = load_file(Path(resume_from_checkpoint, TRAINED))
        with torch.no_grad():
            for name, parameter in self._trained():
                parameter.copy_(stored[name])

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)


class Terminated(Exception):
    """SIGTERM came within a step; what was whole is saved."""


class _OutOfMemory(Exception):
    """In a part of so many tokens, padding counted, whose longest document has so many."""
