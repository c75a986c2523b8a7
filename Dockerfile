# The kvision command in a container, without root. On a CPU:
#   docker build -t kvision .
#   docker run --rm -v "$PWD:/work" kvision check photos/
# With an NVIDIA GPU (any base with Python 3.11-3.13 and TensorFlow for CUDA):
#   docker build --build-arg BASE=tensorflow/tensorflow:2.20.0-gpu -t kvision:gpu .
#   docker run --rm --gpus all -v "$PWD:/work" kvision:gpu train detect photos/
ARG BASE=python:3.12-slim
FROM ${BASE}

ARG EXTRAS=fast,viz,litert,video
ENV PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=2

COPY . /src
RUN python3 -m pip install "/src[${EXTRAS}]" "keras>=3.15.1" "pillow>=12.3" \
    && rm -rf /src \
    && useradd --create-home --uid 10001 kvision \
    && install -d -o kvision /work

USER kvision
WORKDIR /work
# TERM reaches kvision as process 1: it saves and exits with 143.
ENTRYPOINT ["kvision"]
CMD ["--help"]
