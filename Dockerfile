# A small image that serves on port 8000 as an unprivileged user.
#
#   docker build -t tandem .                              CPU
#   docker build -t tandem:gpu --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130 .
#   docker run --rm -p 8000:8000 -e TANDEM_API_KEYS=me:KEY tandem
#   docker run --rm -p 8000:8000 -e TANDEM_API_KEYS=me:KEY --gpus all -e TANDEM_DEVICE=cuda tandem:gpu
#
# It listens to other machines, so it wants keys; without any, say -e TANDEM_INSECURE=1 and -p 127.0.0.1:8000:8000.

ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
# Which build of PyTorch: its CPU index, or one of its CUDA indexes
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/tandem
# PyTorch first and alone: the large layer, which a change of our code leaves as it is
COPY constraints.txt ./
RUN /opt/tandem/bin/pip install --no-deps --extra-index-url "${TORCH_INDEX_URL}" -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY simulation simulation
COPY decoder decoder
COPY service service
RUN /opt/tandem/bin/pip install -c constraints.txt .

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
