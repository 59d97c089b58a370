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
        tuning=lambda wildcards: options.distances_tuning(study),
    params:
        options=lambda wildcards: options.distances(study, wildcards.model),
        code=code("distances"),
    message:
        "Measuring the distances of {wildcards.model}"
    shell:
        'python "$SCRIPTS/distances.py" {params.options} {resources.tuning} --threads {threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --tokens {input.tokens:q} --out {output.distances:q} --log {log:q}'
