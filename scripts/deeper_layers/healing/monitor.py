"""Watching a training run: progress, checkpoints by the clock and on SIGTERM, divergence."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import TrainerCallback

from ..errors import UserError
from ..runtime.progress import Progress


class TrainingMonitor(TrainerCallback):
    """Shows progress, asks for checkpoints by the clock and on SIGTERM, stops a run that diverges."""

    def __init__(
        self,
        progress: Progress,
        sigterm: threading.Event,
        save_every: float,
        learning_rate: float,
        chance: float,
    ):
        self.progress, self.sigterm, self.save_every = progress, sigterm, save_every
        self.learning_rate, self.chance = learning_rate, chance
        self.terminated = False
        self.seconds, self.first_step, self.saved_step = 0.0, 0, 0

    def on_train_begin(self, args, state, control, **_):
        self.first_step = self.saved_step = state.global_step
        self.started = self.saved = time.monotonic()
        self.progress.update(state.global_step)

    def on_save(self, args, state, control, **_):
        self.saved_step = state.global_step

    def on_step_end(self, args, state, control, **_):
        now = time.monotonic()
        self.seconds = now - self.started
        if state.global_step == state.max_steps:
            return
        if self.sigterm.is_set():
            self.terminated = control.should_save = control.should_training_stop = True
        elif now - self.saved >= self.save_every:
            control.should_save, self.saved = True, now

    def on_log(self, args, state, control, logs=None, **_):
        """Runs after each step and before its checkpoint, so that no diverged state is saved."""
        if "loss" not in logs:
            return
        loss, norm = logs["loss"], logs["grad_norm"]
        worst = 2 * max(self.chance, state.log_history[0]["loss"])
        if not (math.isfinite(loss) and math.isfinite(norm)) or loss > worst:
            raise UserError(
                f"healing diverged at step {state.global_step} (loss {loss:.4g}, gradient norm {norm:.4g}): "
                f"lower the learning rate from {self.learning_rate:g} to {self.learning_rate / 3:.1g} or less"
            )
        self.progress.update(1, f"loss {loss:.3f}")


def random_state() -> list[torch.Tensor]:
    """Of torch's generators, which dropout draws from: of the CPU and, where it is used, of the GPU."""
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [])


def set_random_state(states: list[torch.Tensor]) -> None:
    """Go back to what ``random_state`` gave."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])


@contextmanager
def catch_sigterm(event: threading.Event | None = None) -> Iterator[threading.Event]:
    """An event, a new one or ``event``, that SIGTERM sets (wall-time limits, preemption) in place of the end
    of the process."""
    event = event or threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)
