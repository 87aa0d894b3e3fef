#!/usr/bin/env bash
# Our network and the papers' configurations on the same X-rays and texts, with about the same time. Nothing is chosen on
# any list: the weights at the end are evaluated.
# Usage: scripts/compare_with_papers.sh XRAY_FOLDER OUTPUT_FOLDER [SEEDS] [NETWORKS]   (XRAY_FOLDER holds datalist.json)
# Finished parts are left as they are, unfinished ones go on: it can be stopped and started at will.
set -euo pipefail
xray=$1; output=$2; seeds=${3:-"0"}; networks=${4:-"ours ours-pretrained medconddiff lcpdn fasttextdiff"}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# How many images each is shown was measured: what 25 minutes of one core allow (about 20, 8, 2.2 and 2.2 a second). Ours
# begins with random weights but for the words, which take some of its minutes; LCPDN and FastTextDiff have frozen encoders,
# which learnt from the same images without labels and texts before (models/README.md), as has the image prior of
# ours-pretrained.
options() {  # of a network: its configuration, what is set apart in it, and how it is trained
  common=(); training=()
  case $1 in
    ours|ours-pretrained)
      config=
      training=(--initial_weights "$output/naming-$1-$2/model.pt" --frozen_parts "['text_prior','naming']"
        --prompt_shares "{'silent':0.3,'own':0.65,'reworded':0.2,'foreign':0.05}" --mirrored_xrays 0.5
        --pure_noise_share 0.4 --learning_rate 0.001 --images_per_epoch 6400 --epochs 4 --schedule_epochs 4) ;;
    medconddiff)  # the published network, on smaller pictures
      config=medconddiff
      common=(--xray#size 128 --image_size 128 --schedule_shift 0.0)
      training=(--batch_size 8 --images_per_epoch 3000 --epochs 4 --schedule_epochs 4) ;;
    lcpdn|fasttextdiff)
      config=$1
      training=(--images_per_epoch 800 --epochs 4 --schedule_epochs 4) ;;
    *) echo "unknown network $1" >&2; exit 2 ;;
  esac
}
files() { echo "['configs/inference.yaml','configs/$1.yaml','configs/data_xray_covid.yaml'${config:+,'configs/$config.yaml'}]"; }

prepare() {  # NETWORK SEED: words, and before them what is behind hidden squares of the images
  [ -f "$output/naming-$1-$2/model.pt" ] && return
  local pretrained=()
  if [ "$1" = ours-pretrained ]; then
    pretrained=(--pretrained_image_prior "$output/pretraining/image_prior")
    [ -d "$output/pretraining/image_prior" ] || python -m monai.bundle run --datalist "$xray/datalist.json" \
      --config_file "['configs/inference.yaml','configs/train.yaml','configs/pretrain_image_ddpm.yaml','configs/pretrain_image_prior.yaml']" \
      --output_dir "$output/pretraining" --num_workers 0 --epochs 12 --schedule_epochs 12
  fi
  python -m monai.bundle run \
    --config_file "['configs/inference.yaml','configs/train.yaml','configs/data_xray_covid.yaml','configs/train_naming.yaml']" \
    --datalist "$xray/datalist.json" --output_dir "$output/naming-$1-$2" --seed "$2" --naming_steps 1500 \
    ${pretrained[@]+"${pretrained[@]}"}
}

for seed in $seeds; do
  for network in $networks; do
    options "$network" "$seed"
    run=$output/$network-$seed
    [ -f "$run/test/summary.json" ] && continue
    case $network in ours*) prepare "$network" "$seed" ;; esac
    python -m monai.bundle run --config_file "$(files train)" --datalist "$xray/datalist.json" \
      --output_dir "$run" --seed "$seed" --val_interval 1000 --num_workers 0 \
      ${common[@]+"${common[@]}"} "${training[@]}"
    python -m monai.bundle run --config_file "$(files evaluate)" --datalist "$xray/datalist.json" --split test \
      --output_dir "$run/test" --weights "$run/latest.pt" ${common[@]+"${common[@]}"}
  done
done
