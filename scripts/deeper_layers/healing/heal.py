"""Heal a cut model: QLoRA with the HF Trainer, after the paper's appendix A.1.

A run that is killed and started again with the same settings continues from its last complete
checkpoint and, on a CPU, ends with the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import csv
import inspect
import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils import is_liger_kernel_available, is_torch_bf16_gpu_available

from ..data.packing import Rows, collate
from ..data.tokens import Tokens
from ..errors import UserError
from ..models.adapters import add_adapter, save_adapter
from ..models.load import device, load_model
from ..models.shapes import padded_length
from ..runtime.files import read_json, replacing, sha256, write_json
from ..runtime.memory import free_memory, is_out_of_memory
from ..runtime.progress import Progress
from ..runtime.provenance import provenance, record
from ..settings import Healing as Recipe
from ..settings import check_micro_batch

CHECKPOINT_FILES = (  # all that an exact resume needs; the Trainer resumes silently without some of them
    "adapter_model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",  # written last
)


def heal(
    checkpoint: str | Path,
    tokens: str | Path,
    out: str | Path,
    state: str | Path,
    recipe: Recipe,
    micro_batch: int | None = None,
    checkpointing: str = "auto",
    save_every: float = 600.0,
    trust_remote_code: bool = False,
) -> None:
    """Train an adapter for the cut model in ``checkpoint`` and write ``out``/adapter, training.csv and
    heal.json (last: its presence means that the rest is whole).

    ``state`` keeps the Trainer's checkpoints, one at most every ``save_every`` seconds, until success.
    ``micro_batch`` rows (default: the whole batch) go through the model at once; when memory runs out
    it is halved, and at one row gradient checkpointing (``auto``, ``on`` or ``off``) begins. SIGTERM
    saves a last checkpoint and exits with status 143. Raises UserError for diverging loss.
    """
    checkpoint, tokens, out = Path(checkpoint), Tokens(tokens), Path(out)
    check_micro_batch(micro_batch, recipe.batch)
    micro_batch = micro_batch or recipe.batch
    rows = Rows(tokens, recipe.steps, recipe.batch, recipe.length, recipe.packing, recipe.seed)
    state = State(Path(state), recipe, checkpoint, tokens.path)
    plan = state.plan(Plan(micro_batch, checkpointing == "on"))
    while True:
        try:
            trainer, watch = train(
                checkpoint, rows, state, recipe, plan, save_every, str(out), trust_remote_code
            )
            break
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            smaller = plan.smaller(recipe.batch, checkpointing)
            if smaller is None:
                raise UserError(
                    f"healing {checkpoint}: one row of {recipe.length} tokens does not fit in memory: "
                    "lower length, or choose precision nf4"
                ) from None
        print(f"out of memory with {plan}: trying {smaller}", flush=True)
        plan = state.plan(smaller, replace=True)
        free_memory()
    if watch.terminated:
        raise SystemExit(128 + signal.SIGTERM)
    with catch_sigterm(watch.sigterm):
        write_results(trainer, watch, rows, out, checkpoint, recipe, plan)
        # Whoever asked it to end may take the job for failed, and delete what it has written.
        if not watch.sigterm.is_set():
            state.remove()


@dataclass(frozen=True)
class Plan:
    """How a batch goes through memory; the batch itself stays the same."""

    micro_batch: int
    gradient_checkpointing: bool

    def smaller(self, batch: int, checkpointing: str) -> Plan | None:
        """What to try when this one does not fit: half the rows or fewer, then gradient checkpointing."""
        if self.micro_batch > 1:
            divisors = (m for m in range(self.micro_batch // 2, 0, -1) if batch % m == 0)
            return Plan(next(divisors), self.gradient_checkpointing)
        if checkpointing == "auto" and not self.gradient_checkpointing:
            return Plan(1, True)
        return None


class State:
    """The folder of resumable state. What it holds of another recipe or other inputs is dropped; a folder
    of someone else's is refused (UserError)."""

    def __init__(self, folder: Path, recipe: Recipe, checkpoint: Path, tokens: Path):
        self.folder, self._mark, self._plan = folder, folder / "made_for.json", folder / "plan.json"
        inputs = [tokens, checkpoint / "config.json", *sorted(checkpoint.glob("*.safetensors"))]
        stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in inputs if f.exists()]
        made_for = json.dumps({"recipe": asdict(recipe), "inputs": stats}, sort_keys=True)
        if self._mark.exists() and self._mark.read_text() != made_for:
            print(f"dropping {folder}: its checkpoints are of another recipe or other inputs", flush=True)
            self.remove()
        if not self._mark.exists():
            folder.mkdir(parents=True, exist_ok=True)
            if any(not f.name.startswith(".") for f in folder.iterdir()):  # a dot: our own, half-written
                raise UserError(f"{folder} is not a folder of resumable state: name one that does not exist")
            with replacing(self._mark) as aside:
                aside.write_text(made_for)

    def plan(self, plan: Plan, replace: bool = False) -> Plan:
        """The plan found to fit by an earlier run, else ``plan``, which is kept from now on."""
        if self._plan.exists() and not replace:
            return Plan(**read_json(self._plan))
        write_json(self._plan, asdict(plan))
        return plan

    def latest(self) -> Path | None:
        """The last complete Trainer checkpoint; half-written ones are deleted."""
        complete = []
        for folder in self.folder.glob("checkpoint-*"):
            if is_complete(folder):
                complete.append(folder)
            else:
                print(f"dropping half-written {folder}", flush=True)
                shutil.rmtree(folder)
        return max(complete, key=lambda f: int(f.name.split("-")[1]), default=None)

    def remove(self) -> None:
        """Delete the folder, what says whose it is last."""
        for path in set(self.folder.iterdir()) - {self._mark}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._mark.unlink()
        self.folder.rmdir()


def is_complete(folder: Path) -> bool:
    """Whether a Trainer checkpoint was written to its end."""
    try:
        read_json(folder / "trainer_state.json")
    except (OSError, ValueError):
        return False
    return all((folder / name).is_file() and (folder / name).stat().st_size for name in CHECKPOINT_FILES)


def train(
    checkpoint: Path,
    rows: Rows,
    state: State,
    recipe: Recipe,
    plan: Plan,
    save_every: float,
    name: str,
    trust_remote_code: bool = False,
) -> tuple[Trainer, Watch]:
    """One attempt with a given plan, from the last complete checkpoint if there is one."""
    cuda = device().type == "cuda"
    if cuda and recipe.precision != "fp32" and not is_torch_bf16_gpu_available():
        raise UserError(
            f"healing: {torch.cuda.get_device_name()} has no bf16, in which {recipe.precision} computes: "
            "take precision fp32, or an Ampere card or later"
        )
    set_seed(recipe.seed)  # before the adapter draws its weights
    if cuda:
        prefer_deterministic_kernels()
    model = load_base(checkpoint, recipe, trust_remote_code)
    if plan.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise UserError(
            f"healing {checkpoint}: {type(model).__name__} has no gradient checkpointing: set checkpointing "
            "to off and, where one row does not fit in memory, lower length or choose precision nf4"
        )
    model = add_adapter(model, recipe.rank, recipe.alpha or recipe.rank, recipe.dropout, recipe.targets)
    padded = partial(padded_length, device=model.device, longest=recipe.length)
    resume = state.latest()
    with Progress(f"healing {name}", recipe.steps, "step") as progress, catch_sigterm() as sigterm:
        watch = Watch(progress, sigterm, save_every, recipe.learning_rate, chance_loss(model))
        trainer = Trainer(
            model=model,
            args=training_arguments(state.folder, recipe, plan, cuda),
            train_dataset=rows,
            data_collator=partial(collate, packing=recipe.packing, padded=padded),
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return trainer, watch


def load_base(checkpoint: Path, recipe: Recipe, trust_remote_code: bool) -> PreTrainedModel:
    """The frozen model, ready for the recipe's rows."""
    model = load_model(checkpoint, recipe.precision, trust_remote_code)
    # With a cache transformers does not look for packed documents; the Trainer turns off the outer config's.
    model.config.use_cache = model.config.get_text_config(decoder=True).use_cache = False
    if recipe.packing:
        check_packing(model)
    return model


def prefer_deterministic_kernels() -> None:
    """What the paper's enable_full_determinism asks for, without waiting for every CUDA kernel."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False


def training_arguments(folder: Path, recipe: Recipe, plan: Plan, cuda: bool) -> TrainingArguments:
    """The recipe in the Trainer's words."""
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=recipe.steps,
        per_device_train_batch_size=plan.micro_batch,
        gradient_accumulation_steps=recipe.batch // plan.micro_batch,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.clip,
        seed=recipe.seed,
        bf16=cuda and recipe.precision != "fp32",
        use_cpu=not cuda,
        activation_checkpointing=plan.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        use_liger_kernel=cuda and is_liger_kernel_available(),
        train_sampling_strategy="sequential",  # Rows has drawn the order already
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=cuda,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",  # Watch says when
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
    )
    args._n_gpu = min(args.n_gpu, 1)  # one job, one card: else the Trainer would multiply the batch
    return args


class Watch(TrainerCallback):
    """Shows progress, asks for checkpoints by the clock and on SIGTERM, stops a run that diverges.

    A step of a large model takes minutes, more than a scheduler waits: SIGTERM is seen between its parts too,
    and what is saved then is the last whole step.
    """

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
        self.random: list[torch.Tensor] = []

    def on_train_begin(self, args, state, control, **_):
        self.first_step = self.saved_step = state.global_step
        self.started = self.saved = time.monotonic()
        self.progress.update(state.global_step)

    def on_step_begin(self, args, state, control, **_):
        if args.gradient_accumulation_steps > 1:
            self.random = random_state()

    def on_substep_end(self, args, state, control, **_):
        if self.sigterm.is_set():
            self.terminated = control.should_training_stop = True
            if state.global_step > self.saved_step:
                control.should_save = True
                set_random_state(self.random)  # as it was behind the last whole step

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


def chance_loss(model: PeftModel) -> float:
    """ln V: the loss, in nats, of a model that knows nothing."""
    return math.log(model.get_input_embeddings().weight.shape[0])


@torch.no_grad()
def check_packing(model: PreTrainedModel, length: int = 24) -> None:
    """Show on two short documents that a packed one gives the logits it gives alone. UserError if not: the
    architecture ignores position ids, or carries a state from one document to the next.

    In 16 bits the two differ by rounding, as other shapes use other kernels. What counts is therefore how far
    they are apart in comparison with the logits of the same row as a single document: below 0.05 where
    documents are kept apart, about 1 where they are not.
    """
    fault = UserError(f"{type(model).__name__} lets packed documents see each other: set packing to false")
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise fault
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = np.random.default_rng(0).integers(0, vocabulary, (2, length))

    def logits(row: list[np.ndarray], packing: bool) -> torch.Tensor:
        batch = collate([row], packing)
        inputs = {k: v.to(model.device) for k, v in batch.items() if k != "labels"}
        return model(**inputs).logits[0, -length:].float()

    alone = logits([ids[1]], packing=False)
    packed = (logits([ids[0], ids[1]], packing=True) - alone).norm()
    joined = (logits([ids[0], ids[1]], packing=False) - alone).norm()
    record(packing_check={"packed_over_joined": (packed / joined.clamp(min=1e-30)).item()})
    if not packed <= 0.25 * joined:
        raise fault


def write_results(
    trainer: Trainer, watch: Watch, rows: Rows, out: Path, checkpoint: Path, recipe: Recipe, plan: Plan
) -> None:
    """adapter/, training.csv and, when both are whole, heal.json."""
    out.mkdir(parents=True, exist_ok=True)
    done = out / "heal.json"
    done.unlink(missing_ok=True)
    write_adapter(trainer.model, out / "adapter", checkpoint)
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    with replacing(out / "training.csv") as aside, open(aside, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["step", "loss", "learning_rate", "grad_norm", "tokens"])
        for e in log:
            real = rows.tokens_after[e["step"] - 1]
            table.writerow([e["step"], e["loss"], e["learning_rate"], e["grad_norm"], real])
    before = rows.tokens_after[watch.first_step - 1] if watch.first_step else 0
    last = [e["loss"] for e in log[-max(1, len(log) // 10) :]]
    manifest = checkpoint / "manifest.json"
    write_json(
        done,
        provenance(
            checkpoint=str(checkpoint),
            manifest_sha256=sha256(manifest) if manifest.exists() else None,
            recipe=asdict(recipe),
            **asdict(plan),
            trainable_parameters=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
            tokens=int(rows.tokens_after[-1]),
            final_loss=sum(last) / len(last),  # mean of the last tenth of the steps, nats per token
            resumed_from_step=watch.first_step,
            training_seconds=round(watch.seconds, 3),
            tokens_per_second=round(float(rows.tokens_after[-1] - before) / watch.seconds, 1),
        ),
    )


def write_adapter(model: PeftModel, folder: Path, checkpoint: Path) -> None:
    """The adapter's folder, written aside and renamed."""
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)  # of a run killed just here
    save_adapter(model, aside, checkpoint, folder)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(aside, folder)
