# modhook with PyTorch for processors: docker build -t modhook . && docker run --rm -v "$PWD/results:/results" modhook run quickstart --out /results
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1

WORKDIR /src
COPY . .
# torch as constraints.txt pins it; for a GPU take an image that brings torch with CUDA, and leave the constraints away.
# The small run compiles the kernels once, so that no container has to.
RUN python -m pip install -c constraints.txt . \
    && modhook run quickstart --variant smoke --out /tmp/smoke \
    && rm -r /tmp/smoke

WORKDIR /work
ENTRYPOINT ["modhook"]
CMD ["--help"]
