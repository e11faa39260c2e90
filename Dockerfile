# Parley as an image: what serving needs, and an unprivileged user.
#
#   docker build -t parley .
#   docker run --rm -p 127.0.0.1:8000:8000 -e 'PARLEY_SERVER__API_KEYS=[change-me-change-me]' parley
#
# With a GPU, and a checkpoint that stays when the container goes:
#
#   docker run --rm -v parley-models:/parley/models parley pull moshiko
#   docker run --rm --gpus all -p 127.0.0.1:8000:8000 -e 'PARLEY_SERVER__API_KEYS=[change-me-change-me]' \
#     -v parley-models:/parley/models -v parley-runs:/parley/runs \
#     parley serve --config configs/moshi.yaml --set server.host=0.0.0.0
#
# Inside the container the server listens on all addresses, so it refuses to start without an API key.

# By digest, so that the same Dockerfile is the same image. To move on: docker buildx imagetools inspect
# python:3.12-slim-bookworm
ARG BASE=python:3.12-slim-bookworm@sha256:782412e85d0f0984994c290652577d4018aff08145c85b262bb63dc0c7522254

FROM ${BASE} AS build
WORKDIR /parley
# First the dependencies alone: they change rarely, and are most of the image.
COPY constraints-serve.txt ./
RUN python -m venv .venv \
    && .venv/bin/python -m pip install --no-cache-dir --quiet --require-hashes --no-deps -r constraints-serve.txt
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY kernels kernels
COPY model model
COPY server server
RUN .venv/bin/python -m pip install --no-cache-dir --quiet --no-deps --no-build-isolation --no-index --editable .

FROM ${BASE}
# Triton compiles a launcher in C for every kernel that it starts, once.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --create-home --uid 10001 parley
WORKDIR /parley
COPY --from=build /parley /parley
# What is written: checkpoints (`parley pull`), measurements (`parley capacity`) and compiled kernels.
RUN mkdir models runs && chown parley: models runs
VOLUME ["/parley/models", "/parley/runs"]
ENV PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 PATH=/parley/.venv/bin:$PATH TRITON_CACHE_DIR=/parley/runs/triton

USER 10001
EXPOSE 8000/tcp 8000/udp
# Loading a large checkpoint takes minutes, and a container that is loading is not ill. Whether it is
# ready to serve is a question for /readyz and the load balancer.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]

# Exec form: the server itself receives the signal to stop.
ENTRYPOINT ["python", "-m", "server.cli"]
CMD ["serve", "--config", "configs/starter.yaml", "--set", "server.host=0.0.0.0"]
