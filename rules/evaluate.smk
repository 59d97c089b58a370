# Evaluation: lm-eval's tasks, or the held-out loss. All un-healed cuts of a model share one job and the
# layers before their cuts; each healed cut is a job.


rule evaluate_pruned:
    input:
        checkpoint=f"{OUT}/{{model}}/checkpoints/full/manifest.json",
        text=suite_files,
        # Not a file but an order: which blocks, not how they were found, decides a rerun.
        order=lambda wildcards: pruned_blocks(wildcards) and [],
    output:
        f"{OUT}/{{model}}/pruned/{{suite}}/index.json",
    log:
        f"{OUT}/logs/{{model}}/pruned/{{suite}}.log",
    conda:
        "../envs/models.yaml"
    threads: threads_for(workloads.pruned_evaluation)
    resources:
        **needs(workloads.pruned_evaluation),
        tuning=lambda wildcards: study.suite_tuning(wildcards.suite),
    params:
        blocks=lambda wildcards: " ".join(map(str, pruned_blocks(wildcards))),
        options=lambda wildcards: study.suite_options(wildcards.suite, wildcards.model),
        code=code("evaluate"),
    message:
        "Evaluating all cuts of {wildcards.model}: {wildcards.suite}"
    shell:
        'python "$SCRIPTS/evaluate.py" {params.options} {resources.tuning} --threads {threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --blocks {params.blocks} '
        '--code {params.code} --out "$(dirname {output:q})" --log {log:q}'


rule evaluate_healed:
    input:
        checkpoint=f"{OUT}/{{model}}/checkpoints/{{block}}/manifest.json",
        adapter=ancient(rules.heal.output.adapter),
        healed=rules.heal.output.summary,
        text=suite_files,
    output:
        f"{OUT}/{{model}}/{{recipe}}/{{block}}/{{suite}}.json",
    log:
        f"{OUT}/logs/{{model}}/{{recipe}}/{{block}}-{{suite}}.log",
    conda:
        "../envs/models.yaml"
    threads: threads_for(workloads.evaluation)
    resources:
        **needs(workloads.evaluation),
        tuning=lambda wildcards: study.suite_tuning(wildcards.suite),
    params:
        options=lambda wildcards: study.suite_options(wildcards.suite, wildcards.model),
        code=code("evaluate"),
    message:
        "Evaluating {wildcards.model} without {wildcards.block}, {wildcards.recipe}: {wildcards.suite}"
    shell:
        'python "$SCRIPTS/evaluate.py" {params.options} {resources.tuning} --threads {threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --adapter "$(dirname {input.adapter:q})" '
        "--treatment {wildcards.recipe:q} "
        "--code {params.code} --out {output:q} --log {log:q}"
