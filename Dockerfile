# The worker as an image: a virtual environment of pinned packages, no compiler, no secret, no root.
#   docker build --tag agent-persistence .
#   docker run --env DATABASE_URL=... --env AMQP_URL=... agent-persistence [run | migrate | topology apply | ...]
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS packages
WORKDIR /src
RUN python -m venv /opt/installer && python -m venv --without-pip /opt/worker
COPY requirements/installer.txt requirements/
RUN /opt/installer/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes \
    -r requirements/installer.txt
COPY requirements/worker.txt requirements/
RUN /opt/installer/bin/uv pip install --quiet --no-cache --python /opt/worker/bin/python --compile-bytecode \
    --require-hashes -r requirements/worker.txt

FROM packages AS project
COPY requirements/dev.txt requirements/
COPY pyproject.toml README.md LICENSE ./
COPY alembic alembic
COPY contracts contracts
COPY worker worker
# The build backend is pinned by hashes too; the migrations travel in the wheel.
RUN /opt/installer/bin/uv build --quiet --no-cache --wheel --out-dir /dist \
    --build-constraint requirements/dev.txt --require-hashes .

FROM python:${PYTHON_VERSION}-slim
LABEL org.opencontainers.image.title="agent-persistence" \
    org.opencontainers.image.description="Persistence worker for agent systems: RabbitMQ in, PostgreSQL behind, confirmations out." \
    org.opencontainers.image.licenses="MIT"
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent worker \
    && install --directory --owner 10001 --group 10001 --mode 0700 /archive
# A large layer that changes with the pins only, and a small one with the project.
COPY --from=packages /opt/worker /opt/worker
COPY deploy/healthcheck.py /opt/healthcheck.py
RUN --mount=type=bind,from=project,target=/build \
    /build/opt/installer/bin/uv pip install --quiet --no-cache --python /opt/worker/bin/python --compile-bytecode \
    --no-deps --offline /build/dist/*.whl
# Nothing is written at run time but into volumes (/archive), so the root file system may be read-only.
ENV PATH=/opt/worker/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    WORKER_HTTP_HOST=0.0.0.0
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "/opt/healthcheck.py"]
# Let it have longer than WORKER_GRACE (20 s) to stop: docker stop --time 30.
STOPSIGNAL SIGTERM
ENTRYPOINT ["worker"]
CMD ["run"]
