# The study behind the rules: the configuration, checked, and what several stages ask of it.
import inspect
import json
import os
import re
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

# This file's own folder, since another Snakefile may use these rules as a module.
HERE = Path(str(workflow.current_basedir)).parent
if not (HERE / "scripts").is_dir():
    sys.exit(
        f"error: {HERE} is no folder here, and this workflow runs the programs beside its Snakefile; "
        "clone the repository and name the clone's Snakefile"
    )
# In the environment, not in the rules' text, which must be the same wherever the workflow lies.
SCRIPTS = str(HERE / "scripts")
os.environ |= {"SCRIPTS": SCRIPTS}
sys.path.insert(0, SCRIPTS)

from deeper_layers.runtime import terminal
from deeper_layers.study.asked import asked_by
from deeper_layers.pruning.layer_set import CUT_PATTERN, NAME_PATTERN, LayerSet
from deeper_layers.data.texts import text_fingerprint
from deeper_layers.layout import PRUNED
from deeper_layers.reporting.figures.registry import FIGURES
from deeper_layers.study import figures, options
from deeper_layers.study.checks import check
from deeper_layers.study.code_hash import code
from deeper_layers.errors import UserError
from deeper_layers.study.overlay import ALONE, effective, stands_alone
from deeper_layers.study.inputs import (
    Inputs,
    adapter_option,
    card_options,
    evidence_options,
    source_option,
    suite_option,
)
from deeper_layers.study.jobs import jobs as planned_jobs
from deeper_layers.study.schema import MissingError
from deeper_layers.study.study import Study
from deeper_layers.study.workload import Workloads

# Programs lie there too, named like modules that an importing Snakefile may want.
sys.path.remove(SCRIPTS)


IS_MODULE = Path(workflow.basedir).resolve() != HERE.resolve()


def read_study() -> tuple[Study, list[str]]:
    """The study of the configuration, defaults filled in, and warnings; one clear line and no run if it makes no
    sense."""
    # A module's importer gives the whole configuration; else the command line lays a part over config.yaml.
    own = {} if IS_MODULE else workflow.config_settings.overwrite_config
    name = Path([*workflow.overwrite_configfiles, "mine"][-1]).stem
    hint = ""
    try:
        found = effective(config, own, name)
        hint = f" {ALONE}" if stands_alone(config, own) else ""
        config.clear()
        config.update(found)
        study = Study(config)
        return study, check(study)
    except MissingError as error:
        sys.exit(f"error: {error}{hint}")
    except UserError as error:
        sys.exit(f"error: {error}")


study, warnings = read_study()
paths = study.paths
workloads = Workloads(study)
STARTED = time.time()
KINDS = ["svg", "pdf", "png"]  # every figure

# Of hub models that are not here yet download.py checks the same once their config.json is.
asked = {m: asdict(asked_by(study, m)) for m in study.models_from("hub")}
os.environ |= {"ASKED": json.dumps(asked)}

if workflow.is_main_process:
    for line in warnings:
        logger.warning(f"warning: {line}")

if study.uncached_models and workflow.is_main_process:
    uncached = ", ".join(study.model(name).id for name in study.uncached_models)
    logger.info(
        f"Not in the Hugging Face cache yet, number of layers unknown: {uncached}"
    )


def study_command(target):
    """What a user types for a target of this study."""
    overlays = [os.path.relpath(path) for path in workflow.overwrite_configfiles]
    words = ["snakemake", target] + [
        w for path in overlays for w in ("--configfile", path)
    ]
    return shlex.join(words)


def show_summary():
    """The summary in the terminal, if this run made it."""
    path = Path(paths.summary())
    if workflow.is_main_process and path.exists() and path.stat().st_mtime > STARTED:
        logger.info(f"\n{path.read_text()}")


def jobs_to_come(stats):
    """What to say of jobs that Snakemake does not count yet, given its number of jobs by rule."""
    if "blocks" not in stats:
        return ""
    return (
        "More follow once the blocks are chosen: cutting, healing and evaluation"
        + (
            f", in all at most {len(planned_jobs(study)) + 1} jobs"
            if "all" in stats
            else ""
        )
        + f" (`{study_command('plan')}` says what they cost)."
    )


if not IS_MODULE:
    terminal.install(workflow, jobs_to_come)


def names(known):
    """A wildcard constraint: exactly these names, or nothing at all."""
    return "|".join(re.escape(name) for name in known) or "(?!)"


wildcard_constraints:
    model=names(study.models),
    recipe=names(study.recipes),
    suite=names(study.suites),
    block=NAME_PATTERN,
    split="train|calibration|validation",


def blocks_csv(model):
    """blocks.csv of a model, once it is made: the graph grows from it."""
    return checkpoints.blocks.get(model=model).output[0]


inputs = Inputs(study, blocks_csv)


def after(function):
    """An input function of no files, for a rule that needs to know what ``function(wildcards)`` reads from
    blocks.csv: what was chosen, as its parameters say it, decides a rerun, not how it was chosen.
    """

    def wait(wildcards):
        # Raises until the blocks are chosen; Snakemake asks again then.
        function(wildcards)
        return []

    return wait


def exports(wildcards):
    """The folders of what export names."""
    if not config["export"]:
        example = f"{study.models[0]}/{[*study.recipes, PRUNED][0]}/4"
        sys.exit(
            "error: nothing to export: name it as MODEL/TREATMENT/N, for example "
            f"{study_command('export')} --config 'export=[{example}]'"
        )
    try:
        return inputs.exports()
    except UserError as error:
        sys.exit(f"error: {error}")


def pushed(wildcards):
    """The same, if it is known where to."""
    if not config["hub"]:
        sys.exit("error: push where to? Give --config hub=ACCOUNT, or the key hub")
    return exports(wildcards)


def figure_code(wildcards):
    return code("figure", f"reporting/figures/{FIGURES[wildcards.figure].module}")


def healing_retries():
    """Those of the profile (None), unless a healing takes longer than the day that a job may: then three, as the
    profiles of clusters have, and one for each further day."""
    days = workloads.healing_days()
    return days + 2 if days > 1 else None


def work_of(estimate):
    """The work of a rule's job: an estimate of ``workloads``, given the wildcards that it has arguments for."""
    arguments = inspect.signature(estimate).parameters

    def work(wildcards):
        values = {name: getattr(wildcards, name) for name in arguments}
        if "block" in values:
            values["block"] = LayerSet.parse(values["block"])
        return estimate(**values)

    return work


def needs(estimate):
    """Resources of a rule whose jobs do the work of an ``estimate``; more with each attempt."""
    work = work_of(estimate)
    return {
        "gpu": lambda wildcards: work(wildcards).gpus,
        "gpu_mem_mb": lambda wildcards, attempt: work(wildcards).gpu_mem_mb(attempt),
        "mem_mb": lambda wildcards, attempt: work(wildcards).mem_mb(attempt),
        "runtime": lambda wildcards, attempt: work(wildcards).runtime(attempt),
    }


def threads_for(estimate):
    """Threads of the same jobs."""
    work = work_of(estimate)
    return lambda wildcards: work(wildcards).threads


# For what handles files and text, whatever the model.
LIGHT = {
    "mem_mb": lambda wildcards, attempt: 4000 * attempt,
    "runtime": lambda wildcards, attempt: 60 * attempt,
}
