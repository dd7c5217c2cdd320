# A small image for training and evaluation on CPUs.
#   docker build -f docker/cpu.Dockerfile -t convit_ssl:cpu .
#   docker run --rm -v /images:/images:ro -v "$PWD:/data" --shm-size 2g convit_ssl:cpu check /images
FROM python:3.12-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE ./
COPY convit_ssl convit_ssl
COPY configs configs
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm
# --build-arg TORCH_INDEX=<PyTorch's index of CPU builds> leaves out CUDA: a tenth of the size.
ARG TORCH_INDEX=
ARG EXTRAS=explore,tables,tiff,report,export
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
COPY requirements.lock /tmp/requirements.lock
COPY --from=wheel /wheels /wheels
RUN pip install --constraint /tmp/requirements.lock ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
        torch torchvision \
    && pip install --constraint /tmp/requirements.lock "$(ls /wheels/*.whl)[${EXTRAS}]" \
    && pip install --no-deps vissl==0.1.6 \
    && rm -rf /wheels /tmp/requirements.lock
RUN useradd --create-home --uid 1000 user
USER 1000
WORKDIR /data
ENTRYPOINT ["convit-ssl"]
CMD ["--help"]
