"""The application that uvicorn serves: MONAI Label's own, guarded.

    monailabel start_server --uvicorn_app bundle.serving.label_server:app ...
"""

from __future__ import annotations

import os
import tarfile

from monailabel.app import app as monailabel_app

from bundle.serving.label_guard import LOOPBACK, Guard

# Archives that are sent as a session may not write outside their folder; this Python trusts them otherwise.
tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)  # type: ignore[assignment]

_further = os.environ.get("LABEL_HOSTS", "")
app = Guard(monailabel_app, LOOPBACK | {host.strip() for host in _further.split(",") if host.strip()})
