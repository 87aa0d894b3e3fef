#!/usr/bin/env bash
# Label-efficient protocol: LCPDN, its ablation, TextDiff and FastTextDiff on 150 X-rays and on 5 slides.
# Usage: scripts/low_data.sh XRAY_FOLDER HISTOLOGY_FOLDER OUTPUT_FOLDER [SEEDS] [NETWORKS]
# The folders hold datalist.json. The weights of the last epoch are evaluated: nothing is chosen on any list.
# Finished parts are left as they are, unfinished ones go on: it can be stopped and started at will.
set -euo pipefail
xray=$1; histology=$2; output=$3; seeds=${4:-"0 1 2"}
networks=${5:-"lcpdn textdiff fasttextdiff lcpdn-no-prompt lcpdn-cross-attention lcpdn-neither"}

options() {  # of a network: its configuration and what is set apart from it
  case $1 in
    lcpdn) config=lcpdn; set_apart=() ;;
    lcpdn-no-prompt) config=lcpdn; set_apart=(--prompt_block False) ;;
    lcpdn-cross-attention) config=lcpdn; set_apart=(--text_fusion cross_attention) ;;
    lcpdn-neither) config=lcpdn; set_apart=(--prompt_block False --text_fusion cross_attention) ;;
    fasttextdiff) config=fasttextdiff; set_apart=() ;;
    textdiff) config=fasttextdiff; set_apart=(--text_encoder models/text_prior_bert) ;;
    *) echo "unknown network $1" >&2; exit 2 ;;
  esac
}

train() {  # SET FOLDER RUN SEED, and more options
  local set=$1 folder=$2 run=$3 seed=$4; shift 4
  python -m monai.bundle run --config_file "['configs/train.yaml','configs/data_$set.yaml','configs/$config.yaml']" \
    --datalist "$folder/datalist.json" --split few_shot_training --output_dir "$run" --seed "$seed" \
    --val_interval 1000 "${set_apart[@]}" "$@"
}

evaluate() {  # SET FOLDER RUN LIST
  [ -f "$3/$4/summary.json" ] && return
  python -m monai.bundle run --config_file "['configs/evaluate.yaml','configs/data_$1.yaml','configs/$config.yaml']" \
    --datalist "$2/datalist.json" --split "$4" --output_dir "$3/$4" --weights "$3/latest.pt" "${set_apart[@]}"
}

for seed in $seeds; do
  for network in $networks; do
    options "$network"
    run=$output/xray-$network-$seed
    if ! [ -f "$run/few_shot_test/summary.json" ]; then
      train xray_covid "$xray" "$run" "$seed"
      evaluate xray_covid "$xray" "$run" test
      evaluate xray_covid "$xray" "$run" few_shot_test
    fi
  done
  for network in $networks; do
    case $network in lcpdn-*) continue ;; esac
    options "$network"
    run=$output/histology-$network-$seed
    if ! [ -f "$run/validation/summary.json" ]; then
      train histology_nuclei "$histology" "$run" "$seed" --vary_images True --images_per_epoch 40
      evaluate histology_nuclei "$histology" "$run" validation
    fi
  done
done
