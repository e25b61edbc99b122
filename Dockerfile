# Uses no BuildKit syntax, so that any engine can build it. Only packages are downloaded.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# Without binutils the build works too, and the image is 35 MB larger.
RUN (apt-get -qq update && apt-get -qq install --yes --no-install-recommends binutils >/dev/null) \
    || echo "binutils cannot be installed: the packages keep their debug symbols"
RUN python3 -m venv /build && python3 -m venv --without-pip /venv
COPY requirements/ requirements/
RUN /build/bin/pip --python /venv/bin/python install --no-compile --require-hashes -r requirements/runtime.lock \
    && if command -v strip; then find /venv -name '*.so*' -type f -exec strip --strip-debug {} +; fi
RUN /build/bin/pip install --no-compile --require-hashes -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY assets/ assets/
COPY jobtester/ jobtester/
# Compile here: the file system is read-only later. Skip modules that are never imported.
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /build/bin/pip --python /venv/bin/python install --no-compile --no-deps --no-index /wheel/*.whl \
    && /venv/bin/python -m compileall -q -j 0 -x '/pygments/(lexers|styles|formatters)/' /venv/lib

FROM ${PYTHON_IMAGE}
ARG PYTHON_IMAGE
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="livepeer-job-tester" \
      org.opencontainers.image.description="Tests every orchestrator on the Livepeer AI network" \
      org.opencontainers.image.authors="livepeer-job-tester contributors" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 jobtester \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin jobtester \
    && mkdir -p /data /config && chown 10001:10001 /data
COPY --from=build /venv /venv
COPY config.toml /config/config.toml
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MALLOC_ARENA_MAX=1 \
    JOBTESTER_CONFIG=/config/config.toml \
    JOBTESTER_STORE__PATH=/data/jobtester.db
# The number, not the name, so that Kubernetes can verify that it is not root.
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 7934
STOPSIGNAL SIGTERM
# A short interval: engines before 25 have no start interval, and run the first check after one interval.
HEALTHCHECK --interval=2s --timeout=6s --start-period=20s --retries=5 CMD ["jobtester", "healthcheck"]
ENTRYPOINT ["jobtester"]
CMD ["serve"]
