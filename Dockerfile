# The program as an image: the tracking server of compose.yaml, and workers on Kubernetes.
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /studies
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt --editable '.[cluster]'
ENV MLFLOW_DISABLE_TELEMETRY=true MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false
ENTRYPOINT ["python", "-m", "studies"]
