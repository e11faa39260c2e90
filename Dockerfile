# Parley as an image, for an unprivileged user. Two targets: `cuda`, which is the one that is built where none is
# named and serves any model, and `cpu`, for the starter and scripts.
#
#   docker build -t parley .
#   docker run --rm --gpus all -p 127.0.0.1:8000:8000 -e 'PARLEY_SERVER__API_KEYS=[change-me-change-me]' \
#     -v parley-models:/parley/models -v parley-runs:/parley/runs \
#     parley serve --config configs/moshi.yaml --set server.host=0.0.0.0
#
#   docker build --target cpu -t parley:cpu .
#   docker run --rm -p 127.0.0.1:8000:8000 -e 'PARLEY_SERVER__API_KEYS=[change-me-change-me]' parley:cpu
#
# Its own files are never written: add `--read-only --tmpfs /tmp` to either. docs/deploy.md has the rest.
#
# Inside the container the server listens on all addresses, so it refuses to start without an API key.

# By digest, so that the same Dockerfile is the same image. To move on: docker buildx imagetools inspect
# python:3.12-slim-bookworm
ARG BASE=python:3.12-slim-bookworm@sha256:782412e85d0f0984994c290652577d4018aff08145c85b262bb63dc0c7522254

# Parley itself.
FROM scratch AS code
WORKDIR /parley
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY kernels kernels
COPY model model
COPY server server

# What both need to be built.
FROM ${BASE} AS sources
WORKDIR /parley
RUN python -m venv .venv
# First the dependencies alone: they change rarely, and are most of the image.
COPY constraints-serve.txt ./

# PyTorch's wheels for CUDA run on compute capability 7.5 to 12.0; the driver has to be of 580 or later for CUDA 13.
FROM sources AS build-cuda
RUN .venv/bin/python -m pip install --no-cache-dir --quiet --require-hashes --no-deps -r constraints-serve.txt
COPY --from=code /parley ./
RUN .venv/bin/python -m pip install --no-cache-dir --quiet --no-deps --no-build-isolation --no-index --editable .

# On x86-64 the usual wheel of PyTorch needs CUDA's libraries even where there is no GPU: 4 GB. PyTorch publishes wheels
# without them in an index of its own, whose address is given here; they are not among our hashes.
FROM sources AS build-cpu
ARG TORCH_CPU_INDEX=""
# Blocks of constraints-serve.txt: a line that begins in the first column, and its hashes below it.
RUN if [ -n "${TORCH_CPU_INDEX}" ]; then left_out='^(bitsandbytes|cuda-|nvidia-|torch|torchaudio|triton)'; else left_out='^(bitsandbytes|triton)'; fi \
    && awk -v left_out="${left_out}" '/^[^ ]/ { keep = $0 !~ left_out } keep' constraints-serve.txt > constraints-cpu.txt \
    && .venv/bin/python -m pip install --no-cache-dir --quiet --require-hashes --no-deps -r constraints-cpu.txt \
    && if [ -n "${TORCH_CPU_INDEX}" ]; then \
         PIP_INDEX_URL="${TORCH_CPU_INDEX}" .venv/bin/python -m pip install --no-cache-dir --quiet --no-deps \
           "torch==$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' constraints-serve.txt)" \
           "torchaudio==$(sed -n 's/^torchaudio==\([0-9.]*\).*/\1/p' constraints-serve.txt)"; \
       fi
COPY --from=code /parley ./
RUN .venv/bin/python -m pip install --no-cache-dir --quiet --no-deps --no-build-isolation --no-index --editable .

# What both are at run time.
FROM ${BASE} AS runtime
RUN useradd --system --create-home --uid 10001 parley
WORKDIR /parley
# What is written: checkpoints (`parley pull`), and in runs all else, caches too.
RUN install --directory --owner=parley models runs
VOLUME ["/parley/models", "/parley/runs"]
ENV PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 PATH=/parley/.venv/bin:$PATH \
    XDG_CACHE_HOME=/parley/runs/cache HF_HOME=/parley/runs/huggingface
EXPOSE 8000/tcp 8000/udp
# Loading a large checkpoint takes minutes, and a container that is loading is not ill. Whether it is
# ready to serve is a question for /readyz and the load balancer.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
# A drain may take `server.drain_s`, and whoever stops the container has to wait longer than that.
STOPSIGNAL SIGTERM
# Exec form: the server itself receives the signal to stop.
ENTRYPOINT ["python", "-m", "server.cli"]
CMD ["serve", "--config", "configs/starter.yaml", "--set", "server.host=0.0.0.0"]

FROM runtime AS cpu
COPY --from=build-cpu /parley /parley
USER 10001

FROM runtime AS cuda
# Triton compiles a launcher in C for every kernel that it starts, once: a compiler and the C library's headers.
# Python's headers are in the base image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build-cuda /parley /parley
# What the container runtime of NVIDIA puts into a container: its driver's libraries, and nvidia-smi.
ENV TRITON_CACHE_DIR=/parley/runs/triton CUDA_CACHE_PATH=/parley/runs/cuda \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
