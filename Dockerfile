# syntax=docker/dockerfile:1
# An image with reidray: Ray's own, of the version of constraints.txt, and this repository.      Not yet run.
#
#     docker build -t REGISTRY/reidray:2.60.0-py311-gpu .                           # CUDA
#     docker build --build-arg DEVICE=cpu -t reidray:cpu .                          # without CUDA, smaller
#     docker run --rm --shm-size 4g -v "$PWD/crops:/crops:ro" -v "$PWD/runs:/home/ray/work/runs" reidray:cpu reidray train /crops
#
# kuberay/rayjob.yaml uses the first. Run folders belong to the user `ray` (1000) of the image.
ARG DEVICE=gpu
FROM rayproject/ray:2.60.0-py311-${DEVICE}
ARG DEVICE
WORKDIR /home/ray/reidray
COPY --chown=ray pyproject.toml setup.py MANIFEST.in constraints.txt README.md LICENSE ./
COPY --chown=ray reidray reidray
COPY --chown=ray jobs jobs
COPY --chown=ray configs configs
# PyTorch of its own index is of CUDA or not; PyPI's always brings CUDA's libraries.
RUN if [ "$DEVICE" = cpu ]; then export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu; fi \
    && pip install --no-cache-dir -c constraints.txt -e .
# Compiled kernels are kept here, also where the repository is mounted read-only or home is not there.
ENV NUMBA_CACHE_DIR=/tmp/reidray-numba PYTHONUNBUFFERED=1
WORKDIR /home/ray/work
