# The service with its default model baked in. Build: docker compose build
FROM python:3.11-slim

RUN apt-get update \
 && apt-get install --yes --no-install-recommends make libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 millpond \
 && install --directory --owner millpond /data
WORKDIR /app

# PyTorch in a layer of its own: a change of the source does not download it again.
COPY Makefile constraints.txt ./
RUN make torch
COPY pyproject.toml README.md LICENSE ./
COPY pooling pooling
COPY service service
COPY configs configs
RUN make install

ENV MILLPOND_SERVER__HOST=0.0.0.0 \
    MILLPOND_STORE__PATH=/data \
    MILLPOND_RUNTIME__CACHE=/data/cache \
    HF_HOME=/data/huggingface \
    PYTHONUNBUFFERED=1
USER millpond
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD [".venv/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT [".venv/bin/millpond"]
CMD ["serve", "--config", "configs/mean.yaml"]
