#!/usr/bin/env bash
# Fusion ablation of MedCondDiff at a small size and an equal budget: additive, concatenation and no prior.
# Usage: scripts/ablation.sh DATA_FOLDER OUTPUT_FOLDER [SEEDS] [IMAGES]   (DATA_FOLDER holds datalist.json)
# IMAGES is the budget of each training, 16 of them a step.
# Finished parts are left as they are, unfinished ones go on: it can be stopped and started at will.
set -euo pipefail
data=$1; output=$2; seeds=${3:-"0 1 2"}; images=${4:-24000}
small=(--image_prior b0 --denoiser_width 64 --upsample_widths "[32,16]" --ct#in_plane_size 128
       --schedule_shift -1.386)
for seed in $seeds; do
  for fusion in additive concatenation none; do
    run=$output/$fusion-$seed
    [ -f "$run/evaluation/summary.json" ] && continue
    python -m monai.bundle run \
      --config_file "['configs/inference.yaml','configs/train.yaml','configs/data_ct_abdomen.yaml','configs/medconddiff.yaml']" \
      --datalist "$data/datalist.json" --output_dir "$run" --fusion "$fusion" --seed "$seed" "${small[@]}" \
      --image_size 128 --batch_size 16 --learning_rate 0.001 --warmup_steps 20 --average_decay 0.99 \
      --epochs 1 --schedule_epochs 1 --images_per_epoch "$images" --val_interval 100
    python -m monai.bundle run \
      --config_file "['configs/inference.yaml','configs/evaluate.yaml','configs/data_ct_abdomen.yaml','configs/medconddiff.yaml']" \
      --datalist "$data/datalist.json" --split validation --output_dir "$run/evaluation" \
      --weights "$run/latest.pt" --fusion "$fusion" "${small[@]}" --batch_size 16
  done
done
