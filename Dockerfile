# docker build -t stargan . && docker run --rm -v "$PWD/photos:/photos" stargan sample --preset demo --result_dir /photos
# For PyTorch's smaller CPU build, pass its package index (see the installation page of PyTorch) as a build argument.
FROM python:3.12-slim
ARG PIP_EXTRA_INDEX_URL
WORKDIR /stargan
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
ENTRYPOINT ["python", "main.py"]
CMD ["--help"]
