# The server, for CPUs (target cpu, the default) or NVIDIA GPUs (target cuda):
#
#   docker build -t deeplab_tf .
#   docker build -t deeplab_tf:cuda --target cuda .
#   docker run --rm -p 8501:8501 -v "$PWD/exp/mine:/model:ro" deeplab_tf
#
# Any other command takes the place of the last line: docker run --rm -v "$PWD:/work" -w /work deeplab_tf doctor ...
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim AS base
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=2 \
    DEEPLAB_TF_CACHE=/cache
RUN useradd --create-home --uid 1000 deeplab \
    && mkdir /cache \
    && chown deeplab /cache
COPY --from=wheel /wheels /wheels
EXPOSE 8501
# The page answers when the model is ready; the first start may download weights and convert them.
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/readyz', timeout=4)"]
ENTRYPOINT ["deeplab-tf"]
CMD ["serve", "--checkpoint=/model", "--host=0.0.0.0"]

# CUDA's libraries come with TensorFlow's wheel; the host needs NVIDIA's driver and container toolkit.
FROM base AS cuda
# The one package is the wheel of this checkout.
# hadolint ignore=DL3013
RUN wheel=$(ls /wheels/*.whl) \
    && pip install "${wheel}[serve,cuda]"
USER 1000
VOLUME /cache

FROM base AS cpu
# The one package is the wheel of this checkout.
# hadolint ignore=DL3013
RUN wheel=$(ls /wheels/*.whl) \
    && pip install "${wheel}[serve,litert,openvino]"
USER 1000
VOLUME /cache
