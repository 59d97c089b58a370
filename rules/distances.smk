# Angular distances of all pairs of layers, from one forward pass (paper, section 3.2).


rule distances:
    input:
        checkpoint=f"{OUT}/{{model}}/checkpoints/full/manifest.json",
        tokens=lambda wildcards: study.tokens(wildcards.model, config["distances"]),
    output:
        distances=f"{OUT}/{{model}}/distances.csv",
        summary=f"{OUT}/{{model}}/distances.json",
    log:
        f"{OUT}/logs/{{model}}/distances.log",
    conda:
        "../envs/models.yaml"
    threads: threads_for(workloads.distances)
    resources:
        **needs(workloads.distances),
        tuning=lambda wildcards: study.distance_tuning(),
    params:
        options=lambda wildcards: study.distance_options(wildcards.model),
        code=code("distances"),
    message:
        "Measuring the distances of {wildcards.model}"
    shell:
        'python "$SCRIPTS/distances.py" {params.options} {resources.tuning} --threads {threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --tokens {input.tokens:q} --out {output.distances:q} --log {log:q}'
