# The app on the CPU: docker build -t vigie . && docker run -p 7860:7860 -v vigie:/data vigie
# With inspectors of the Hub: -e VIGIE_INSPECTORS=ORG/NAME (docs/DEPLOY.md).
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HF_HOME=/data/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    GRADIO_ANALYTICS_ENABLED=False

RUN useradd --create-home --uid 1000 vigie && mkdir /data && chown vigie:vigie /data
WORKDIR /app

# PyTorch's own index has builds without CUDA, which are some gigabytes smaller; nothing else is taken from there.
COPY requirements.txt .
RUN grep -E '^torch(vision)?==' requirements.txt > /tmp/torch.txt \
    && pip install --index-url https://download.pytorch.org/whl/cpu -r /tmp/torch.txt \
    && pip install -r requirements.txt

COPY app.py app.css LICENSE ./
COPY anomaly anomaly
COPY starter starter

USER vigie
VOLUME /data
EXPOSE 7860

# Ready means: the first inspector is loaded and has voted once. Loading it from the Hub for the first time takes a while.
HEALTHCHECK --interval=30s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import json, os, urllib.request as u; port = os.environ['GRADIO_SERVER_PORT']; ask = u.Request(f'http://127.0.0.1:{port}/gradio_api/run/health', b'{\"data\": []}', {'Content-Type': 'application/json'}); state = json.load(u.urlopen(ask, timeout=4))['data'][0]; raise SystemExit(state['status'] != 'ready')"]

CMD ["python", "app.py"]
