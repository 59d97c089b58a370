# The figures, each a job of its own: those of a model, and those that show all models together.


rule figure_distances:
    input:
        f"{OUT}/{{model}}/distances.csv",
    output:
        svg=report(
            f"{OUT}/figures/{{model}}/{{figure}}.svg",
            caption="../report/figure.rst",
            category="{model}",
            labels={"result": "{figure}"},
        ),
        pdf=f"{OUT}/figures/{{model}}/{{figure}}.pdf",
        png=f"{OUT}/figures/{{model}}/{{figure}}.png",
    log:
        f"{OUT}/logs/figures/{{model}}/{{figure}}.log",
    wildcard_constraints:
        figure=names(study.distance_figures),
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        code=code("figure"),
    message:
        "Drawing {wildcards.figure} of {wildcards.model}"
    shell:
        'python "$SCRIPTS/figure.py" {wildcards.figure:q} --distances {input:q} '
        '--formats svg pdf png --out "$(dirname {output.png:q})"/{wildcards.figure:q} --log {log:q}'


rule figure_speed:
    input:
        f"{OUT}/{{model}}/speed.csv",
    output:
        svg=report(
            f"{OUT}/figures/{{model}}/{{figure}}.svg",
            caption="../report/figure.rst",
            category="{model}",
            labels={"result": "{figure}"},
        ),
        pdf=f"{OUT}/figures/{{model}}/{{figure}}.pdf",
        png=f"{OUT}/figures/{{model}}/{{figure}}.png",
    log:
        f"{OUT}/logs/figures/{{model}}/{{figure}}.log",
    wildcard_constraints:
        figure="speed",
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        code=code("figure"),
    message:
        "Drawing {wildcards.figure} of {wildcards.model}"
    shell:
        'python "$SCRIPTS/figure.py" {wildcards.figure:q} --speed {input:q} '
        '--formats svg pdf png --out "$(dirname {output.png:q})"/{wildcards.figure:q} --log {log:q}'


rule figure_model:
    input:
        table=f"{OUT}/table.csv",
        levels=f"{OUT}/levels.csv",
    output:
        svg=report(
            f"{OUT}/figures/{{model}}/{{figure}}.svg",
            caption="../report/figure.rst",
            category="{model}",
            labels={"result": "{figure}"},
        ),
        pdf=f"{OUT}/figures/{{model}}/{{figure}}.pdf",
        png=f"{OUT}/figures/{{model}}/{{figure}}.png",
    log:
        f"{OUT}/logs/figures/{{model}}/{{figure}}.log",
    wildcard_constraints:
        figure=names(study.model_figures),
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        options=lambda wildcards: study.figure_options(wildcards.figure),
        code=code("figure"),
    message:
        "Drawing {wildcards.figure} of {wildcards.model}"
    shell:
        'python "$SCRIPTS/figure.py" {wildcards.figure:q} {params.options} --models {wildcards.model:q} '
        "--table {input.table:q} --levels {input.levels:q} "
        '--formats svg pdf png --out "$(dirname {output.png:q})"/{wildcards.figure:q} --log {log:q}'


rule figure_study:
    input:
        table=f"{OUT}/table.csv",
        levels=f"{OUT}/levels.csv",
    output:
        svg=report(
            f"{OUT}/figures/{{figure}}.svg",
            caption="../report/figure.rst",
            category="Results",
            labels={"result": "{figure}"},
        ),
        pdf=f"{OUT}/figures/{{figure}}.pdf",
        png=f"{OUT}/figures/{{figure}}.png",
    log:
        f"{OUT}/logs/figures/{{figure}}.log",
    wildcard_constraints:
        figure=names(study.study_figures),
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        code=code("figure"),
    message:
        "Drawing {wildcards.figure} of all models"
    shell:
        'python "$SCRIPTS/figure.py" {wildcards.figure:q} '
        "--table {input.table:q} --levels {input.levels:q} "
        '--formats svg pdf png --out "$(dirname {output.png:q})"/{wildcards.figure:q} --log {log:q}'


rule figures:
    input:
        expand(
            "{out}/figures/{model}/{figure}.{kind}",
            out=OUT,
            model=study.models,
            figure=study.distance_figures + study.speed_figures + study.model_figures,
            kind=KINDS,
        ),
        expand(
            "{out}/figures/{figure}.{kind}",
            out=OUT,
            figure=study.study_figures,
            kind=KINDS,
        ),
