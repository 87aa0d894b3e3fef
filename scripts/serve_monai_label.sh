#!/usr/bin/env bash
# Serve the bundle with MONAI Label, on this machine alone.
# Usage: scripts/serve_monai_label.sh STUDIES [PORT], or with --setup for the environment alone
#   STUDIES        folder of images, or address of a DICOMweb server
#   PYTHON         Python 3.11 that .venv-label is made with, where it is not there yet
#   TRAINERS=no    offer no training
#   LABEL_HOME     folder of logs, sessions and trainings (.label)
#   LABEL_MAX_MB   megabytes that a request may have (2048); a ZIP may unpack to four times as much
#   LABEL_HOSTS    further names of the server, with commas, where a proxy in front of it keeps them
set -euo pipefail
fail() { echo "error: $1" >&2; exit 2; }
studies=${1:-} port=${2:-8000}
if [ "$studies" != --setup ]; then
  [ -n "$studies" ] || fail "no studies were named; give a folder of images or the address of a DICOMweb server, as in make label STUDIES=dir."
  case $studies in
    http://* | https://*) ;;
    *) [ -d "$studies" ] || fail "$studies: no such folder; name one with images."
       [ -w "$studies" ] || fail "$studies: cannot be written, and MONAI Label keeps its list of images and the masks there; give a copy."
       studies=$(cd "$studies" && pwd) ;;
  esac
  [[ $port =~ ^[0-9]+$ ]] && ((port > 0 && port < 65536)) || fail "PORT is $port; give a number from 1 to 65535."
fi
[[ ${LABEL_MAX_MB:-2048} =~ ^[1-9][0-9]*$ ]] || fail "LABEL_MAX_MB is $LABEL_MAX_MB; give a whole number of megabytes."
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
[ "$studies" = --setup ] || [ -f models/model.pt ] || fail "models/model.pt: no such file; MONAI Label serves these weights."

environment=$root/.venv-label
if ! cmp --silent requirements/label.txt "$environment/.installed"; then
  python=
  for one in "${PYTHON:-}" python3.11 python3; do
    [ -n "$one" ] && "$one" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && python=$one && break
  done
  [ -n "$python" ] || fail "MONAI Label's environment needs Python 3.11; name one with PYTHON=."
  echo "setting up $environment (once) ..."
  [ -x "$environment/bin/python" ] || "$python" -m venv "$environment" || fail "$environment: could not be made."
  # complete, and without the dependencies that requirements/label.overrides names
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/label.txt ||
    fail "the packages of requirements/label.txt could not be installed; check the connection and start again."
  cp requirements/label.txt "$environment/.installed"
fi
[ "$studies" != --setup ] || exit 0

home=${LABEL_HOME:-$root/.label}
application=$home/apps/monaibundle
mkdir -p "$application/model" "$home/sessions" "$home/dicom"
# of its own, since files that lie there count as uploaded
mkdir -p -m 700 "$home/temporary"
ln -sfn "$root" "$application/model/text_prior_diffusion_segmentation"
echo 'from bundle.serving.label.app import LabelApp  # noqa: F401' > "$application/main.py"
"$environment/bin/python" -c "import socket; socket.socket().bind(('127.0.0.1', $port))" 2>/dev/null ||
  fail "port $port is in use; give another with PORT=."

skip=false
[ "${TRAINERS:-yes}" = yes ] || skip=true
export PATH=$environment/bin:$PATH PYTHONPATH=$root HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
export TMPDIR=$home/temporary
export MONAI_LABEL_SESSION_PATH=$home/sessions MONAI_LABEL_DICOMWEB_CACHE_PATH=$home/dicom
# A DICOM series is read by the bundle, which refuses what it cannot read right, and not converted before.
export MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI=false MONAI_LABEL_TRACKING_ENABLED=false
export MONAI_LABEL_DATASTORE_FILE_EXT='["*.nii.gz","*.nii","*.nrrd","*.mha","*.png","*.jpg","*.jpeg","*.tif","*.tiff","*.webp","*.svs","*.ndpi","*.scn","*.bif","*.mrxs","*.svslide"]'
echo "MONAI Label: http://127.0.0.1:$port (ready when it says 'Application startup complete'; Ctrl-C stops it)"
exec "$environment/bin/python" -m monailabel.main start_server --app "$application" --studies "$studies" \
  --host 127.0.0.1 --port "$port" --uvicorn_app bundle.serving.label.server:app \
  --conf models text_prior_diffusion_segmentation --conf zoo_source ngc --conf sam2 false --conf skip_trainers "$skip"
