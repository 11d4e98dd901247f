# Images of server and client. They need their base images and the packages of those distributions, nothing else.
#
#   docker build --tag switchyard .                             CPU, the default
#   docker build --tag switchyard:cuda --target cuda .          NVIDIA GPUs
#   docker run --rm -p 50051:50051 -p 8000:8000 -p 8002:8002 switchyard      serves the bundled model
#   docker run --rm --entrypoint switchyard switchyard --help   the client
#
# Any Debian 12 or Ubuntu 24.04 will do as a base; for `cuda` with the CUDA toolkit (12.8 or newer) to build, and with
# cuBLAS to run. deploy/README.md has the rest.
ARG BASE_IMAGE=debian:bookworm-slim
ARG CUDA_DEVEL_IMAGE=nvidia/cuda:13.0.1-devel-ubuntu24.04
ARG CUDA_RUNTIME_IMAGE=nvidia/cuda:13.0.1-runtime-ubuntu24.04

# ------------------------------------------------------------------------------------------------------------- cpu
FROM ${BASE_IMAGE} AS cpu-build
WORKDIR /source
COPY deploy/packages.sh deploy/packages.sh
RUN bash -c 'source deploy/packages.sh && install_packages "${SWITCHYARD_BUILD_PACKAGES[@]}"'
COPY . .
RUN --mount=type=cache,target=/root/.cache/ccache bash deploy/image/build.sh -DSWITCHYARD_CUDA=OFF

FROM ${BASE_IMAGE} AS cpu
ARG VERSION=0.1.0
ARG REVISION=unknown
COPY --from=cpu-build /image/ /
RUN apt-get update && xargs apt-get install -y --no-install-recommends </usr/local/share/switchyard/packages && \
    rm -rf /var/lib/apt/lists/*
LABEL org.opencontainers.image.title="Switchyard" \
      org.opencontainers.image.description="gRPC server for Mixture-of-Experts language models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV SWITCHYARD_MODEL=/usr/local/share/switchyard/switchyard-demo
ENV SWITCHYARD_HTTP_PORT=8000
EXPOSE 50051 8000 8002
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["switchyard", "health"]
ENTRYPOINT ["switchyard-server"]

# ------------------------------------------------------------------ cuda: the same on other bases, with the plugin
FROM ${CUDA_DEVEL_IMAGE} AS cuda-build
WORKDIR /source
COPY deploy/packages.sh deploy/packages.sh
RUN bash -c 'source deploy/packages.sh && install_packages "${SWITCHYARD_BUILD_PACKAGES[@]}"'
COPY . .
RUN --mount=type=cache,target=/root/.cache/ccache bash deploy/image/build.sh -DSWITCHYARD_CUDA=ON

FROM ${CUDA_RUNTIME_IMAGE} AS cuda
ARG VERSION=0.1.0
ARG REVISION=unknown
COPY --from=cuda-build /image/ /
RUN apt-get update && xargs apt-get install -y --no-install-recommends </usr/local/share/switchyard/packages && \
    rm -rf /var/lib/apt/lists/*
LABEL org.opencontainers.image.title="Switchyard" \
      org.opencontainers.image.description="gRPC server for Mixture-of-Experts language models, with CUDA" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# What NVIDIA's container runtime puts into the container: every GPU that was asked for, with the compute libraries.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENV SWITCHYARD_MODEL=/usr/local/share/switchyard/switchyard-demo
ENV SWITCHYARD_HTTP_PORT=8000
EXPOSE 50051 8000 8002
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["switchyard", "health"]
ENTRYPOINT ["switchyard-server"]

# -------------------------------------------------------------------------------- what `docker build .` is asked for
FROM cpu
