"""The application that uvicorn serves: MONAI Label's own, guarded.

monailabel start_server --uvicorn_app bundle.serving.label_server:app ...
"""

from __future__ import annotations

import os
import tarfile

from fastapi import Request
from fastapi.responses import JSONResponse
from monailabel.app import app as monailabel_app

from bundle.serving.label_guard import LOOPBACK, Guard

# Archives that are sent as a session may not write outside their folder; this Python trusts them otherwise.
tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)  # type: ignore[assignment]


def failed(request: Request, error: Exception) -> JSONResponse:
    """One sentence for what nothing else has answered; the traceback is in the log."""
    sentence = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
    return JSONResponse({"detail": f"The server could not do this ({sentence}); its log says more."}, 500)


monailabel_app.add_exception_handler(Exception, failed)
_further = os.environ.get("LABEL_HOSTS", "")
app = Guard(monailabel_app, LOOPBACK | {host.strip() for host in _further.split(",") if host.strip()})
