"""QLoRA with the Trainer of transformers, after the paper's appendix A.1.

A run that is killed and started again with the same settings continues from its last complete checkpoint
and, on a CPU, ends with the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments, set_seed
from transformers.utils import is_liger_kernel_available, is_torch_bf16_gpu_available

from ..data.packing import Rows, collate
from ..data.tokens import Tokens
from ..errors import UserError
from ..models.adapters import add_adapter, save_adapter
from ..models.load import device, load_model
from ..models.shapes import padded_length
from ..runtime.progress import Progress
from ..settings.healing import Healing
from .batch_plan import BatchPlan, run_within_memory
from .method import HealingFiles
from .monitor import TrainingMonitor, catch_sigterm
from .packing_check import check_packing
from .results import begin_results, write_summary, write_training
from .resume import ResumableState


@dataclass(frozen=True)
class Training:
    """One healing: its ``files``, the ``recipe``, its ``rows`` in order, and the ``state`` to resume from."""

    files: HealingFiles
    recipe: Healing
    trust_remote_code: bool
    rows: Rows
    state: ResumableState


def heal(files: HealingFiles, recipe: Healing, trust_remote_code: bool = False) -> None:
    """Train an adapter for the cut model in ``files.checkpoint``; write ``files.out``/adapter, training.csv
    and heal.json (last: its presence means that the rest is whole).

    The batch goes through the model at once, or in parts of ``recipe.micro_batch``, or where memory runs out.
    ``files.state`` keeps the Trainer's checkpoints until success. SIGTERM saves a last checkpoint and exits
    with status 143. Raises UserError for a loss that diverges and for rows that do not fit in memory.
    """
    tokens = Tokens(files.tokens)
    rows = Rows(tokens, recipe.steps, recipe.batch, recipe.length, recipe.packing, recipe.seed)
    state = ResumableState(files.state, recipe, files.checkpoint, tokens.path)
    training = Training(files, recipe, trust_remote_code, rows, state)
    first = BatchPlan(recipe.micro_batch or recipe.batch, recipe.checkpointing == "on")
    (trainer, monitor), plan = run_within_memory(
        partial(train, training), state.plan(first), partial(smaller_plan, training)
    )
    if monitor.terminated:
        raise SystemExit(128 + signal.SIGTERM)
    with catch_sigterm(monitor.sigterm):
        write_results(training, trainer, monitor, plan)
        # Whoever asked it to end may take the job for failed, and delete what it has written.
        if not monitor.sigterm.is_set():
            state.remove()


def smaller_plan(training: Training, plan: BatchPlan) -> BatchPlan:
    """What to try after ``plan`` did not fit, kept in the state. UserError if there is nothing."""
    recipe = training.recipe
    smaller = plan.smaller(recipe.batch, recipe.checkpointing)
    if smaller is None:
        raise UserError(
            f"healing {training.files.checkpoint}: one row of {recipe.length} tokens does not fit in memory: "
            "lower length, or choose precision nf4"
        )
    return training.state.replace_plan(smaller)


def train(training: Training, plan: BatchPlan) -> tuple[Trainer, TrainingMonitor]:
    """One attempt with a given plan, from the last complete checkpoint if there is one."""
    files, recipe, cuda = training.files, training.recipe, device().type == "cuda"
    if cuda and recipe.precision != "fp32" and not is_torch_bf16_gpu_available():
        raise UserError(
            f"healing: {torch.cuda.get_device_name()} has no bf16, in which {recipe.precision} computes: "
            "take precision fp32, or an Ampere card or later"
        )
    set_seed(recipe.seed)  # before the adapter draws its weights
    if cuda:
        prefer_deterministic_kernels()
    model = load_base(files.checkpoint, recipe, training.trust_remote_code)
    if plan.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise UserError(
            f"healing {files.checkpoint}: {type(model).__name__} has no gradient checkpointing: set "
            "checkpointing to off and, where one row does not fit in memory, lower length or choose "
            "precision nf4"
        )
    model = add_adapter(model, recipe.rank, recipe.alpha or recipe.rank, recipe.dropout, recipe.targets)
    padded = partial(padded_length, device=model.device, longest=recipe.length)
    resume = training.state.latest()
    save_every = training.recipe.save_every
    with Progress(f"healing {files.out}", recipe.steps, "step") as progress, catch_sigterm() as sigterm:
        monitor = TrainingMonitor(progress, sigterm, save_every, recipe.learning_rate, chance_loss(model))
        trainer = Trainer(
            model=model,
            args=training_arguments(training.state.folder, recipe, plan, cuda),
            train_dataset=training.rows,
            data_collator=partial(collate, packing=recipe.packing, padded=padded),
            callbacks=[monitor],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return trainer, monitor


def load_base(checkpoint: Path, recipe: Healing, trust_remote_code: bool) -> PreTrainedModel:
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


def training_arguments(folder: Path, recipe: Healing, plan: BatchPlan, cuda: bool) -> TrainingArguments:
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
        save_strategy="no",  # the monitor says when
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
    )
    args._n_gpu = min(args.n_gpu, 1)  # one job, one card: else the Trainer would multiply the batch
    return args


def chance_loss(model: PeftModel) -> float:
    """ln V: the loss, in nats, of a model that knows nothing."""
    return math.log(model.get_input_embeddings().weight.shape[0])


def write_results(training: Training, trainer: Trainer, monitor: TrainingMonitor, plan: BatchPlan) -> None:
    """adapter/, training.csv and, when both are whole, heal.json."""
    files, tokens = training.files, training.rows.cumulative_tokens
    begin_results(files.out)
    write_adapter(trainer.model, files.out / "adapter", files.checkpoint)
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    write_training(files.out, log, tokens)
    before = tokens[monitor.first_step - 1] if monitor.first_step else 0
    last = [entry["loss"] for entry in log[-max(1, len(log) // 10) :]]
    write_summary(
        files,
        "QLoRA",
        training.recipe,
        **asdict(plan),
        trainable_parameters=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        tokens=int(tokens[-1]),
        final_loss=sum(last) / len(last),  # mean of the last tenth of the steps, nats per token
        resumed_from_step=monitor.first_step,
        training_seconds=round(monitor.seconds, 3),
        tokens_per_second=round(float(tokens[-1] - before) / monitor.seconds, 1),
    )


def write_adapter(model: PeftModel, folder: Path, checkpoint: Path) -> None:
    """The adapter's folder, written beside and renamed."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a run killed just here
    save_adapter(model, temporary, checkpoint, folder)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
