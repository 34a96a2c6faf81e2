# syntax=docker/dockerfile:1
# The images of Ferry.
#   docker build --target ferry  --tag ferry:0.1.0 .          the binary alone: tunnels and tools
#   docker build --target python --tag ferry-python:0.1.0 .   with Python, for the hooks of web-apps
# The images of a bundle's pods are built on the second, by the bundle's build-images.sh.

# What to build on. For a build that can be repeated, pin both by digest:
#   --build-arg RUST_IMAGE=rust:1-slim@sha256:… --build-arg PYTHON_IMAGE=python:3-slim@sha256:…
# `docker buildx imagetools inspect python:3-slim` tells the digest of today.
ARG RUST_IMAGE=rust:1-slim
ARG PYTHON_IMAGE=python:3-slim

FROM ${RUST_IMAGE} AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# Static, so that it runs on an empty image.
ENV RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols"
# Naming the target keeps the flags from procedural macros, which cannot be static.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    target="$(rustc --print host-tuple)" \
    && cargo build --release --locked --package ferry --target "$target" \
    && install -D "target/$target/release/ferry" /out/ferry

FROM scratch AS ferry
COPY --from=build /out/ferry /usr/local/bin/ferry
# Nobody's: no image has this user.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/ferry"]

FROM ${PYTHON_IMAGE} AS python
COPY --from=build /out/ferry /usr/local/bin/ferry
# Hooks run on a root file system that is read-only, and their output is a log.
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/ferry"]
