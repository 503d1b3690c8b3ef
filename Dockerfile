# One image for every component; the process inside is never root.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/rcp-gateway
COPY requirements.lock ./
RUN /opt/rcp-gateway/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY mappings mappings
COPY fixtures fixtures
RUN /opt/rcp-gateway/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/rcp-gateway --create-home --shell /usr/sbin/nologin rcp-gateway
COPY --from=build /opt/rcp-gateway /opt/rcp-gateway
ENV PATH=/opt/rcp-gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RCP_DATA_DIR=/var/lib/rcp-gateway \
    RCP_LOG_FORMAT=json
USER 10001
WORKDIR /var/lib/rcp-gateway
ENTRYPOINT ["rcp-gateway"]
CMD ["serve"]
