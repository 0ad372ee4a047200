# The service with its default model baked in. Build: docker compose build
FROM python:3.11-slim AS build

RUN apt-get update \
 && apt-get install --yes --no-install-recommends make \
 && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1
WORKDIR /build

# PyTorch in a layer of its own: a change of the source does not download it again. Its C++ tests and headers are
# for those who build against it.
COPY Makefile constraints.txt ./
RUN make torch VENV=/opt/millpond \
 && cd /opt/millpond/lib/python3.11/site-packages/torch \
 && rm -rf test include bin/test_* bin/*Test bin/protoc*
COPY pyproject.toml README.md LICENSE ./
COPY millpond millpond
COPY pooling pooling
COPY service service
ARG EXTRAS=bundled,openvino
RUN make install VENV=/opt/millpond EDITABLE= EXTRAS="$EXTRAS" \
 && mv /opt/millpond/lib/python3.11/site-packages/torch /opt/torch

FROM python:3.11-slim

# Any user of group 0 may write where the service does, as OpenShift chooses the user. Nothing else is written but /tmp.
RUN install --directory --group=0 --mode=0775 /data /keys
COPY --from=build /opt/torch /opt/millpond/lib/python3.11/site-packages/torch
COPY --from=build /opt/millpond /opt/millpond
WORKDIR /app
COPY configs configs

ENV PATH=/opt/millpond/bin:$PATH \
    MILLPOND_SERVER__HOST=0.0.0.0 \
    MILLPOND_STORE__PATH=/data \
    MILLPOND_RUNTIME__CACHE=/data/cache \
    HF_HOME=/data/huggingface \
    PYTHONUNBUFFERED=1
USER 10001:0
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT ["millpond"]
CMD ["serve", "--config", "configs/mean.yaml"]
