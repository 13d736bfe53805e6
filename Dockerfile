# A server of routed answers: docs/docker.md says how to build and run it.
#   docker build -t m3router .
#   docker build -t m3router:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
ARG PYTHON=3.11.14-slim-bookworm
# What the tag was when this was written; with another tag, give its digest too (docs/docker.md).
ARG PYTHON_DIGEST=sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

FROM python:${PYTHON}@${PYTHON_DIGEST} AS build
ARG TORCH=torch==2.13.0
# The CPU's build by default; another index brings the build for a GPU.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=serve
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
RUN python -m venv /opt/m3router
ENV PATH=/opt/m3router/bin:${PATH}
RUN python -m pip install "${TORCH}" --index-url "${TORCH_INDEX}"
WORKDIR /src
# All of it pinned and hashed, so that an index can serve nothing else (`make pins`).
COPY requirements ./requirements
RUN python -m pip install --no-deps --only-binary :all: --require-hashes \
    $(printf ' -r requirements/%s.txt' $(echo "${EXTRAS}" | tr ',' ' '))
COPY pyproject.toml README.md LICENSE ./
COPY m3router ./m3router
COPY data ./data
COPY m3core ./m3core
COPY router ./router
RUN python -m pip install --no-deps --no-build-isolation . && python -m pip check

FROM python:${PYTHON}@${PYTHON_DIGEST}
# LightGBM needs OpenMP from the system.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 m3router \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin m3router
COPY --from=build /opt/m3router /opt/m3router
ENV PATH=/opt/m3router/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TOKENIZERS_PARALLELISM=false \
    HF_HOME=/tmp/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib
USER 10001:10001
WORKDIR /home/m3router
# A run folder is mounted at /run-folder; keys come in M3ROUTER_API_KEYS, without any it refuses.
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
CMD ["m3router", "serve", "/run-folder", "--host", "0.0.0.0", "--port", "8000"]
