"""Training of a part of a cut with the Trainer of transformers; by default QLoRA, after appendix A.1.

A run that is killed and started again with the same settings continues from its last complete checkpoint
and, on a CPU, ends with the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import math
import os
import signal
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel, TrainingArguments, set_seed
from transformers.utils import is_liger_kernel_available, is_torch_bf16_gpu_available

from ..checkpoints.folder import MANIFEST
from ..checkpoints.shape import Shape
from ..data.packing import Steps
from ..data.tokens import Tokens
from ..errors import UserError
from ..models.layers import Removal
from ..models.load import device, load_model
from ..models.replaced import replace_tensors
from ..pruning.layer_set import FULL, LayerSet
from ..runtime.files import read_json
from ..runtime.progress import Progress
from ..settings.healing import PartialHealing, TrainingSettings
from .batch_plan import BatchPlan, first_plan
from .method import HealingFiles
from .monitor import TrainingMonitor, catch_sigterm
from .objective import Objective, Teacher
from .parts import Adapter, Part
from .results import begin_results, write_summary, write_training
from .resume import ResumableState
from .steps import StepTrainer, Terminated


@dataclass
class Training:
    """One healing: its ``files``, the ``recipe``, the ``part`` that trains, its ``steps`` in order, the
    ``state`` to resume from, and what it has come to."""

    files: HealingFiles
    recipe: TrainingSettings
    part: Part
    steps: Steps
    state: ResumableState
    trainer: StepTrainer | None = None
    monitor: TrainingMonitor | None = None


def heal(
    files: HealingFiles,
    recipe: TrainingSettings,
    trust_remote_code: bool = False,
    part: type[Part] = Adapter,
) -> None:
    """Train a part of the cut model in ``files.checkpoint``; write the artifact into ``files.out``,
    training.csv and heal.json (last: its presence means that the rest is whole).

    Where the uncut model teaches, that is loaded (``files.full``), and the layers of the cut taken out.
    Tensors of ``files.repair`` take the place of the cut's before the training, and are in the artifact.
    ``files.state`` keeps the Trainer's checkpoints until success. SIGTERM saves a last checkpoint and exits
    with status 143. Raises UserError for a loss that diverges and for documents that do not fit in memory.
    """
    tokens = Tokens(files.tokens)
    steps = Steps(tokens, recipe.steps, recipe.batch, recipe.length, recipe.packing, recipe.seed)
    state = ResumableState(files.state, recipe, files.checkpoint, tokens.path, files.repair)
    cuda = device().type == "cuda"
    if cuda and recipe.precision != "fp32" and not is_torch_bf16_gpu_available():
        raise UserError(
            f"healing: {torch.cuda.get_device_name()} has no bf16, in which {recipe.precision} computes: "
            "take precision fp32, or an Ampere card or later"
        )
    if cuda:
        prefer_deterministic_kernels()
    with ExitStack() as until_written:
        cut = LayerSet.parse(read_json(files.checkpoint / MANIFEST)["block"]) if recipe.has_teacher else FULL
        model = load_model(files.full if cut.n else files.checkpoint, recipe.precision, trust_remote_code)
        removal = Removal(model, cut)
        until_written.enter_context(removal.done())
        if files.repair:
            removal.replace(partial(replace_tensors, model, files.repair))
        set_seed(recipe.seed)  # before an adapter draws its weights
        training = Training(files, recipe, part(model, recipe, removal), steps, state)
        teacher = Teacher(training.part.model, removal, cut) if recipe.has_teacher else None
        train(training, teacher, cuda)
        if training.monitor.terminated:
            raise SystemExit(128 + signal.SIGTERM)
        with catch_sigterm(training.monitor.sigterm):
            write_results(training)
            # Whoever asked it to end may take the job for failed, and delete what it has written.
            if not training.monitor.sigterm.is_set():
                state.remove()


def train(training: Training, teacher: Teacher | None, cuda: bool) -> None:
    """Train to the end, from the last complete checkpoint if there is one."""
    files, recipe, base = training.files, training.recipe, training.part.base
    plan = training.state.plan(plan_of(recipe, base))
    check_plan(training, plan)
    resume = training.state.latest()
    with Progress(f"healing {files.out}", recipe.steps, "step") as progress, catch_sigterm() as sigterm:
        monitor = TrainingMonitor(
            progress, sigterm, recipe.save_every, recipe.learning_rate, chance_loss(base)
        )
        training.monitor = monitor
        training.trainer = StepTrainer(
            model=training.part.model,
            args=training_arguments(training.state.folder, recipe, cuda),
            train_dataset=training.steps,
            objective=partial(Objective, base, recipe, teacher),
            plan=plan,
            smaller=partial(smaller_plan, training),
            monitor=monitor,
            longest=recipe.length,
        )
        try:
            training.trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        except Terminated:
            monitor.terminated = True


def plan_of(recipe: TrainingSettings, model: PreTrainedModel) -> BatchPlan:
    """How a step goes through memory, as far as the recipe or the free memory says."""
    shape = Shape.from_config(model.config.to_dict())
    plan = first_plan(shape, recipe.checkpointing, recipe.length, model.device)
    return replace(plan, batch_tokens=recipe.batch_tokens) if recipe.batch_tokens else plan


def smaller_plan(training: Training, plan: BatchPlan, tokens: int, longest: int) -> BatchPlan:
    """What to try after ``plan`` did not fit, kept in the state. UserError if there is nothing."""
    smaller = plan.smaller(tokens, longest, training.recipe.checkpointing)
    if smaller is None:
        raise UserError(
            f"healing {training.files.checkpoint}: one document of {longest} tokens does not fit in memory: "
            "lower length, or choose precision nf4"
        )
    check_plan(training, smaller)
    print(f"out of memory with {tokens} tokens at once, {plan}: trying {smaller}", flush=True)
    return training.state.replace_plan(smaller)


def check_plan(training: Training, plan: BatchPlan) -> None:
    """UserError for a model that cannot follow ``plan``."""
    base = training.part.base
    if plan.gradient_checkpointing and not base.supports_gradient_checkpointing:
        raise UserError(
            f"healing {training.files.checkpoint}: {type(base).__name__} has no gradient checkpointing: set "
            "checkpointing to off and, where one document does not fit in memory, lower length or choose "
            "precision nf4"
        )


def prefer_deterministic_kernels() -> None:
    """What the paper's enable_full_determinism asks for, without waiting for every CUDA kernel."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False


def training_arguments(folder: Path, recipe: TrainingSettings, cuda: bool) -> TrainingArguments:
    """The recipe in the Trainer's words. An item of the Trainer is a whole step."""
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=recipe.steps,
        per_device_train_batch_size=1,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.clip,
        seed=recipe.seed,
        # Autocast, for what trains in fp32 beside weights in bf16; peft sees to that itself.
        bf16=recipe.precision != "fp32" and (cuda or isinstance(recipe, PartialHealing)),
        use_cpu=not cuda,
        use_liger_kernel=cuda and is_liger_kernel_available(),
        train_sampling_strategy="sequential",  # Steps has drawn the order already
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",  # the monitor says when
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
    )
    args._n_gpu = min(args.n_gpu, 1)  # one job, one card: else the Trainer would multiply the batch
    return args


def chance_loss(model: PreTrainedModel) -> float:
    """ln V: the loss, in nats, of a model that knows nothing."""
    return math.log(model.get_input_embeddings().weight.shape[0])


def write_results(training: Training) -> None:
    """adapter/, training.csv and, when both are whole, heal.json."""
    files, tokens = training.files, training.steps.cumulative_tokens
    trainer, monitor = training.trainer, training.monitor
    begin_results(files.out)
    training.part.write(files)
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    names = list(trainer.objective.weights)
    write_training(files.out, log, tokens, names if training.recipe.has_teacher else [])
    before = tokens[monitor.first_step - 1] if monitor.first_step else 0
    last = log[-max(1, len(log) // 10) :]
    final = {name: sum(entry[name] for entry in last) / len(last) for name in ("loss", *names)}
    write_summary(
        files,
        training.part.title,
        training.recipe,
        **asdict(trainer.plan),
        head_in_pieces=trainer.objective.head.is_apart,
        trainable_parameters=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        tokens=int(tokens[-1]),
        final_loss=final.pop("loss"),  # mean of the last tenth of the steps, nats per token
        final_objectives=final,
        resumed_from_step=monitor.first_step,
        training_seconds=round(monitor.seconds, 3),
        tokens_per_second=round(float(tokens[-1] - before) / monitor.seconds, 1),
    )
