"""A DICOMweb server that series come from (QIDO-RS, WADO-RS) and results go to (STOW-RS), PS3.18."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset

from bundle.cases.dicom.headers import quiet
from bundle.cases.dicom.reports import PROSE_REPORTS
from bundle.serving.pacs.exchange import ArrivedSeries, ServerError, SettingError, is_uid

_SECONDS = 10.0, 300.0  # for a connection, and without a word from the server
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Tags of the DICOM JSON model, PS3.18 F.
_STUDY, _SERIES, _MODALITY = "0020000D", "0020000E", "00080060"
_CLASS, _INSTANCE = "00080016", "00080018"
_STUDY_INSTANCES, _SERIES_INSTANCES = "00201208", "00201209"


class DicomWebServer:
    """Source and destination of a node.

    Args:
        url: of the service, with http or https; no user or password in it.
        folder: for series that are being fetched.
        modalities: DICOM modalities of the series that are taken.
        query: attribute -> value that studies must match, as QIDO-RS has it.
        days: take only studies dated within so many days; None for any.
        ca: file of certificates that the server's is checked by, instead of the system's.
        credentials: see `credentials_from`.
        with_reports: fetch the reports of studies.

    Raises:
        SettingError: the address cannot be used.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        modalities: Sequence[str],
        query: Mapping[str, str] | None = None,
        days: int | None = None,
        ca: Path | None = None,
        credentials: requests.auth.AuthBase | None = None,
        with_reports: bool = False,
        today: Callable[[], date] = date.today,
    ) -> None:
        check_url(url, credentials is not None)
        self.folder = folder
        self.modalities = frozenset(modalities)
        self.query = dict(query or {})
        self.days = days
        self.with_reports = with_reports
        self.today = today
        self.client = DICOMwebClient(url.rstrip("/"), session=_session(ca, credentials), timeout=_SECONDS)
        self.client.set_http_retry_params(retry=False)  # the node has its own
        self._known: dict[str, tuple[int, list[ArrivedSeries]]] = {}
        shutil.rmtree(folder, ignore_errors=True)

    # --- source ---------------------------------------------------------------------------------------------

    def studies(self) -> Mapping[str, Sequence[ArrivedSeries]]:
        filters: dict[str, Any] = dict(self.query)
        if self.days is not None:
            filters["StudyDate"] = f"{self.today() - timedelta(days=self.days):%Y%m%d}-"
        studies = {}
        for entry in self._search("studies", filters, fields=["NumberOfStudyRelatedInstances"]):
            study, count = _value(entry, _STUDY), _number(entry, _STUDY_INSTANCES)
            if not is_uid(study):
                continue
            known = self._known.get(study)
            if known is None or count is None or known[0] != count:
                known = count or 0, self._series_of(study)
                self._known[study] = known
            studies[study] = known[1]
        return studies

    def _series_of(self, study: str) -> list[ArrivedSeries]:
        fields = ["NumberOfSeriesRelatedInstances"]
        series = []
        for entry in self._search("series", study_instance_uid=study, fields=fields):
            uid = _value(entry, _SERIES)
            if is_uid(uid) and _value(entry, _MODALITY) in self.modalities:
                count = _number(entry, _SERIES_INSTANCES)
                if count is None:
                    count = len(self._search("instances", study_instance_uid=study, series_instance_uid=uid))
                series.append(ArrivedSeries(study, uid, count))
        return series

    def _search(
        self, what: str, filters: Mapping[str, Any] | None = None, **arguments: Any
    ) -> list[dict[str, Any]]:
        """Studies, series or instances, by QIDO-RS."""
        with _in_a_sentence(f"search for {what}"):
            search = getattr(self.client, f"search_for_{what}")
            found: list[dict[str, Any]] = search(search_filters=filters, get_remaining=True, **arguments)
        return found

    def fetch(self, series: ArrivedSeries) -> Path:
        folder = self.folder / series.study / series.series
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with _in_a_sentence("retrieval of a series"), quiet():
            parts = self.client.iter_series(
                series.study, series.series, media_types=(("application/dicom", "*"),)
            )
            for dataset in parts:
                if dataset.get("SeriesInstanceUID") != series.series or not is_uid(
                    str(dataset.get("SOPInstanceUID"))
                ):
                    raise ServerError("The server sent an object that was not asked for.")
                dataset.save_as(folder / f"{dataset.SOPInstanceUID}.dcm")
        count = len(os.listdir(folder))
        if count < series.instances:
            raise ServerError(f"The server sent {count} of {series.instances} instances.")
        return folder

    def reports(self, study: str) -> list[Path]:
        if not self.with_reports:
            return []
        folder = self.folder / study / "reports"
        folder.mkdir(parents=True, exist_ok=True)
        found = self._search("series", {"Modality": "SR"}, study_instance_uid=study)
        return [
            self._fetch_report(study, series, instance, folder)
            for series in (_value(entry, _SERIES) for entry in found if _value(entry, _MODALITY) == "SR")
            if is_uid(series)
            for instance in self._prose_in(study, series)
        ]

    def _prose_in(self, study: str, series: str) -> list[str]:
        """SOPInstanceUIDs of a series' reports in prose; dose and CAD reports are not fetched."""
        found = self._search("instances", study_instance_uid=study, series_instance_uid=series)
        prose = (_value(entry, _INSTANCE) for entry in found if _value(entry, _CLASS) in PROSE_REPORTS)
        return [instance for instance in prose if is_uid(instance)]

    def _fetch_report(self, study: str, series: str, instance: str, folder: Path) -> Path:
        path = folder / f"{instance}.dcm"
        with _in_a_sentence("retrieval of a report"), quiet():
            report = self.client.retrieve_instance(
                study, series, instance, media_types=(("application/dicom", "*"),)
            )
            if report.get("SOPInstanceUID") != instance:
                raise ServerError("The server sent an object that was not asked for.")
            report.save_as(path)
        return path

    def grew(self, series: ArrivedSeries) -> bool:
        now = next((one for one in self._series_of(series.study) if one.series == series.series), series)
        return now.instances > series.instances

    def put_back(self, series: ArrivedSeries) -> None:
        shutil.rmtree(self.folder / series.study, ignore_errors=True)

    discard = put_back

    # --- destination ----------------------------------------------------------------------------------------

    def deliver(self, files: Sequence[Path]) -> None:
        for path in files:
            result = pydicom.dcmread(path)
            if not self._has(result):
                self._store(result)
                # What the answer to the storage says of it has too many forms to rely on.
                if not self._has(result):
                    raise ServerError("The server does not have a result that it was given.")

    def _has(self, result: Dataset) -> bool:
        with _in_a_sentence("search for instances"):
            found = self.client.search_for_instances(
                study_instance_uid=result.StudyInstanceUID,
                search_filters={"SOPInstanceUID": result.SOPInstanceUID},
            )
        return bool(found)

    def _store(self, result: Dataset) -> None:
        with _in_a_sentence("storage of a result"):
            answer = self.client.store_instances([result], study_instance_uid=result.StudyInstanceUID)
            failed = answer.get("FailedSOPSequence") or []
        if failed:
            code = failed[0].get("FailureReason")
            named = "no reason" if code is None else f"reason {int(code):04X}"
            raise ServerError(f"The server did not store a result ({named}).")


def check_url(url: str, has_credentials: bool) -> None:
    """Refuse an address that does not work or would give credentials away, without quoting it.

    Raises:
        SettingError: always in one sentence.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingError(
            "url: give the address of the DICOMweb service, such as https://pacs.example/dicom-web."
        )
    if parts.username is not None or parts.password is not None or parts.query:
        raise SettingError(
            "url: user, password or token do not belong into the address; set BUNDLE_DICOMWEB_USER and "
            "BUNDLE_DICOMWEB_PASSWORD, or BUNDLE_DICOMWEB_TOKEN."
        )
    if has_credentials and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise SettingError("url: http would send the credentials unencrypted; give an https address.")


class BearerToken(requests.auth.AuthBase):
    """A token in the Authorization header, RFC 6750."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def credentials_from(environment: Mapping[str, str]) -> requests.auth.AuthBase | None:
    """User and password, or a token, from BUNDLE_DICOMWEB_USER, _PASSWORD and _TOKEN; None where none is set.

    Raises:
        SettingError: half a pair, or both kinds.
    """
    user, password, token = (
        environment.get(f"BUNDLE_DICOMWEB_{name}") for name in ("USER", "PASSWORD", "TOKEN")
    )
    if (user is None) != (password is None):
        raise SettingError("Set both BUNDLE_DICOMWEB_USER and BUNDLE_DICOMWEB_PASSWORD, or neither.")
    if token is not None and user is not None:
        raise SettingError("Set BUNDLE_DICOMWEB_TOKEN or BUNDLE_DICOMWEB_USER and _PASSWORD, not both.")
    if token is not None:
        return BearerToken(token)
    return None if user is None or password is None else requests.auth.HTTPBasicAuth(user, password)


def _session(ca: Path | None, credentials: requests.auth.AuthBase | None) -> requests.Session:
    session = requests.Session()
    # Proxies, certificates and passwords (.netrc) of the environment are not for patient data.
    session.trust_env = False
    session.max_redirects = 0
    session.auth = credentials
    session.verify = True if ca is None else str(ca)
    return session


@contextmanager
def _in_a_sentence(what: str) -> Iterator[None]:
    """Say what a server did not do without the library's words: they quote addresses, and what was searched for."""
    try:
        yield
    except ServerError:
        raise
    except requests.exceptions.SSLError:
        sentence = "The server's certificate cannot be verified; name its authority with the setting ca."
    except requests.exceptions.TooManyRedirects:
        sentence = "The server redirects to another address; give that one as url."
    except requests.exceptions.HTTPError as error:
        code = None if error.response is None else error.response.status_code
        asks = " Check BUNDLE_DICOMWEB_USER and _PASSWORD, or _TOKEN." if code in (401, 403) else ""
        sentence = f"The server answered {code} to the {what}.{asks}"
    except requests.exceptions.InvalidJSONError as error:
        sentence = _unreadable(what, error)
    except requests.exceptions.Timeout:
        sentence = f"The server did not answer the {what} in time."
    except requests.exceptions.RequestException:
        sentence = "The server cannot be reached."
    except OSError as error:
        sentence = f"The {what} failed ({error.strerror or type(error).__name__})."
    except Exception as error:  # parsers raise every kind for what is not what it should be
        sentence = _unreadable(what, error)
    else:
        return
    raise ServerError(sentence) from None


def _unreadable(what: str, error: Exception) -> str:
    return f"The server's answer to the {what} cannot be read ({type(error).__name__})."


def _value(entry: Mapping[str, Any], tag: str) -> str:
    """The first value of an attribute in the DICOM JSON model; empty where there is none."""
    values = entry.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _number(entry: Mapping[str, Any], tag: str) -> int | None:
    value = _value(entry, tag)
    return int(value) if value.isdecimal() else None
