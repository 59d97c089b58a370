# Checkpoints to deploy, where asked for (`export` in the configuration): what a healing wrote, merged into
# the unquantised cut, and a model card. The weights stay when only the card changes.


EXPORT_LOG = paths.log("export/{model}-{block}-{treatment}")


rule merge:
    input:
        checkpoint=paths.checkpoint(),
        # As in evaluate_healed: the summary tells whether it is another one.
        adapter=ancient(inputs.exported_adapter),
        healing=inputs.exported_healing,
    output:
        f"{paths.export()}/manifest.json",
    log:
        EXPORT_LOG,
    wildcard_constraints:
        treatment=names([*study.recipes, PRUNED]),
    conda:
        "../envs/models.yaml"
    resources:
        **needs(workloads.merging),
    params:
        options=lambda wildcards: options.trust(study, wildcards.model),
        adapter=adapter_option,
        code=code("merge"),
    message:
        "Exporting {wildcards.model} without {wildcards.block}, {wildcards.treatment}"
    shell:
        'python "$SCRIPTS/merge.py" {params.options} {params.adapter} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --out "$(dirname {output:q})" --log {log:q}'


rule card:
    input:
        exported=rules.merge.output,
        full=paths.full(),
        healing=inputs.exported_healing,
        results=inputs.exported_results,
        unpruned=expand(paths.pruned_index(), suite=study.suites, allow_missing=True),
    output:
        f"{paths.export()}/README.md",
    log:
        EXPORT_LOG.replace(".log", "-card.log"),
    wildcard_constraints:
        treatment=names([*study.recipes, PRUNED]),
    localrule: True
    conda:
        "../envs/models.yaml"
    params:
        files=card_options,
        metrics=options.card(study),
        code=code("card"),
    message:
        "Writing the model card of {wildcards.model} without {wildcards.block}, {wildcards.treatment}"
    shell:
        'python "$SCRIPTS/card.py" {params.files} {params.metrics} '
        '--checkpoint "$(dirname {output:q})" --full "$(dirname {input.full:q})" --out {output:q} --log {log:q}'


# Of a model that came as a GGUF file, an un-healed cut is also that file without the layers, in its own 4 or 8 bits.
rule cut_gguf:
    input:
        verified=rules.merge.output,
    output:
        f"{paths.export()}.gguf",
    log:
        EXPORT_LOG.replace(".log", "-gguf.log"),
    wildcard_constraints:
        model=names(study.models_from("gguf")),
        treatment=PRUNED,
    conda:
        "../envs/models.yaml"
    resources:
        **LIGHT,
    params:
        options=lambda wildcards: options.cut_gguf(
            study, wildcards.model, wildcards.block
        ),
        fingerprint=lambda wildcards: study.model(wildcards.model).fingerprint,
        code=code("cut_gguf"),
    message:
        "Cutting the GGUF file of {wildcards.model}: {wildcards.block}"
    shell:
        'python "$SCRIPTS/cut_gguf.py" {params.options} --out {output:q} --log {log:q}'


# For llama.cpp: weights in 16 bits by its own converter, in fewer by its own quantiser.
rule to_gguf:
    input:
        rules.merge.output,
    output:
        paths.exported_as(),
    log:
        EXPORT_LOG.replace(".log", ".{type}.log"),
    wildcard_constraints:
        treatment=names([*study.recipes, PRUNED]),
        type=names(GGUF),
    conda:
        "../envs/serving.yaml"
    resources:
        **needs(workloads.merging),
    params:
        code=code("to_gguf"),
    message:
        "Writing {wildcards.model} without {wildcards.block}, {wildcards.treatment}, as GGUF of {wildcards.type}"
    shell:
        'python "$SCRIPTS/to_gguf.py" --checkpoint "$(dirname {input:q})" --type {wildcards.type:q} '
        "--out {output:q} --log {log:q}"


rule to_nf4:
    input:
        rules.merge.output,
    output:
        directory(paths.exported_as(NF4)),
    log:
        EXPORT_LOG.replace(".log", "-nf4.log"),
    wildcard_constraints:
        treatment=names([*study.recipes, PRUNED]),
    conda:
        "../envs/models.yaml"
    resources:
        **needs(workloads.merging),
    params:
        options=lambda wildcards: options.trust(study, wildcards.model),
        code=code("to_nf4"),
    message:
        "Writing {wildcards.model} without {wildcards.block}, {wildcards.treatment}, in 4 bits"
    shell:
        'python "$SCRIPTS/to_nf4.py" {params.options} --gpus {resources.gpu} --checkpoint "$(dirname {input:q})" '
        "--out {output:q} --log {log:q}"


rule export:
    input:
        lambda wildcards: inputs.exported_files(),
    localrule: True


rule upload:
    input:
        weights=rules.merge.output,
        card=rules.card.output,
    output:
        f"{paths.export()}.pushed.json",
    log:
        EXPORT_LOG.replace(".log", "-push.log"),
    wildcard_constraints:
        treatment=names([*study.recipes, PRUNED]),
    # Where Snakemake itself runs: the nodes of a cluster often have no network.
    localrule: True
    conda:
        "../envs/models.yaml"
    params:
        id=lambda w: f"{config['hub']}/{w.model}-{w.block}-{w.treatment}",
    message:
        "Uploading {params.id}"
    shell:
        'python "$SCRIPTS/upload.py" --folder "$(dirname {input.card:q})" --id {params.id:q} --out {output:q} --log {log:q}'


rule push:
    input:
        lambda wildcards: [f"{folder}.pushed.json" for folder in inputs.pushed()],
    localrule: True
