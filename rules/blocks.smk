# Which block each strategy removes for each n. A checkpoint: what follows names the block, not n or the
# strategy, so equal blocks are computed once and an unchanged choice reruns nothing.


checkpoint blocks:
    input:
        f"{OUT}/{{model}}/distances.csv",
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
        "python {SCRIPTS}/blocks.py {params.options} --distances {input} --out {output} --log {log}"
