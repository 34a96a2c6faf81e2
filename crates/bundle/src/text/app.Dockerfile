# The image of this pod: ferry, Python and what app.py needs. Both containers run it.
# Not there yet? The base comes from Ferry's source: docker build --target python --tag {{base}} /path/to/ferry
# or let ../../build-images.sh build both. For a pinned build, give BASE with its digest.
ARG BASE={{base}}
FROM ${BASE}
COPY . /app/
USER 0
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore --requirement /app/requirements.txt
USER 65532:65532
# Hooks that cannot be loaded end the build here, and not the pod over there.
RUN ["/usr/local/bin/ferry", "{{role}}", "--check", "--hooks", "/app/app.py"]
