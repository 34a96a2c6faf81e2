# The image of this pod: ferry, Python and app.py. Both containers run it.
ARG BASE={{base}}
FROM ${BASE}
COPY requirements.txt app.py /app/
USER 0
RUN pip install --no-cache-dir --disable-pip-version-check --requirement /app/requirements.txt
USER 65532:65532
