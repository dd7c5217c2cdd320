# An image for NVIDIA GPUs; the host needs its driver and the NVIDIA container toolkit.
#   docker build -f docker/gpu.Dockerfile -t convit_ssl:gpu .
#   docker run --rm --gpus all -v /images:/images:ro -v "$PWD:/data" --shm-size 8g convit_ssl:gpu \
#       train config=convit_dino data=folder data_dir=/images run=gpu1
FROM python:3.12-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE ./
COPY convit_ssl convit_ssl
COPY configs configs
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# Not slim: torch.compile and Triton need a C compiler and Python's headers.
FROM python:3.12-bookworm
ARG EXTRAS=explore,tables,tiff,report,export
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
COPY requirements.lock requirements-cuda.lock /tmp/
COPY --from=wheel /wheels /wheels
RUN pip install --constraint /tmp/requirements.lock --constraint /tmp/requirements-cuda.lock \
        "$(ls /wheels/*.whl)[${EXTRAS}]" \
    && pip install --no-deps vissl==0.1.6 \
    && rm -rf /wheels /tmp/requirements.lock /tmp/requirements-cuda.lock
RUN useradd --create-home --uid 1000 user
USER 1000
WORKDIR /data
ENTRYPOINT ["convit-ssl"]
CMD ["--help"]
