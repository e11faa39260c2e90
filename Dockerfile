# Parley as an image: the checkout, its hashed dependencies, and an unprivileged user.
#
#   docker build -t parley .
#   docker run --rm -p 127.0.0.1:8000:8000 -e 'PARLEY_SERVER__API_KEYS=[change-me]' parley
#
# Inside the container the server listens on all addresses, so it refuses to start without an API key.

FROM python:3.12-slim-bookworm

ENV PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
WORKDIR /parley

# First the dependencies alone: they change rarely, and are most of the image.
COPY constraints.txt ./
RUN python -m venv .venv \
    && .venv/bin/python -m pip install --no-cache-dir --quiet --require-hashes --no-deps -r constraints.txt

COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY kernels kernels
COPY model model
COPY server server
RUN .venv/bin/python -m pip install --no-cache-dir --quiet --no-deps --no-build-isolation --no-index --editable . \
    && useradd --system --create-home --uid 10001 parley

USER parley
EXPOSE 8000/tcp 8000/udp
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD [".venv/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]

# Exec form: the server itself receives the signal to stop.
ENTRYPOINT [".venv/bin/python", "-m", "server.cli"]
CMD ["serve", "--config", "configs/starter.yaml", "--set", "server.host=0.0.0.0"]
