# The base model: trained here, or taken from where it is. Whatever its source, checkpoints/full is a plain
# Hugging Face checkpoint with a manifest.json, which the later stages depend on.


rule pretrain:
    input:
        inputs.training_text,
    output:
        weights=paths.pretrained("model.safetensors"),
        config=paths.pretrained("config.json"),
        training=paths.pretrained("training.csv"),
    log:
        paths.log("{model}/pretrain"),
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        **needs(workloads.pretraining),
    params:
        options=lambda wildcards: options.pretrain(study, wildcards.model),
        code=code("pretrain"),
    message:
        "Training the base model {wildcards.model}"
    shell:
        'python "$SCRIPTS/pretrain.py" {params.options} --threads {threads} '
        '--text {input:q} --out "$(dirname {output.config:q})" --log {log:q}'


rule download:
    output:
        paths.download(),
    log:
        paths.log("{model}/download"),
    wildcard_constraints:
        model=names(study.models_from("hub")),
    # Where Snakemake itself runs: the nodes of a cluster often have no network.
    localrule: True
    conda:
        "../envs/models.yaml"
    params:
        options=lambda wildcards: options.download(study, wildcards.model),
    message:
        "Fetching {wildcards.model} into the Hugging Face cache"
    # What is asked is not a parameter: a changed length fetches nothing again.
    shell:
        'python "$SCRIPTS/download.py" {params.options} --model {wildcards.model:q} --asked "$ASKED" '
        "--out {output:q} --log {log:q}"


rule adopt:
    input:
        pretrained=inputs.pretrained,
        download=inputs.download,
    output:
        paths.full(),
    log:
        paths.log("{model}/adopt"),
    wildcard_constraints:
        model=names(study.native_models),
    conda:
        "../envs/models.yaml"
    resources:
        **LIGHT,
    params:
        source=source_option,
        options=lambda wildcards: options.adopt(study, wildcards.model),
        fingerprint=lambda wildcards: study.model(wildcards.model).fingerprint,
        code=code("adopt"),
    message:
        "Linking the base model {wildcards.model}"
    shell:
        'python "$SCRIPTS/adopt.py" {params.source} {params.options} --verify --model {wildcards.model:q} '
        '--out "$(dirname {output:q})" --log {log:q}'


rule convert_gguf:
    output:
        paths.full(),
    log:
        paths.log("{model}/convert_gguf"),
    wildcard_constraints:
        model=names(study.models_from("gguf")),
    conda:
        "../envs/models.yaml"
    resources:
        **needs(workloads.dequantising),
    params:
        options=lambda wildcards: options.convert_gguf(study, wildcards.model),
        fingerprint=lambda wildcards: study.model(wildcards.model).fingerprint,
        code=code("convert_gguf"),
    message:
        "Turning the GGUF file of {wildcards.model} into a checkpoint"
    shell:
        'python "$SCRIPTS/convert_gguf.py" {params.options} --model {wildcards.model:q} '
        '--out "$(dirname {output:q})" --log {log:q}'


rule convert_qwen:
    input:
        pretrained=inputs.pretrained,
        download=inputs.download,
    output:
        paths.full(),
    log:
        paths.log("{model}/convert_qwen"),
    wildcard_constraints:
        model=names(study.models_to_convert("qwen")),
    conda:
        "../envs/models.yaml"
    resources:
        **LIGHT,
    params:
        source=source_option,
        options=lambda wildcards: options.convert_qwen(study, wildcards.model),
        fingerprint=lambda wildcards: study.model(wildcards.model).fingerprint,
        code=code("convert_qwen"),
    message:
        "Converting {wildcards.model} to the layout of Qwen2"
    shell:
        'python "$SCRIPTS/convert_qwen.py" {params.source} {params.options} --model {wildcards.model:q} '
        '--out "$(dirname {output:q})" --log {log:q}'
