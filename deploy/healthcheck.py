# ruff: noqa: INP001 (a script of the image, no module)
"""The image's health check: exits 0 while /livez answers, or where WORKER_HTTP_PORT=0 has turned it off."""

import http.client
import os
import sys

port = int(os.environ.get("WORKER_HTTP_PORT") or 8080)
if port:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
        connection.request("GET", "/livez")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"no answer from 127.0.0.1:{port}/livez: {error}")
    if status != http.client.OK:
        sys.exit(f"127.0.0.1:{port}/livez answered {status}")
