# Evaluation: lm-eval's tasks, or the held-out loss. All un-healed cuts of a model share one job, which runs what
# they have in common once. So do all healed ones of a recipe, or as many jobs as study.chunks says: the model is
# loaded once, layers are taken out, what healed them is put on. The results are per cut, and what is there stays.


rule fetch_tasks:
    output:
        paths.task_data(),
    log:
        paths.log("fetch-{suite}"),
    # Where Snakemake itself runs: the nodes of a cluster often have no network.
    localrule: True
    conda:
        "../envs/models.yaml"
    params:
        options=lambda wildcards: options.fetch_tasks(study, wildcards.suite),
    message:
        "Fetching the data of {wildcards.suite} into the Hugging Face cache"
    shell:
        'python "$SCRIPTS/fetch_tasks.py" {params.options} --out {output:q} --log {log:q}'


rule evaluate_pruned:
    input:
        checkpoint=paths.full(),
        tokens=inputs.suite_tokens,
        tasks=inputs.suite_tasks,
        # It says that they are in the cache; other numbers follow from the suite's settings.
        data=ancient(inputs.task_data),
        order=after(inputs.pruned_blocks),
    output:
        paths.pruned_index(),
    log:
        paths.log("{model}/pruned/{suite}"),
    conda:
        "../envs/models.yaml"
    threads: threads_for(workloads.pruned_evaluation)
    resources:
        **needs(workloads.pruned_evaluation),
    params:
        blocks=lambda wildcards: " ".join(map(str, inputs.pruned_blocks(wildcards))),
        options=lambda wildcards: options.evaluate(
            study, wildcards.suite, wildcards.model
        ),
        tuning=lambda wildcards, input: options.evaluate_tuning(study, wildcards.suite),
        text=suite_option,
        offline=offline_where_fetched,
        code=code("evaluate"),
    message:
        "Evaluating all cuts of {wildcards.model}: {wildcards.suite}"
    shell:
        '{params.offline}python "$SCRIPTS/evaluate.py" {params.options} {params.text} {params.tuning} --threads {threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --blocks {params.blocks} '
        '--code {params.code} --out "$(dirname {output:q})" --log {log:q}'


rule evaluate_healed:
    input:
        checkpoint=paths.full(),
        cuts=healed_inputs.cuts,
        verified=paths.verified(),
        # Their summaries, made with them, tell whether they are others, not the dates of so large files.
        artifacts=ancient(healed_inputs.artifacts),
        healed=healed_inputs.summaries,
        tokens=inputs.suite_tokens,
        tasks=inputs.suite_tasks,
        data=ancient(inputs.task_data),
    output:
        paths.healed_index(),
    log:
        paths.log("{model}/{recipe}/evaluated-{suite}-{chunk}"),
    conda:
        "../envs/models.yaml"
    threads: threads_for(workloads.healed_evaluation)
    resources:
        **needs(workloads.healed_evaluation),
    params:
        blocks=lambda wildcards: " ".join(map(str, healed_inputs.blocks(wildcards))),
        options=lambda wildcards: options.evaluate(
            study, wildcards.suite, wildcards.model
        ),
        tuning=lambda wildcards, input: options.evaluate_tuning(study, wildcards.suite),
        text=suite_option,
        offline=offline_where_fetched,
        code=code("evaluate"),
    message:
        "Evaluating {wildcards.model}, {wildcards.recipe} ({wildcards.chunk}): {wildcards.suite}"
    shell:
        '{params.offline}python "$SCRIPTS/evaluate.py" {params.options} {params.text} {params.tuning} --threads {threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --blocks {params.blocks} '
        '--healed "$(dirname "$(dirname {output:q})")" --treatment {wildcards.recipe:q} '
        "--code {params.code} --out {output:q} --log {log:q}"
