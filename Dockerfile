# syntax-free on purpose: builds with any engine, offline but for the packages.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python3 -m venv /venv
COPY requirements/ requirements/
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-compile --require-hashes -r requirements/runtime.lock
RUN python3 -m venv /build && /build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY assets/ assets/
COPY jobtester/ jobtester/
RUN /build/bin/pip wheel --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps /wheel/*.whl \
    && /venv/bin/python -m compileall -q /venv/lib \
    && rm -rf /venv/lib/python3*/site-packages/pip /venv/lib/python3*/site-packages/pip-*

FROM ${PYTHON_IMAGE}
ARG VERSION=dev
LABEL org.opencontainers.image.title="livepeer-job-tester" \
      org.opencontainers.image.description="Tests every orchestrator on the Livepeer AI network" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
RUN groupadd --gid 10001 jobtester \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin jobtester \
    && mkdir -p /data /config && chown 10001:10001 /data
COPY --from=build /venv /venv
COPY config.toml /config/config.toml
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    JOBTESTER_CONFIG=/config/config.toml \
    JOBTESTER_STORE__PATH=/data/jobtester.db
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 7934
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s --start-interval=1s --retries=3 CMD ["jobtester", "healthcheck"]
ENTRYPOINT ["jobtester"]
CMD ["serve"]
