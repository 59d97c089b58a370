# The base model: trained here, or taken from where it is. Whatever its source, checkpoints/full is a plain
# Hugging Face checkpoint with a manifest.json, which the later stages depend on.


rule pretrain:
    input:
        lambda wildcards: f"{OUT}/texts/{study.pretraining(wildcards.model)['text']}/train.jsonl",
    output:
        weights=f"{OUT}/{{model}}/pretrained/model.safetensors",
        config=f"{OUT}/{{model}}/pretrained/config.json",
        training=f"{OUT}/{{model}}/pretrained/training.csv",
    log:
        f"{OUT}/logs/{{model}}/pretrain.log",
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        **needs(workloads.pretraining),
    params:
        options=lambda wildcards: study.pretraining_options(wildcards.model),
        code=code("pretrain"),
    message:
        "Training the base model {wildcards.model}"
    shell:
        'python "$SCRIPTS/pretrain.py" {params.options} --threads {threads} '
        '--text {input:q} --out "$(dirname {output.config:q})" --log {log:q}'


rule download:
    output:
        f"{OUT}/{{model}}/download.json",
    log:
        f"{OUT}/logs/{{model}}/download.log",
    wildcard_constraints:
        model=names(study.models_from("hub")),
    # Where Snakemake itself runs: the nodes of a cluster often have no network.
    localrule: True
    conda:
        "../envs/models.yaml"
    params:
        options=lambda wildcards: study.download_options(wildcards.model),
    message:
        "Fetching {wildcards.model} into the Hugging Face cache"
    # What is asked is not a parameter: a changed length fetches nothing again.
    shell:
        'python "$SCRIPTS/download.py" {params.options} --model {wildcards.model:q} --asked "$ASKED" '
        "--out {output:q} --log {log:q}"


rule adopt:
    input:
        source_files,
    output:
        f"{OUT}/{{model}}/checkpoints/full/manifest.json",
    log:
        f"{OUT}/logs/{{model}}/adopt.log",
    wildcard_constraints:
        model=names(study.converted(None)),
    conda:
        "../envs/models.yaml"
    resources:
        **LIGHT,
    params:
        options=lambda wildcards: study.source_options(wildcards.model),
        fingerprint=lambda wildcards: study.fingerprint(wildcards.model),
        code=code("adopt"),
    message:
        "Linking the base model {wildcards.model}"
    shell:
        'python "$SCRIPTS/adopt.py" {params.options} --verify --model {wildcards.model:q} '
        '--out "$(dirname {output:q})" --log {log:q}'


rule convert_qwen:
    input:
        source_files,
    output:
        f"{OUT}/{{model}}/checkpoints/full/manifest.json",
    log:
        f"{OUT}/logs/{{model}}/convert_qwen.log",
    wildcard_constraints:
        model=names(study.converted("qwen")),
    conda:
        "../envs/models.yaml"
    resources:
        **LIGHT,
    params:
        options=lambda wildcards: study.source_options(wildcards.model),
        fingerprint=lambda wildcards: study.fingerprint(wildcards.model),
        code=code("convert_qwen"),
    message:
        "Converting {wildcards.model} to the layout of Qwen2"
    shell:
        'python "$SCRIPTS/convert_qwen.py" {params.options} --model {wildcards.model:q} '
        '--out "$(dirname {output:q})" --log {log:q}'
