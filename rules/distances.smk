# Angular distances of all pairs of layers, from one forward pass (paper, section 3.2).


rule distances:
    input:
        checkpoint=paths.full(),
        tokens=lambda w: study.tokens(w.model, measured(config, w.evidence)),
    output:
        distances=paths.evidence("{evidence}"),
        summary=paths.evidence("{evidence}", ending="json"),
    log:
        paths.log("{model}/{evidence}"),
    wildcard_constraints:
        evidence=names(of_kind(study.evidence, "distances")),
    conda:
        "../envs/models.yaml"
    threads: threads_for(workloads.distances)
    resources:
        **needs(workloads.distances),
    params:
        options=lambda wildcards: options.distances(study, wildcards.model),
        tuning=lambda wildcards, input: options.distances_tuning(study),
        code=code("distances"),
    message:
        "Measuring the distances of {wildcards.model}"
    shell:
        'python "$SCRIPTS/distances.py" {params.options} {params.tuning} --threads {threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --tokens {input.tokens:q} --out {output.distances:q} --log {log:q}'
