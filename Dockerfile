# Lookback with its default model inside: the container starts with no network.
#   docker build -t lookback . && docker run --rm --init -p 127.0.0.1:8000:8000 lookback

# Both stages start from the same image: a virtual environment points at the Python it was made with.
ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS build
# Other package indexes, for example one with torch's CPU build, which makes the image several GB smaller.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PATH=/opt/lookback/bin:$PATH PIP_NO_CACHE_DIR=1
WORKDIR /src

# Dependencies first, in a layer that a change of code leaves as it is. Their list can be read only where a README is.
COPY pyproject.toml constraints.txt ./
RUN touch README.md \
 && python -m venv /opt/lookback \
 && python -m pip install --constraint constraints.txt pip \
 && python -m pip install --constraint constraints.txt --only-deps .

COPY . .
RUN python -m pip install --constraint constraints.txt --no-deps .
RUN LOOKBACK_WEIGHTS_DIR=/opt/weights lookback fetch smollm2-135m


FROM ${PYTHON}
# Models of the Hugging Face hub are kept in the user's home; a volume that is put there takes over the folder's owner.
RUN useradd --uid 1000 --create-home lookback \
 && install -d -o lookback -g lookback /home/lookback/.cache /home/lookback/.cache/huggingface
COPY --from=build --chown=lookback:lookback /opt/weights /opt/weights
COPY --from=build /opt/lookback /opt/lookback

ENV PATH=/opt/lookback/bin:$PATH \
    LOOKBACK_WEIGHTS_DIR=/opt/weights \
    LOOKBACK_HOST=0.0.0.0 \
    LOOKBACK_PORT=8000
USER lookback
WORKDIR /home/lookback
EXPOSE 8000

# http.client heeds no proxy setting. The address to listen on can be called too: 0.0.0.0 reaches this machine.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["python", "-c", "\
import http.client, os, sys; \
server = http.client.HTTPConnection(os.environ['LOOKBACK_HOST'], int(os.environ['LOOKBACK_PORT']), timeout=4); \
server.request('GET', '/healthz'); \
sys.exit(server.getresponse().status != 200)"]

CMD ["lookback", "serve"]
