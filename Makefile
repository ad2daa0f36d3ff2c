# Two commands need nothing before them: `./train_cuda.sh` and `make test`.
SHELL := bash
# What a user's shell exports must not change what is done here (see scripts/environment.sh).
.SHELLFLAGS := -pc
unexport BASH_ENV ENV CDPATH GREP_OPTIONS POSIXLY_CORRECT PYTHONHOME PYTHONSTARTUP PYTHONINSPECT PYTHONOPTIMIZE \
	PYTHONWARNINGS PYTHONDEVMODE PYTHONHASHSEED PYTHONIOENCODING PYTHONDONTWRITEBYTECODE
export PYTHONSAFEPATH := 1
export PYTHONPATH := $(CURDIR)$(if $(ATHANOR_PYTHON)$(ATHANOR_DOMAINS),$(if $(PYTHONPATH),:$(PYTHONPATH)))
PYTHON = $$(scripts/setup_env.sh music sql market brain clouds --dev)
# the tests of every domain in the tree
TEST_PYTHON = $$(scripts/setup_env.sh music sql market brain clouds wandb notebooks --dev)
BENCH_PYTHON = $$(scripts/setup_$(if $(REFERENCES),references.sh,env.sh music sql market --dev))
SCRIPTS := train_cuda.sh $(wildcard scripts/*.sh clouds/*.sh hosts/*/*.sh) .ci/run

.PHONY: help setup test test-docker test-ray bench bench-gpu soak soak-small image check-clouds lint lock clean

help:
	@echo "make setup   the environment in .venv, tests and lint included"
	@echo "make test    all tests (two processes; less than twenty minutes on two cores)"
	@echo "make test-docker   the container tests (needs a Docker engine, or root on Debian to start one)"
	@echo "make test-ray      the tests on a Ray cluster of two nodes on this host (a minute or two, mostly waiting)"
	@echo "make soak    every fault of docs/reliability.md, counted (half an hour); make soak-small: few trials each (minutes)"
	@echo "make bench   every bar of docs/performance.md, measured, and its table written (an hour on a quiet machine)"
	@echo "             REFERENCES=1 also installs TRL, MidiTok and others as references; ARGS='--small', or subjects"
	@echo "make bench-gpu     the same on a GPU, in under ten minutes"
	@echo "make image   the container image that fits this host"
	@echo "make check-clouds  clouds/*.yaml and *.yml, with the schemas of SkyPilot and dstack (each in an environment of a minute)"
	@echo "make lint    ruff, import-linter (the floors of the house), shellcheck"
	@echo "make lock    pin the dependencies of pyproject.toml in requirements/ (ARGS=--upgrade: in their newest versions)"
	@echo "make clean   remove caches of tools; never data, checkpoints or exports"

setup:
	@scripts/setup_env.sh --dev

test:
	@python=$(TEST_PYTHON) && "$$python" -m pytest -n 2 --dist loadfile $(ARGS)

test-docker:
	@python=$(PYTHON) && "$$python" -m pytest tests/docker -m docker -rs $(ARGS)

test-ray:
	@python=$$(scripts/setup_env.sh music sql market clouds ray --dev) && "$$python" -m pytest -m ray -rs $(ARGS)

# The table is written even if a subject failed (the exit status reports it), but not for selected subjects or small sizes.
TABLE = "$$python" -m benchmarks.table docs/performance.md $$(ls benchmarks/results*.json)

bench:
	@python=$(BENCH_PYTHON) && status=0 && { "$$python" -m benchmarks $(ARGS) || status=$$?; } && \
	$(if $(ARGS),,$(TABLE) &&) exit $$status

bench-gpu:
	@python=$(BENCH_PYTHON) && status=0 && { "$$python" -m benchmarks.gpu $(ARGS) || status=$$?; } && \
	$(if $(ARGS),,$(TABLE) &&) exit $$status

# one thread each: trials are many small processes
soak:
	@python=$(PYTHON) && OMP_NUM_THREADS=1 "$$python" -m soak $(ARGS)

soak-small:
	@python=$(PYTHON) && OMP_NUM_THREADS=1 "$$python" -m soak --small --at-once 2 $(ARGS)

image:
	./train_cuda.sh --docker --skip-manifests --skip-spectocloud --skip-midi --skip-export

check-clouds:
	@python=$(PYTHON) && for of in skypilot==0.14.1 dstack==0.22.5; do \
	"$$(dirname "$$python")/uv" run --quiet --no-project --isolated --python "$$python" --with $$of clouds/check.py $${of%%=*} || exit; done

lint:
	@python=$(PYTHON) && bin=$$(dirname "$$python") && \
	"$$bin/ruff" check . && "$$bin/lint-imports" && "$$bin/shellcheck" $(SCRIPTS)

lock:
	scripts/lock.sh $(ARGS)

clean:
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	rm -rf .pytest_cache .ruff_cache .import_linter_cache
