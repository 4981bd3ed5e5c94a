# docker build -t fmnist_lit .
# docker run --rm -v "$PWD/outputs:/app/outputs" -v fmnist_data:/app/data fmnist_lit trainer.max_epochs=1
# docker run --rm -v "$PWD/outputs:/app/outputs" --entrypoint python fmnist_lit -m fmnist_lit.evaluate latest
FROM python:3.12-slim
# torch for CPUs is a tenth as large; auto, or cu128, for a GPU
ARG TORCH_BACKEND=cpu
RUN pip install --no-cache-dir "uv>=0.9,<1"
# apart from what follows, which changes more often
RUN uv pip install --system --no-cache --torch-backend "$TORCH_BACKEND" "torch>=2.11" "torchvision>=0.26"
COPY pyproject.toml README.md LICENSE /app/
COPY src /app/src
COPY conf /app/conf
RUN uv pip install --system --no-cache "/app[export]"

RUN useradd --create-home --uid 1000 person && mkdir -p /app/data /app/outputs && chown -R person /app
USER 1000
WORKDIR /app
ENV FMNIST_DATA_DIR=/app/data
VOLUME ["/app/data", "/app/outputs"]
ENTRYPOINT ["python", "-m", "fmnist_lit"]
