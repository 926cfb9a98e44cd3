# A small image that serves on port 8000 as an unprivileged user.
#
#   make image                                            CPU, with a list of all that is in it (SBOM)
#   docker build -t tandem:gpu --build-arg TORCH=cuda .
#   docker run --rm -p 8000:8000 -e TANDEM_API_KEYS=me:KEY tandem
#   docker run --rm -p 8000:8000 -e TANDEM_API_KEYS=me:KEY --gpus all -e TANDEM_DEVICE=cuda tandem:gpu
#
# It listens to other machines, so it wants keys; without any, say -e TANDEM_INSECURE=1 and -p 127.0.0.1:8000:8000.

# Nothing is taken but what has the digests written here and in deploy/image/, which `make constraints` makes.

ARG PYTHON_IMAGE=python:3.11.16-slim-trixie@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7

FROM ${PYTHON_IMAGE} AS build
# Which build of PyTorch: cpu, from its own index and for amd64; or cuda, from PyPI
ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_DEPS=1 \
    PIP_REQUIRE_HASHES=1
WORKDIR /src
COPY deploy/image ./
# PyTorch first and alone: the large layer, which a change of our code leaves as it is
RUN python -m venv /opt/tandem
RUN /opt/tandem/bin/pip install --extra-index-url https://download.pytorch.org/whl/cpu -r "torch-${TORCH}.txt"
RUN /opt/tandem/bin/pip install -r requirements.txt
RUN python -m pip install -r build.txt
COPY pyproject.toml README.md LICENSE ./
COPY simulation simulation
COPY decoder decoder
COPY service service
RUN python -m hatchling build -t wheel -d /wheels
RUN PIP_REQUIRE_HASHES=0 /opt/tandem/bin/pip install /wheels/*.whl
RUN /opt/tandem/bin/pip check

FROM ${PYTHON_IMAGE}
ENV PATH=/opt/tandem/bin:${PATH} \
    PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 10001 tandem
COPY --from=build /opt/tandem /opt/tandem
USER tandem
WORKDIR /home/tandem
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=90s --retries=3 \
    CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1:8000', timeout=4); c.request('GET', '/readyz'); exit(c.getresponse().status != 200)"]
CMD ["tandem", "serve", "--host", "0.0.0.0", "--port", "8000"]
