# Checkpoints to deploy, where asked for (`export` in the configuration): the adapter merged into the
# unquantised cut, and a model card. The weights stay when only the card changes.


rule merge:
    input:
        checkpoint=f"{OUT}/{{model}}/checkpoints/{{block}}/manifest.json",
        healing=healing_files,
    output:
        f"{OUT}/export/{{model}}-{{block}}-{{treatment}}/manifest.json",
    log:
        f"{OUT}/logs/export/{{model}}-{{block}}-{{treatment}}.log",
    wildcard_constraints:
        treatment=names([*study.recipes, "pruned"]),
    conda:
        "../envs/models.yaml"
    resources:
        **needs(workloads.merging),
    params:
        options=lambda wildcards: study.trust_options(wildcards.model),
        adapter=lambda wildcards: options(
            {
                "adapter": [
                    f"{Path(path).parent}/adapter" for path in healing_files(wildcards)
                ]
            }
        ),
        code=code("export"),
    message:
        "Exporting {wildcards.model} without {wildcards.block}, {wildcards.treatment}"
    shell:
        'python "$SCRIPTS/export.py" {params.options} {params.adapter} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --out "$(dirname {output:q})" --log {log:q}'


rule card:
    input:
        exported=rules.merge.output,
        full=f"{OUT}/{{model}}/checkpoints/full/manifest.json",
        healing=healing_files,
        results=exported_scores,
        unpruned=expand(
            "{out}/{{model}}/pruned/{suite}/index.json", out=OUT, suite=study.suites
        ),
    output:
        f"{OUT}/export/{{model}}-{{block}}-{{treatment}}/README.md",
    log:
        f"{OUT}/logs/export/{{model}}-{{block}}-{{treatment}}-card.log",
    wildcard_constraints:
        treatment=names([*study.recipes, "pruned"]),
    localrule: True
    conda:
        "../envs/models.yaml"
    params:
        options=lambda wildcards: study.card_options(
            wildcards.model, wildcards.block, wildcards.treatment
        ),
        code=code("card"),
    message:
        "Writing the model card of {wildcards.model} without {wildcards.block}, {wildcards.treatment}"
    shell:
        'python "$SCRIPTS/card.py" {params.options} '
        '--checkpoint "$(dirname {output:q})" --full "$(dirname {input.full:q})" --out {output:q} --log {log:q}'


rule export:
    input:
        lambda wildcards: [f"{folder}/README.md" for folder in exports(wildcards)],
    localrule: True


rule upload:
    input:
        weights=rules.merge.output,
        card=rules.card.output,
    output:
        f"{OUT}/export/{{model}}-{{block}}-{{treatment}}.pushed.json",
    log:
        f"{OUT}/logs/export/{{model}}-{{block}}-{{treatment}}-push.log",
    wildcard_constraints:
        treatment=names([*study.recipes, "pruned"]),
    # Where Snakemake itself runs: the nodes of a cluster often have no network.
    localrule: True
    conda:
        "../envs/models.yaml"
    params:
        id=lambda w: f"{config['hub']}/{w.model}-{w.block}-{w.treatment}",
    message:
        "Uploading {params.id}"
    shell:
        'python "$SCRIPTS/push.py" --folder "$(dirname {input.card:q})" --id {params.id:q} --out {output:q} --log {log:q}'


rule push:
    input:
        lambda wildcards: [f"{folder}.pushed.json" for folder in pushed(wildcards)],
    localrule: True
