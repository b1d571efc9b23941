# Two images from one file, each small for what it does, neither with a shell script or a privilege of its own:
#   docker build --target operator -t mixpeek-operator:0.1.0 .    the operator, and a server without models
#   docker build --target engine   -t mixpeek-engine:0.1.0 .      the server with models, and Ray's pods
# Every Python package is pinned with its hash in requirements/; ARG BASE takes a digest to pin the system as well.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS base
ENV LANG=C.UTF-8 \
    PATH=/opt/mixpeek/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log

FROM base AS tools
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements/build.txt /src/
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv \
    && python3 -m venv /opt/build && /opt/build/bin/pip install --require-hashes -r /src/build.txt

# uv installs from its cache, which no layer holds; the list of what was installed stays beside it.
# Compiled code is taken as it is: nobody changes a source in an image, and files change their date on the way there.
FROM base AS packages
COPY requirements/cluster.txt /opt/mixpeek/
RUN --mount=from=tools,source=/opt/build,target=/opt/build --mount=type=cache,target=/root/.cache/uv \
    /opt/build/bin/uv venv -q --allow-existing /opt/mixpeek --python /usr/bin/python3 \
    && /opt/build/bin/uv pip install -q --link-mode copy --python /opt/mixpeek --require-hashes -r /opt/mixpeek/cluster.txt \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/mixpeek/lib

# KubeRay's probes call wget, its commands bash.
# A file of torch's own tests is written for a newer Python: what does not compile is no reason to stop.
FROM base AS engine-packages
RUN apt-get update \
    && apt-get install -y --no-install-recommends procps wget \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
COPY requirements/engine.txt /opt/mixpeek/
RUN --mount=from=tools,source=/opt/build,target=/opt/build --mount=type=cache,target=/root/.cache/uv \
    /opt/build/bin/uv venv -q --allow-existing /opt/mixpeek --python /usr/bin/python3 \
    && /opt/build/bin/uv pip install -q --link-mode copy --python /opt/mixpeek --require-hashes -r /opt/mixpeek/engine.txt \
    && (python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/mixpeek/lib || true)

# Ours alone, where the packages will be: a change of our code leaves the large layers as they are.
FROM tools AS program
COPY pyproject.toml README.md CHANGELOG.md LICENSE /src/
COPY operator/ /src/operator/
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation -w /wheels /src \
    && python3 -m venv --without-pip /opt/mixpeek \
    && /opt/build/bin/pip --python /opt/mixpeek/bin/python install --no-compile --no-deps /wheels/*.whl \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/mixpeek/lib

FROM packages AS operator
COPY --from=program /opt/mixpeek /opt/mixpeek
# Under whatever id it runs: nobody is listed in /etc/passwd.
ENV USER=mixpeek
USER 65532:65532
WORKDIR /data
ENTRYPOINT ["mixpeekctl"]
CMD ["operator"]

FROM engine-packages AS engine
ENV RAY_USAGE_STATS_ENABLED=0 HOME=/tmp USER=mixpeek
COPY --from=program /opt/mixpeek /opt/mixpeek
USER 65532:65532
WORKDIR /data
ENTRYPOINT []
CMD ["mixpeekctl", "serve", "--host", "0.0.0.0"]
