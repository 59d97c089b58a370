# Texts: the invented world with its questions, samples of data sets, and every text tokenised once per model.


rule world:
    output:
        train=f"{OUT}/texts/{{text}}/train.jsonl",
        calibration=f"{OUT}/texts/{{text}}/calibration.jsonl",
        validation=f"{OUT}/texts/{{text}}/validation.jsonl",
        tasks=expand(
            "{out}/texts/{{text}}/tasks/{task}.{kind}",
            out=OUT,
            task=["knowledge", "reasoning", "yesno"],
            kind=["yaml", "jsonl"],
        ),
    log:
        f"{OUT}/logs/texts/{{text}}.log",
    wildcard_constraints:
        text=names(study.texts_from(world=True)),
    conda:
        "../envs/models.yaml"
    resources:
        **LIGHT,
    params:
        options=lambda wildcards: study.world_options(wildcards.text),
        code=code("world"),
    message:
        "Writing the world {wildcards.text}: documents and questions"
    shell:
        'python "$SCRIPTS/world.py" {params.options} --out "$(dirname {output.train:q})" --log {log:q}'


rule sample:
    output:
        text=f"{OUT}/texts/{{text}}/{{split}}.jsonl",
        summary=f"{OUT}/texts/{{text}}/{{split}}.json",
    log:
        f"{OUT}/logs/texts/{{text}}-{{split}}.log",
    wildcard_constraints:
        text=names(study.texts_from(world=False)),
    # Where Snakemake itself runs: the nodes of a cluster often have no network.
    localrule: True
    conda:
        "../envs/models.yaml"
    params:
        options=lambda wildcards: study.sample_options(wildcards.text, wildcards.split),
        fingerprint=lambda wildcards: study.text_fingerprint(wildcards.text),
        code=code("sample"),
    message:
        "Sampling documents of {wildcards.text}, {wildcards.split}"
    shell:
        'python "$SCRIPTS/sample.py" {params.options} --out {output.text:q} --log {log:q}'


rule tokenise:
    input:
        text=f"{OUT}/texts/{{text}}/{{split}}.jsonl",
        checkpoint=f"{OUT}/{{model}}/checkpoints/full/manifest.json",
    output:
        # The summary is what later stages depend on; the tokens lie beside it.
        summary=f"{OUT}/{{model}}/tokens/{{text}}-{{split}}.json",
        tokens=f"{OUT}/{{model}}/tokens/{{text}}-{{split}}.safetensors",
    log:
        f"{OUT}/logs/{{model}}/tokens/{{text}}-{{split}}.log",
    conda:
        "../envs/models.yaml"
    resources:
        **LIGHT,
    params:
        options=lambda wildcards: study.trust_options(wildcards.model),
        code=code("tokenise"),
    message:
        "Tokenising {wildcards.text}, {wildcards.split}, for {wildcards.model}"
    shell:
        'python "$SCRIPTS/tokenise.py" {params.options} --checkpoint "$(dirname {input.checkpoint:q})" '
        "--text {input.text:q} --out {output.summary:q} --log {log:q}"
