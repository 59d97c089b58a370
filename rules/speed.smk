# Memory and speed of every cut, measured in one process: `snakemake speed`, or with the study (study.speed).


rule measure_speed:
    input:
        checkpoint=f"{OUT}/{{model}}/checkpoints/full/manifest.json",
        # Not a file but an order: which blocks, not how they were found, decides a rerun.
        order=lambda wildcards: pruned_blocks(wildcards) and [],
    output:
        speed=f"{OUT}/{{model}}/speed.csv",
        summary=f"{OUT}/{{model}}/speed.json",
    log:
        f"{OUT}/logs/{{model}}/speed.log",
    conda:
        "../envs/models.yaml"
    # All cores of this machine, so that no other job runs beside it.
    threads: lambda w: workflow.cores or workloads.speed(w.model).threads
    resources:
        **needs(workloads.speed),
    params:
        blocks=lambda wildcards: " ".join(map(str, pruned_blocks(wildcards))),
        options=lambda wildcards: study.speed_options(wildcards.model),
        threads=threads_for(workloads.speed),
        code=code("speed"),
    message:
        "Measuring memory and speed of all cuts of {wildcards.model}"
    shell:
        'python "$SCRIPTS/speed.py" {params.options} --threads {params.threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --blocks {params.blocks} --out {output.speed:q} --log {log:q}'


rule speed:
    input:
        expand("{out}/{model}/speed.csv", out=OUT, model=study.models),
        expand(
            "{out}/figures/{model}/speed.{kind}",
            out=OUT,
            model=study.models,
            kind=KINDS,
        ),
    localrule: True
