#!/usr/bin/env bash
# Rebuild models/model.pt from the data.
# Usage: scripts/train_shipped_model.sh DATA_FOLDER WORK_FOLDER   (DATA_FOLDER holds ct_abdomen, ct_lung, ...)
# Started again with the same WORK_FOLDER it goes on where it stopped. About an hour on 2 cores.
set -euo pipefail
data=$1; work=$2
if [ ! -f "$work/phantoms/histology/datalist.json" ]; then
  python scripts/make_phantoms.py --output "$work/phantoms" --modality CT --count 40 --seed 1000
  python scripts/make_phantoms.py --output "$work/phantoms" --modality X-ray --count 80 --seed 1000
  python scripts/make_phantoms.py --output "$work/phantoms" --modality "H&E" --count 24 --seed 1000
fi
# No training volume shows an enlarged spleen.
python scripts/make_phantoms.py --output "$work/spleen16" --modality CT --count 12 --seed 2000 --spleen 1.6
python scripts/make_phantoms.py --output "$work/spleen23" --modality CT --count 12 --seed 2100 --spleen 2.3
# The abdominal volumes are cropped around their organs. Without slices from below, organs are found in the pelvis.
python scripts/organ_free_slices.py --image "$data/ct_abdomen_lowres/example_ct.nii.gz" --slices 0:58 \
  --like "$data/ct_abdomen/datalist.json" --output "$work/pelvis"
lists="'$data/ct_abdomen/datalist.json','$data/ct_lung/datalist.json','$data/xray_covid/datalist.json',\
'$data/histology_nuclei/datalist.json','$work/phantoms/ct/datalist.json','$work/phantoms/xray/datalist.json',\
'$work/phantoms/histology/datalist.json'"
train() {  # FOLDER, then overrides
  python -m monai.bundle run --config_file configs/train.yaml --output_dir "$work/$1" \
    --validation_datalist "$data/ct_abdomen/datalist.json" "${@:2}"
}
shares="[0.42,0.04,0.15,0.12,0.17,0.05,0.05]"
# Class weights find the rare organs early but overdraw all of them; what follows puts that right.
train first --datalist "[$lists]" --datalist_shares "$shares" --images_per_epoch 3200 --seed 0 \
  --schedule_epochs 12 --epochs 6 --use_class_weights True --rare_class_share 1.0
train first --datalist "[$lists]" --datalist_shares "$shares" --images_per_epoch 3200 --seed 0 \
  --schedule_epochs 12 --epochs 10
train second --datalist "[$lists,'$work/pelvis/datalist.json']" --images_per_epoch 2400 --seed 1 \
  --datalist_shares "[0.38,0.04,0.14,0.10,0.12,0.03,0.03,0.16]" --initial_weights "$work/first/latest.pt" \
  --learning_rate 0.0003 --warmup_steps 20 --schedule_epochs 5 --epochs 2
train third --datalist "[$lists,'$work/pelvis/datalist.json']" --images_per_epoch 2400 --seed 2 \
  --datalist_shares "[0.56,0.04,0.07,0.06,0.12,0.02,0.02,0.11]" --initial_weights "$work/second/latest.pt" \
  --learning_rate 0.0005 --warmup_steps 20 --schedule_epochs 6 --epochs 3 --ct_augmentation 1.4
train fourth --images_per_epoch 2400 --seed 3 --initial_weights "$work/third/latest.pt" \
  --datalist "[$lists,'$work/pelvis/datalist.json','$work/spleen16/ct/datalist.json','$work/spleen23/ct/datalist.json']" \
  --datalist_shares "[0.54,0.03,0.06,0.05,0.06,0.01,0.01,0.10,0.06,0.08]" \
  --learning_rate 0.0005 --warmup_steps 20 --schedule_epochs 5 --epochs 3 --ct_augmentation 1.4
python scripts/export_weights.py "$work/fourth/model.pt" models/model.pt
