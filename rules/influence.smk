# Block Influence of every layer, from one forward pass, on the documents of the distances (ShortGPT); and the order in
# which layers go where it is measured again as they do.


rule influence:
    input:
        checkpoint=paths.full(),
        tokens=lambda w: study.tokens(w.model, measured(config, w.evidence)),
    output:
        influence=paths.evidence("{evidence}"),
        summary=paths.evidence("{evidence}", ending="json"),
    log:
        paths.log("{model}/{evidence}"),
    wildcard_constraints:
        evidence=names(of_kind(study.evidence, "influence")),
    conda:
        "../envs/models.yaml"
    threads: threads_for(workloads.distances)
    resources:
        **needs(workloads.distances),
    params:
        options=lambda wildcards: options.distances(study, wildcards.model),
        tuning=lambda wildcards, input: options.distances_tuning(study),
        code=code("influence"),
    message:
        "Measuring the influence of the layers of {wildcards.model}"
    shell:
        'python "$SCRIPTS/influence.py" {params.options} {params.tuning} --threads {threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --tokens {input.tokens:q} --out {output.influence:q} --log {log:q}'


rule iterative_influence:
    input:
        checkpoint=paths.full(),
        tokens=lambda w: study.tokens(w.model, measured(config, w.evidence)),
    output:
        order=paths.evidence("{evidence}"),
        summary=paths.evidence("{evidence}", ending="json"),
    log:
        paths.log("{model}/{evidence}"),
    wildcard_constraints:
        evidence=names(of_kind(study.evidence, "iterative_influence")),
    conda:
        "../envs/models.yaml"
    threads: threads_for(workloads.iterative)
    resources:
        **needs(workloads.iterative),
    params:
        options=lambda wildcards: options.iterative(
            study, wildcards.model, wildcards.evidence
        ),
        tuning=lambda wildcards, input: options.iterative_tuning(study),
        code=code("iterative"),
    message:
        "Measuring the influence of layers of {wildcards.model} as they go: {wildcards.evidence}"
    shell:
        'python "$SCRIPTS/iterative.py" {params.options} {params.tuning} --threads {threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --tokens {input.tokens:q} --out {output.order:q} --log {log:q}'
