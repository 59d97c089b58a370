# Which block each strategy removes for each n. A checkpoint: what follows names the block, not n or the
# strategy, so equal blocks are computed once and an unchanged choice reruns nothing.


checkpoint blocks:
    input:
        checkpoint=f"{OUT}/{{model}}/checkpoints/full/manifest.json",
        distances=lambda wildcards: study.distance_files(wildcards.model),
    output:
        f"{OUT}/{{model}}/blocks.csv",
    log:
        f"{OUT}/logs/{{model}}/blocks.log",
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        options=lambda wildcards: study.block_options(wildcards.model),
        code=code("blocks"),
    message:
        "Choosing the blocks of {wildcards.model}"
    shell:
        'python "$SCRIPTS/blocks.py" {params.options} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --out {output:q} --log {log:q}'
