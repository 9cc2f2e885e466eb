# docker build -t stargan . && docker run --rm -v "$PWD/photos:/photos" stargan sample --preset demo --result_dir /photos
# TORCH_INDEX: the package index of PyTorch's CPU build (see its installation page). Without it, the image is larger.
FROM python:3.12-slim
ARG TORCH_INDEX=""
WORKDIR /stargan
COPY requirements.txt .
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url $TORCH_INDEX} "torch>=2.11,<3" "torchvision>=0.26,<1" && \
    pip install --no-cache-dir -r requirements.txt
COPY . .
ENTRYPOINT ["python", "main.py"]
CMD ["--help"]
