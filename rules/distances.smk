# Angular distances of all pairs of layers, from one forward pass (paper, section 3.2).


rule distances:
    input:
        checkpoint=paths.full(),
        tokens=lambda wildcards: study.tokens(wildcards.model, config["distances"]),
    output:
        distances=paths.distances(),
        summary=paths.distances(ending="json"),
    log:
        paths.log("{model}/distances"),
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
