# Evaluation: lm-eval's tasks, or the held-out loss. All un-healed cuts of a model share one job,
# which runs what they have in common once; each healed cut is a job.


rule evaluate_pruned:
    input:
        checkpoint=paths.full(),
        tokens=inputs.suite_tokens,
        tasks=inputs.suite_tasks,
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
        code=code("evaluate"),
    message:
        "Evaluating all cuts of {wildcards.model}: {wildcards.suite}"
    shell:
        'python "$SCRIPTS/evaluate.py" {params.options} {params.text} {params.tuning} --threads {threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --blocks {params.blocks} '
        '--code {params.code} --out "$(dirname {output:q})" --log {log:q}'


rule evaluate_healed:
    input:
        checkpoint=paths.checkpoint(),
        # Its summary, made with it, tells whether it is another one, not the date of so large a file.
        adapter=ancient(inputs.artifact),
        healed=paths.healed("heal.json"),
        tokens=inputs.suite_tokens,
        tasks=inputs.suite_tasks,
    output:
        paths.result(),
    log:
        paths.log("{model}/{recipe}/{block}-{suite}"),
    conda:
        "../envs/models.yaml"
    threads: threads_for(workloads.evaluation)
    resources:
        **needs(workloads.evaluation),
    params:
        options=lambda wildcards: options.evaluate(
            study, wildcards.suite, wildcards.model
        ),
        tuning=lambda wildcards, input: options.evaluate_tuning(study, wildcards.suite),
        adapter=adapter_option,
        text=suite_option,
        code=code("evaluate"),
    message:
        "Evaluating {wildcards.model} without {wildcards.block}, {wildcards.recipe}: {wildcards.suite}"
    shell:
        'python "$SCRIPTS/evaluate.py" {params.options} {params.text} {params.tuning} --threads {threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" {params.adapter} '
        "--treatment {wildcards.recipe:q} "
        "--code {params.code} --out {output:q} --log {log:q}"
