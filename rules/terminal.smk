# What a person reads while Snakemake runs.


STARTED = time.time()

if workflow.is_main_process:
    for line in warnings:
        logger.warning(f"warning: {line}")

if study.uncached_models and workflow.is_main_process:
    uncached = ", ".join(study.model(name).id for name in study.uncached_models)
    logger.info(
        f"Not in the Hugging Face cache yet, number of layers unknown: {uncached}"
    )


def show_summary():
    """The summary in the terminal, if this run made it."""
    path = Path(paths.summary())
    if workflow.is_main_process and path.exists() and path.stat().st_mtime > STARTED:
        logger.info(f"\n{path.read_text()}")


def jobs_to_come(stats):
    return announcement(study, stats, study_command("plan"))


if not IS_MODULE:
    terminal.install(workflow, jobs_to_come)
