# syntax=docker/dockerfile:1
# One image for every role: `docker run IMAGE serve|worker|scheduler|all|…`. Builds for the platform it is built on (amd64, arm64).
FROM rust:1.95-slim-bookworm AS build
# A C compiler for SQLite, ring and mimalloc.
RUN apt-get update && apt-get install -y --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ARG TARGETPLATFORM
# The target folder is a cache and no layer, so the binary is copied out of it, without the symbols that only a debugger reads.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,id=target-${TARGETPLATFORM},sharing=locked \
    cargo build --release --locked --bin app && \
    strip -o /app target/release/app && \
    mkdir /data

# glibc and libgcc, root certificates, no shell, and a user without rights.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /app /usr/local/bin/app
COPY LICENSE /usr/share/doc/app/LICENSE
LABEL org.opencontainers.image.licenses="Apache-2.0"
# Owned by the user, so that a fresh volume mounted here is, too.
COPY --from=build --chown=nonroot:nonroot /data /data
WORKDIR /data
ENV APP__STORE__URL=sqlite:///data/app.db
VOLUME /data
EXPOSE 8000
# Asks /health/ready on loopback. Roles that do not listen need another check, or none.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/usr/local/bin/app", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/app"]
CMD ["all"]
