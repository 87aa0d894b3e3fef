"""The DICOMweb client against a server that says what a test wants: what is taken, what is refused, what is said."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import traceback
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pydicom
import pytest

from bundle.serving.pacs.dicomweb import DicomWebServer, check_url, credentials_from
from bundle.serving.pacs.exchange import ArrivedSeries, ServerError, SettingError
from tests.support.pacs_node import phantom_series, study_report

SECRETS = ("nurse", "s3cret-pw", "t0ken-abc")
STUDY, SERIES = "1.2.3", "1.2.3.4"


class Stub:
    """An HTTP server that answers by path, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.arrives: dict[str, str] = {}  # path of a POST -> where one instance is found then
        self.asked: list[tuple[str, str, dict[str, list[str]], dict[str, str]]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = parse_qs(parts.query)
                stub.asked.append((self.command, parts.path, query, dict(self.headers)))
                status, headers, body = stub.answers.get(parts.path, (404, {}, b""))
                if query.get("offset", ["0"]) != ["0"]:
                    status, headers, body = 200, {"Content-Type": "application/dicom+json"}, b"[]"
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                if self.path in stub.arrives:
                    stub.json(stub.arrives[self.path], {"00080018": "1.2.3.4.5"})
                self.do_GET()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/dicom-web"

    def json(self, path: str, *entries: dict[str, Any]) -> None:
        content = [{tag: {"vr": "UI", "Value": [value]} for tag, value in entry.items()} for entry in entries]
        headers = {"Content-Type": "application/dicom+json"}
        self.answers[f"/dicom-web{path}"] = 200, headers, json.dumps(content).encode()

    def series(self, *datasets: Any, path: str = f"/studies/{STUDY}/series/{SERIES}") -> None:
        """The objects of a series, or of what else is at `path`, as WADO-RS sends them."""
        body = b""
        for dataset in datasets:
            content = BytesIO()
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            pydicom.dcmwrite(content, dataset, enforce_file_format=True)
            body += b"\r\n--xx\r\nContent-Type: application/dicom\r\n\r\n" + content.getvalue()
        body += b"\r\n--xx--"
        headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=xx'}
        self.answers[f"/dicom-web{path}"] = 200, headers, body


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


def server(stub: Stub, tmp_path: Path, **options: Any) -> DicomWebServer:
    return DicomWebServer(stub.url, tmp_path / "fetched", ("CT", "DX"), **options)


def slices(count: int) -> list[Any]:
    found = phantom_series().slices[:count]
    for dataset in found:
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    return found


# --- what is taken ---------------------------------------------------------------------------------------


def test_only_series_of_the_modalities_are_taken(stub: Stub, tmp_path: Path) -> None:
    stub.json("/studies", {"0020000D": STUDY, "00201208": 12}, {"0020000D": "../../etc", "00201208": 1})
    stub.json(
        f"/studies/{STUDY}/series",
        {"0020000E": SERIES, "00080060": "CT", "00201209": 9},
        {"0020000E": "1.2.3.5", "00080060": "SEG", "00201209": 1},
        {"0020000E": "1.2.3.6", "00080060": "SR", "00201209": 1},
        {"0020000E": "1.2/../3", "00080060": "CT", "00201209": 1},
        {"0020000E": "1.2.3.7", "00080060": "DX"},
    )
    stub.json(f"/studies/{STUDY}/series/1.2.3.7/instances", {"00080018": "1"}, {"00080018": "2"})
    source = server(stub, tmp_path)
    expected = [ArrivedSeries(STUDY, SERIES, 9), ArrivedSeries(STUDY, "1.2.3.7", 2)]
    assert source.studies() == {STUDY: expected}
    # a study that did not change is not asked for its series again
    asked = len(stub.asked)
    assert source.studies() == {STUDY: expected}
    assert not any(path.endswith("/series") for _, path, _, _ in stub.asked[asked:])


def test_the_query_reaches_the_server(stub: Stub, tmp_path: Path) -> None:
    stub.json("/studies")
    source = server(
        stub, tmp_path, query={"StudyDescription": "*ABDOMEN*"}, days=3, today=lambda: date(2024, 3, 2)
    )
    assert source.studies() == {}
    [(_, _, query, _), *_] = stub.asked
    assert query["StudyDescription"] == ["*ABDOMEN*"] and query["StudyDate"] == ["20240228-"]


def test_reports_in_prose_are_fetched_where_they_are_asked_for(stub: Stub, tmp_path: Path) -> None:
    report = study_report(STUDY, "Liver enlarged.")
    reports, instance = f"/studies/{STUDY}/series/1.2.3.6", str(report.SOPInstanceUID)
    stub.json(
        f"/studies/{STUDY}/series",
        {"0020000E": "1.2.3.6", "00080060": "SR"},
        {"0020000E": SERIES, "00080060": "CT"},  # of a server that does not filter
        {"0020000E": "../6", "00080060": "SR"},
    )
    stub.json(
        f"{reports}/instances",
        {"00080016": report.SOPClassUID, "00080018": instance},
        {"00080016": "1.2.840.10008.5.1.4.1.1.88.67", "00080018": "1.2.3.6.2"},  # a dose report
        {"00080016": report.SOPClassUID, "00080018": "../../7"},
    )
    stub.series(report, path=f"{reports}/instances/{instance}")
    assert server(stub, tmp_path).reports(STUDY) == [] and stub.asked == []
    source = server(stub, tmp_path, with_reports=True)
    [path] = source.reports(STUDY)
    assert pydicom.dcmread(path) == report and path.is_relative_to(tmp_path / "fetched")
    source.discard(ArrivedSeries(STUDY, SERIES, 1))
    assert not path.exists()

    other = study_report(STUDY, "Spleen enlarged.")
    stub.series(other, path=f"{reports}/instances/{instance}")
    with pytest.raises(ServerError, match="not asked for"):
        source.reports(STUDY)
    del stub.answers[f"/dicom-web{reports}/instances/{instance}"]
    with pytest.raises(ServerError, match="answered 404 to the retrieval of a report"):
        source.reports(STUDY)


def test_a_series_is_fetched_as_it_is(stub: Stub, tmp_path: Path) -> None:
    sent = slices(3)
    stub.series(*sent)
    folder = server(stub, tmp_path).fetch(ArrivedSeries(STUDY, SERIES, 3))
    fetched = {path.stem: pydicom.dcmread(path) for path in folder.iterdir()}
    assert len(fetched) == 3
    for dataset in sent:
        assert fetched[dataset.SOPInstanceUID] == dataset
        assert fetched[dataset.SOPInstanceUID].PixelData == dataset.PixelData


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda sent: sent.pop(), "sent 2 of 3 instances"),
        (lambda sent: setattr(sent[1], "SeriesInstanceUID", "1.9"), "was not asked for"),
        (lambda sent: setattr(sent[1], "SOPInstanceUID", "../../../escaped"), "was not asked for"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_was_not_asked_for_or_is_not_all_is_refused(
    stub: Stub, tmp_path: Path, change: Any, sentence: str
) -> None:
    sent = slices(3)
    change(sent)
    stub.series(*sent)
    with pytest.raises(ServerError, match=sentence):
        server(stub, tmp_path).fetch(ArrivedSeries(STUDY, SERIES, 3))
    assert not list(tmp_path.rglob("*escaped*"))


def test_what_is_no_dicom_is_refused(stub: Stub, tmp_path: Path) -> None:
    stub.series(*slices(2))
    path = f"/dicom-web/studies/{STUDY}/series/{SERIES}"
    status, headers, body = stub.answers[path]
    stub.answers[path] = status, headers, body.replace(b"DICM", b"NONE")
    with pytest.raises(ServerError, match="cannot be read"):
        server(stub, tmp_path).fetch(ArrivedSeries(STUDY, SERIES, 2))
    stub.answers["/dicom-web/studies"] = 200, {"Content-Type": "text/html"}, b"<html>Sorrow^Jane</html>"
    with pytest.raises(ServerError, match="cannot be read") as caught:
        server(stub, tmp_path).studies()
    assert "Sorrow" not in "".join(traceback.format_exception(caught.value))


# --- storing ---------------------------------------------------------------------------------------------


def result(folder: Path) -> Path:
    dataset = slices(1)[0]
    dataset.SOPInstanceUID = "1.2.3.4.5"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(folder / "seg.dcm", enforce_file_format=True)
    return folder / "seg.dcm"


def test_what_the_server_has_is_not_stored_again(stub: Stub, tmp_path: Path) -> None:
    path = result(tmp_path)
    stub.json(f"/studies/{STUDY}/instances", {"00080018": "1.2.3.4.5"})
    server(stub, tmp_path).deliver([path])
    [(_, _, query, _)] = stub.asked
    assert query["SOPInstanceUID"] == ["1.2.3.4.5"]
    # to a server that says nothing of what it did with it, and one that has it then
    stub.json(f"/studies/{STUDY}/instances")
    stub.answers[f"/dicom-web/studies/{STUDY}"] = 200, {}, b""
    with pytest.raises(ServerError, match="does not have a result that it was given"):
        server(stub, tmp_path).deliver([path])
    stub.arrives[f"/dicom-web/studies/{STUDY}"] = f"/studies/{STUDY}/instances"
    server(stub, tmp_path).deliver([path])
    assert [method for method, *_ in stub.asked].count("POST") == 2


def test_an_object_that_is_refused_is_an_error(stub: Stub, tmp_path: Path) -> None:
    stub.json(f"/studies/{STUDY}/instances")
    failed = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0xA700]}}]}}
    headers = {"Content-Type": "application/dicom+json"}
    stub.answers[f"/dicom-web/studies/{STUDY}"] = 202, headers, json.dumps(failed).encode()
    with pytest.raises(ServerError, match=r"did not store a result \(reason A700\)"):
        server(stub, tmp_path).deliver([result(tmp_path)])


# --- credentials -----------------------------------------------------------------------------------------


def said_by(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize(
    ("environment", "header"),
    [
        (
            {"BUNDLE_DICOMWEB_USER": "nurse", "BUNDLE_DICOMWEB_PASSWORD": "s3cret-pw"},
            "Basic bnVyc2U6czNjcmV0LXB3",
        ),
        ({"BUNDLE_DICOMWEB_TOKEN": "t0ken-abc"}, "Bearer t0ken-abc"),
    ],
)
@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_credentials_are_sent_and_never_said(
    stub: Stub, tmp_path: Path, environment: dict[str, str], header: str, status: int
) -> None:
    stub.answers["/dicom-web/studies"] = status, {}, b"s3cret-pw t0ken-abc"
    source = server(
        stub, tmp_path, credentials=credentials_from(environment), query={"PatientID": "HX-48151"}
    )
    with pytest.raises(ServerError, match=f"answered {status} to the search for studies") as caught:
        source.studies()
    assert stub.asked[0][3]["Authorization"] == header
    assert not any(secret in said_by(caught.value) for secret in (*SECRETS, "HX-48151", "bnVyc2U6"))


def test_half_a_pair_of_credentials_is_refused() -> None:
    assert credentials_from({}) is None
    for environment in (
        {"BUNDLE_DICOMWEB_USER": "nurse"},
        {"BUNDLE_DICOMWEB_PASSWORD": "s3cret-pw"},
        {
            "BUNDLE_DICOMWEB_USER": "nurse",
            "BUNDLE_DICOMWEB_PASSWORD": "s3cret-pw",
            "BUNDLE_DICOMWEB_TOKEN": "t0ken-abc",
        },
    ):
        with pytest.raises(SettingError, match="BUNDLE_DICOMWEB_USER") as caught:
            credentials_from(environment)
        assert not any(secret in said_by(caught.value) for secret in SECRETS)


@pytest.mark.parametrize(
    ("url", "has_credentials"),
    [
        ("http://nurse:s3cret-pw@127.0.0.1/dicom-web", False),
        ("https://pacs.example/dicom-web?token=t0ken-abc", False),
        ("http://pacs.example/dicom-web", True),
        ("ftp://pacs.example", False),
        ("pacs.example", False),
        ("", False),
    ],
)
def test_addresses_that_would_give_credentials_away_are_refused(url: str, has_credentials: bool) -> None:
    with pytest.raises(SettingError, match="url: ") as caught:
        check_url(url, has_credentials)
    assert not any(secret in str(caught.value) for secret in SECRETS)


def test_the_environment_sends_nothing_elsewhere(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login nurse password s3cret-pw\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    stub.json("/studies")
    assert server(stub, tmp_path).studies() == {}
    assert "Authorization" not in stub.asked[0][3]


def test_a_redirection_is_not_followed(stub: Stub, tmp_path: Path) -> None:
    stub.answers["/dicom-web/studies"] = 302, {"Location": f"{stub.url}/elsewhere"}, b""
    stub.json("/elsewhere")
    with pytest.raises(ServerError, match="redirects"):
        server(stub, tmp_path).studies()
    assert all(path == "/dicom-web/studies" for _, path, _, _ in stub.asked)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    source = DicomWebServer("http://127.0.0.1:1/dicom-web", tmp_path / "fetched", ("CT",))
    with pytest.raises(ServerError, match="cannot be reached"):
        source.studies()


# --- TLS -------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path, openssl: str) -> Path:
    """Certificate of 127.0.0.1 and its key, in one file."""
    files = {name: tmp_path / f"{name}.pem" for name in ("key", "certificate")}
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    output = ["-keyout", str(files["key"]), "-out", str(files["certificate"])]
    subprocess.run([openssl, *request, *names, *output], check=True, capture_output=True)
    (tmp_path / "both.pem").write_text(files["key"].read_text() + files["certificate"].read_text())
    return tmp_path / "both.pem"


def test_a_certificate_is_checked(stub: Stub, tmp_path: Path, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    stub.server.socket = context.wrap_socket(stub.server.socket, server_side=True)
    stub.json("/studies")
    url = stub.url.replace("http:", "https:")
    with pytest.raises(
        ServerError, match="certificate cannot be verified; name its authority with the setting ca"
    ):
        DicomWebServer(url, tmp_path / "fetched", ("CT",)).studies()
    assert not stub.asked
    trusting = DicomWebServer(url, tmp_path / "fetched", ("CT",), ca=tmp_path / "certificate.pem")
    assert trusting.studies() == {}
