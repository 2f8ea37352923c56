# The image: Python, the locked dependencies, the program. What builds and installs stays in the first stage.
FROM python:3.12-slim AS build
WORKDIR /src
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python -m venv /build \
 && /build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/build.txt
RUN python -m venv --without-pip /opt/mtaq \
 && /build/bin/pip --python /opt/mtaq/bin/python install \
    --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY mtaq/ mtaq/
RUN /build/bin/pip wheel --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist . \
 && /build/bin/pip --python /opt/mtaq/bin/python install \
    --no-cache-dir --disable-pip-version-check --no-deps --no-index dist/*.whl

FROM python:3.12-slim
LABEL org.opencontainers.image.title="mtaq" \
      org.opencontainers.image.description="The open mail relay whose queues are RabbitMQ queues" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 mtaq \
 && useradd --uid 10001 --gid mtaq --no-create-home --home-dir /var/lib/mtaq --shell /usr/sbin/nologin mtaq \
 && install -d -o mtaq -g mtaq -m 0750 /var/lib/mtaq /run/mtaq
COPY --from=build /opt/mtaq /opt/mtaq
COPY docker/mtaq.conf /etc/mtaq/mtaq.conf
COPY scripts/inbox_to_outbox.py scripts/inbox_to_maildir.py /usr/local/share/mtaq/
ENV PATH=/opt/mtaq/bin:$PATH
USER 10001:10001
VOLUME /var/lib/mtaq
# Above 1024, so that it needs no capability under any container engine; publish it as 25.
EXPOSE 2525
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=3 CMD ["mtaq", "health"]
ENTRYPOINT ["mtaq"]
CMD ["run"]
