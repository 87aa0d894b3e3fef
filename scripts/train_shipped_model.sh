#!/usr/bin/env bash
# Rebuild models/model.pt from the data.
# Usage: scripts/train_shipped_model.sh DATA_FOLDER WORK_FOLDER [PROCESSES]
# DATA_FOLDER holds ct_abdomen, ct_lung, ...; PROCESSES is the number of GPUs, or of CPU cores (2), one thread each.
# Started again with the same WORK_FOLDER it goes on where it stopped.
set -euo pipefail
data=$1; work=$2; processes=${3:-2}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
lists() { local joined; printf -v joined "'%s'," "$@"; echo "[${joined%,}]"; }

if [ ! -f "$work/phantoms/histology/datalist.json" ]; then
  python scripts/make_phantoms.py --output "$work/phantoms" --modality CT --count 40 --seed 1000
  python scripts/make_phantoms.py --output "$work/phantoms" --modality X-ray --count 80 --seed 1000
  python scripts/make_phantoms.py --output "$work/phantoms" --modality "H&E" --count 24 --seed 1000
  # No training volume shows an enlarged spleen.
  python scripts/make_phantoms.py --output "$work/spleen16" --modality CT --count 12 --seed 2000 --spleen 1.6
  python scripts/make_phantoms.py --output "$work/spleen23" --modality CT --count 12 --seed 2100 --spleen 2.3
  # The abdominal volumes are cropped around their organs. Without slices from below, organs are found in the pelvis.
  python scripts/organ_free_slices.py --image "$data/ct_abdomen_lowres/example_ct.nii.gz" --slices 0:58 \
    --like "$data/ct_abdomen/datalist.json" --output "$work/pelvis"
fi

# 1. Words, without images: minutes.
if [ ! -f "$work/naming/model.pt" ]; then
  python -m monai.bundle run --config_file "['configs/inference.yaml','configs/train.yaml','configs/train_naming.yaml']" \
    --datalist "$(lists "$data/xray_covid/datalist.json" "$data/histology_nuclei/datalist.json")" \
    --output_dir "$work/naming" --naming_steps 1500
fi

# 2. to 5. Images of all modalities with their prompts; nothing is validated or chosen, the last averaged weights are
# taken. Each further pass starts from the weights of the one before with a learning rate that rises again. H&E is
# shown at 20x first, where a crop shows nearly twice as much at less than half the cost, and then at 40x.
images() {  # OUTPUT WEIGHTS SHARES, and more options
  local output=$1 weights=$2 shares=$3; shift 3
  python -m torch.distributed.run --nproc_per_node="$processes" -m monai.bundle run \
    --config_file "['configs/inference.yaml','configs/train.yaml','configs/multi_gpu_train.yaml']" \
    --initial_weights "$weights" --frozen_parts "['text_prior','naming']" \
    --datalist "$(lists "$data/ct_abdomen/datalist.json" "$data/ct_lung/datalist.json" \
      "$data/xray_covid/datalist.json" "$data/histology_nuclei/datalist.json" "$work/phantoms/ct/datalist.json" \
      "$work/phantoms/xray/datalist.json" "$work/phantoms/histology/datalist.json" "$work/pelvis/datalist.json" \
      "$work/spleen16/ct/datalist.json" "$work/spleen23/ct/datalist.json")" \
    --datalist_shares "$shares" --prompt_shares "{'silent':0.3,'own':0.65,'reworded':0.2,'foreign':0.05}" \
    --mirrored_xrays 0.5 --pure_noise_share 0.4 --batch_size 16 --images_per_epoch 6400 \
    --validation_datalist "$data/ct_abdomen/datalist.json" --val_interval 1000 --num_workers 0 \
    --output_dir "$output" "$@"
  python scripts/export_weights.py "$output/latest.pt" "$output/weights.pt"
}
at20x=(--histology#zoom 0.5 --image_size 128)
images "$work/images" "$work/naming/model.pt" "[0.24,0.04,0.48,0.11,0.04,0.01,0.01,0.03,0.02,0.02]" \
  --epochs 32 --schedule_epochs 32 --learning_rate 0.001 --warmup_steps 200 --ct_augmentation 1.2 --drop_path 0.05 \
  "${at20x[@]}" --seed 0
images "$work/longer" "$work/images/weights.pt" "[0.22,0.06,0.51,0.14,0.02,0.005,0.005,0.02,0.01,0.01]" \
  --epochs 38 --schedule_epochs 38 --learning_rate 0.0008 --warmup_steps 200 --ct_augmentation 1.4 --drop_path 0.1 \
  "${at20x[@]}" --seed 1
images "$work/at40x" "$work/longer/weights.pt" "[0.21,0.03,0.45,0.25,0.01,0.005,0.005,0.02,0.01,0.01]" \
  --epochs 7 --schedule_epochs 10 --learning_rate 0.0005 --warmup_steps 100 --ct_augmentation 1.4 --drop_path 0.1 \
  --seed 2
images "$work/nuclei" "$work/at40x/weights.pt" "[0.19,0.04,0.34,0.38,0.01,0.005,0.005,0.02,0.005,0.005]" \
  --epochs 8 --schedule_epochs 8 --learning_rate 0.0005 --warmup_steps 50 --ct_augmentation 1.4 --drop_path 0.1 \
  --seed 3
cp "$work/nuclei/weights.pt" models/model.pt
