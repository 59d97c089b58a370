# The study that all rules share: the configuration, checked, and what several stages ask of it.
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

from deeper_layers.data.texts import text_fingerprint
from deeper_layers.errors import UserError
from deeper_layers.healing.methods import METHODS, healing_method, rule_name
from deeper_layers.layout import PRUNED
from deeper_layers.pruning.layer_set import CUT_PATTERN, NAME_PATTERN
from deeper_layers.reporting.figures.registry import FIGURES
from deeper_layers.runtime import terminal
from deeper_layers.settings.formats import GGUF, NF4
from deeper_layers.settings.texts import WORLD_TASKS
from deeper_layers.study import figures, options
from deeper_layers.study.asked import asked_by
from deeper_layers.study.checks import check
from deeper_layers.study.code_hash import code
from deeper_layers.study.cut_inputs import CutInputs
from deeper_layers.study.evidence import measured, of_kind, of_section
from deeper_layers.study.healed_inputs import HealedInputs
from deeper_layers.study.inputs import (
    Inputs,
    adapter_option,
    card_options,
    evidence_options,
    figure_code,
    healing_option,
    offline_where_fetched,
    source_option,
    suite_option,
)
from deeper_layers.study.job_resources import (
    LIGHT,
    healing_retries,
    needs,
    threads_for,
)
from deeper_layers.study.jobs import announcement
from deeper_layers.study.overlay import ALONE, effective, stands_alone
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
KINDS = ["svg", "pdf", "png"]  # every figure

# Of hub models that are not here yet download.py checks the same once their config.json is.
asked = {m: asdict(asked_by(study, m)) for m in study.models_from("hub")}
os.environ |= {"ASKED": json.dumps(asked)}


def names(known):
    """A wildcard constraint: exactly these names, or nothing at all."""
    return "|".join(re.escape(name) for name in known) or "(?!)"


wildcard_constraints:
    model=names(study.models),
    recipe=names(study.recipes),
    suite=names(study.suites),
    block=NAME_PATTERN,
    chunk=rf"\d+of\d+|{NAME_PATTERN}",
    split="train|calibration|validation",


def blocks_csv(model):
    """blocks.csv of a model, once it is made: the graph grows from it."""
    return checkpoints.blocks.get(model=model).output[0]


def study_command(target):
    """What a user types for a target of this study."""
    overlays = [os.path.relpath(path) for path in workflow.overwrite_configfiles]
    options = [word for path in overlays for word in ("--configfile", path)]
    return shlex.join(["snakemake", target, *options])


inputs = Inputs(study, blocks_csv, study_command)
healed_inputs = HealedInputs(inputs)
cut_inputs = CutInputs(inputs)


def after(function):
    """An input function of no files, for a rule that needs to know what ``function(wildcards)`` reads from
    blocks.csv: what was chosen, as its parameters say it, decides a rerun, not how it was chosen.
    """

    def wait(wildcards):
        # Raises until the blocks are chosen; Snakemake asks again then.
        function(wildcards)
        return []

    return wait
