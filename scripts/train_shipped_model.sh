#!/usr/bin/env bash
# Rebuild models/model.pt from the data.
# Usage: scripts/train_shipped_model.sh DATA_FOLDER WORK_FOLDER   (DATA_FOLDER holds ct_abdomen, ct_lung, ...)
# Started again with the same WORK_FOLDER it goes on where it stopped. About 45 minutes on 2 cores.
set -euo pipefail
data=$1; work=$2
if [ ! -f "$work/phantoms/histology/datalist.json" ]; then
  python scripts/make_phantoms.py --output "$work/phantoms" --modality CT --count 40 --seed 1000
  python scripts/make_phantoms.py --output "$work/phantoms" --modality X-ray --count 80 --seed 1000
  python scripts/make_phantoms.py --output "$work/phantoms" --modality "H&E" --count 24 --seed 1000
fi
lists="['$data/ct_abdomen/datalist.json','$data/ct_lung/datalist.json','$data/xray_covid/datalist.json',\
'$data/histology_nuclei/datalist.json','$work/phantoms/ct/datalist.json','$work/phantoms/xray/datalist.json',\
'$work/phantoms/histology/datalist.json']"
train() {
  python -m monai.bundle run --config_file configs/train.yaml --datalist "$lists" \
    --datalist_shares "[0.42,0.04,0.15,0.12,0.17,0.05,0.05]" \
    --validation_datalist "$data/ct_abdomen/datalist.json" \
    --output_dir "$work/training" --images_per_epoch 3200 --seed 0 --schedule_epochs 12 "$@"
}
# Class weights find the rare organs early but overdraw all of them; the second half puts that right.
train --epochs 6 --use_class_weights true --rare_class_share 1.0
train --epochs 12
python scripts/export_weights.py "$work/training/model.pt" models/model.pt
