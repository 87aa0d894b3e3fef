"""The application that uvicorn serves: MONAI Label's own, guarded.

monailabel start_server --uvicorn_app bundle.serving.label.server:app ...
"""

from __future__ import annotations

import os

from fastapi import Request
from fastapi.responses import JSONResponse
from monailabel.app import app as monailabel_app

from bundle.serving.label.guard import LOOPBACK, Guard, upload_limit
from bundle.serving.label.requests import RequestError


def failed(request: Request, error: Exception) -> JSONResponse:
    """One sentence for what nothing else has answered; the traceback is in the log."""
    sentence = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
    return JSONResponse({"detail": f"The server could not do this ({sentence}); its log says more."}, 500)


def refused(request: Request, error: RequestError) -> JSONResponse:
    """What a field of the request has wrong."""
    return JSONResponse({"detail": str(error)}, 400)


monailabel_app.add_exception_handler(Exception, failed)
monailabel_app.add_exception_handler(RequestError, refused)
_further = os.environ.get("LABEL_HOSTS", "")
app = Guard(
    monailabel_app, LOOPBACK | {host.strip() for host in _further.split(",") if host.strip()}, upload_limit()
)
