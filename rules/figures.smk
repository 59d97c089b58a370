# The figures, each a job of its own: those of a model, and those that show all models together. What each
# is drawn from, its options and its caption are in scripts/deeper_layers/reporting/figures/registry.py.
from deeper_layers.reporting.figures.registry import FIGURES


def figure_code(wildcards):
    return code("figure", f"reporting/figures/{FIGURES[wildcards.figure].module}")


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
        models=lambda wildcards: options({"models": [wildcards.model]}),
        options=lambda wildcards: study.figure_options(wildcards.figure),
        code=figure_code,
        # Derived from the input, as Snakemake sees it, so that neither a path nor a caption reruns anything.
        files=lambda wildcards, input: options(dict(input.items())),
        caption=lambda wildcards, input: FIGURES[wildcards.figure].caption,
    message:
        "Drawing {wildcards.figure} of {wildcards.model}"
    shell:
        'python "$SCRIPTS/figure.py" {wildcards.figure:q} {params.models} {params.options} {params.files} '
        '--formats svg pdf png --out "$(dirname {output.png:q})"/{wildcards.figure:q} --log {log:q}'


use rule figure_model as figure_distances with:
    input:
        distances=f"{OUT}/{{model}}/distances.csv",
    wildcard_constraints:
        figure=names(study.distance_figures),
    params:
        models="",


use rule figure_model as figure_speed with:
    input:
        speed=f"{OUT}/{{model}}/speed.csv",
    wildcard_constraints:
        figure=names(study.speed_figures),
    params:
        models="",


use rule figure_model as figure_study with:
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
    params:
        models="",
    message:
        "Drawing {wildcards.figure} of all models"


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
