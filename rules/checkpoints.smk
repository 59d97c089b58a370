# The cut model as a plain Hugging Face checkpoint: bytes copied, the configuration edited, then loaded once.


rule cut:
    input:
        f"{OUT}/{{model}}/checkpoints/full/manifest.json",
    output:
        f"{OUT}/{{model}}/checkpoints/{{block}}/manifest.json",
    wildcard_constraints:
        block=r"drop_\d+-\d+",
    params:
        code=code("cut"),
    log:
        f"{OUT}/logs/{{model}}/checkpoints/{{block}}.log",
    conda:
        "../envs/models.yaml"
    message:
        "Cutting {wildcards.block} from {wildcards.model}"
    shell:
        "python {SCRIPTS}/cut.py --checkpoint $(dirname {input}) --block {wildcards.block} "
        "--out $(dirname {output}) --verify --log {log}"
