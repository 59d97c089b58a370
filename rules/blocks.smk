# Which block each strategy removes for each n. A checkpoint: what follows names the block, not n or the
# strategy, so equal blocks are computed once and an unchanged choice reruns nothing.


checkpoint blocks:
    input:
        f"{OUT}/{{model}}/distances.csv",
    output:
        f"{OUT}/{{model}}/blocks.csv",
    params:
        options=lambda wildcards: study.block_options(wildcards.model),
        code=code("blocks"),
    log:
        f"{OUT}/logs/{{model}}/blocks.log",
    conda:
        "../envs/workflow.yaml"
    localrule: True
    message:
        "Choosing the blocks of {wildcards.model}"
    shell:
        "python {SCRIPTS}/blocks.py {params.options} --distances {input} --out {output} --log {log}"
