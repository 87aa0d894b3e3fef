#!/usr/bin/env bash
# Label-efficient protocol: our network, LCPDN, its ablation, TextDiff and FastTextDiff on 150 X-rays and on 5 slides.
# Usage: scripts/low_data.sh XRAY_FOLDER HISTOLOGY_FOLDER OUTPUT_FOLDER [SEEDS] [NETWORKS]
# The folders hold datalist.json. The weights of the last epoch are evaluated: nothing is chosen on any list.
# Finished parts are left as they are, unfinished ones go on: it can be stopped and started at will.
set -euo pipefail
xray=$1; histology=$2; output=$3; seeds=${4:-"0 1 2"}
networks=${5:-"ours lcpdn textdiff fasttextdiff lcpdn-no-prompt lcpdn-cross-attention lcpdn-neither"}

# by our network slides are segmented twice, and their stain has a say in where nuclei end
slides=(--histology#mirrored True --histology#stain_borders True)

options() {  # of a network: its configuration and what is set apart from it
  case $1 in
    ours) config=; set_apart=() ;;
    lcpdn) config=lcpdn; set_apart=() ;;
    lcpdn-no-prompt) config=lcpdn; set_apart=(--prompt_block False) ;;
    lcpdn-cross-attention) config=lcpdn; set_apart=(--text_fusion cross_attention) ;;
    lcpdn-neither) config=lcpdn; set_apart=(--prompt_block False --text_fusion cross_attention) ;;
    fasttextdiff) config=fasttextdiff; set_apart=() ;;
    textdiff) config=fasttextdiff; set_apart=(--text_encoder models/text_prior_bert) ;;
    *) echo "unknown network $1" >&2; exit 2 ;;
  esac
}

files() {  # WORKFLOW SET
  echo "['configs/inference.yaml','configs/$1.yaml','configs/data_$2.yaml'${config:+,'configs/$config.yaml'}]"
}

# Our image prior has seen the images of the whole training list, without labels or texts, once for all seeds, as the
# encoders of the others have; words come from the few texts.
prepare_ours() {  # SET FOLDER RUN SEED
  local prior=$output/image_prior-$1 epochs=12
  [ "$1" = histology_nuclei ] && epochs=2
  if ! [ -d "$prior/image_prior" ]; then
    python -m monai.bundle run --datalist "$2/datalist.json" --output_dir "$prior" --num_workers 0 \
      --config_file "['configs/inference.yaml','configs/train.yaml','configs/pretrain_image_ddpm.yaml','configs/pretrain_image_prior.yaml']" \
      --epochs "$epochs" --schedule_epochs "$epochs"
  fi
  if ! [ -f "$3/naming/model.pt" ]; then
    python -m monai.bundle run --config_file "['configs/inference.yaml','configs/train.yaml','configs/data_$1.yaml','configs/train_naming.yaml']" \
      --datalist "$2/datalist.json" --split few_shot_training --output_dir "$3/naming" --seed "$4" \
      --naming_steps 500 --pretrained_image_prior "$prior/image_prior"
  fi
}

fit() {  # SET DATALIST RUN SEED, and more options
  local set=$1 datalist=$2 run=$3 seed=$4; shift 4
  python -m monai.bundle run --config_file "$(files train "$set")" \
    --datalist "$datalist" --split few_shot_training --output_dir "$run" --seed "$seed" \
    --val_interval 1000 "${set_apart[@]}" "$@"
}

train() {  # SET FOLDER RUN SEED, and more options
  local set=$1 folder=$2 run=$3 seed=$4 datalist=$2/datalist.json; shift 4
  if [ -n "$config" ]; then
    fit "$set" "$datalist" "$run" "$seed" "$@"
    return
  fi
  # in the place of the options that the papers' networks are given
  local with_texts=(--prompt_shares "{'silent':0.2,'own':0.8,'reworded':0.1,'foreign':0.0}")
  local recipe=(--frozen_parts "['text_prior','naming']" --mirrored_xrays 0.5 --pure_noise_share 0.4 --num_workers 0
    --images_per_epoch 1600)
  prepare_ours "$set" "$folder" "$run" "$seed"
  if [ "$set" = xray_covid ]; then
    fit "$set" "$datalist" "$run" "$seed" "${recipe[@]}" "${with_texts[@]}" --initial_weights "$run/naming/model.pt" \
      --learning_rate 0.001 --epochs 16 --schedule_epochs 16 --xray_augmentation 1.5 --drop_path 0.2
    return
  fi
  # slides at 20x first, where a crop shows nearly twice as much at less than half the cost, then at 40x
  fit "$set" "$datalist" "$run/at20x" "$seed" "${recipe[@]}" "${with_texts[@]}" --initial_weights "$run/naming/model.pt" \
    --learning_rate 0.001 --epochs 8 --schedule_epochs 8 --drop_path 0.1 --histology#zoom 0.5 --image_size 128
  python scripts/export_weights.py "$run/at20x/latest.pt" "$run/at20x/weights.pt"
  recipe+=(--initial_weights "$run/at20x/weights.pt" --learning_rate 0.0006 --drop_path 0.1)
  fit "$set" "$datalist" "$run/teacher" "$seed" "${recipe[@]}" "${with_texts[@]}" --epochs 5 --schedule_epochs 5
  # What it sees in the tiles without labels teaches another one that starts from 20x; their labels and texts are not read.
  # Five sentences tell five tiles apart and say nothing of a crop: the network is to hear them seldom.
  python scripts/pseudo_labels.py "$datalist" --labelled few_shot_training --output "$run/pseudo"
  python -m monai.bundle run --config_file configs/inference.yaml --input "$run/pseudo/datalist.json" --split unlabelled \
    --weights "$run/teacher/latest.pt" --output_dir "$run/pseudo" --resume True "${slides[@]}"
  fit "$set" "['$datalist','$run/pseudo/datalist.json']" "$run" "$seed" "${recipe[@]}" --epochs 5 --schedule_epochs 5 \
    --datalist_shares "[0.4,0.6]" --prompt_shares "{'silent':0.5,'own':0.1,'reworded':0.0,'foreign':0.0}"
}

evaluate() {  # SET FOLDER RUN LIST, and more options
  local set=$1 folder=$2 run=$3 list=$4; shift 4
  [ -f "$run/$list/summary.json" ] && return
  python -m monai.bundle run --config_file "$(files evaluate "$set")" --datalist "$folder/datalist.json" \
    --split "$list" --output_dir "$run/$list" --weights "$run/latest.pt" "${set_apart[@]}" "$@"
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
    if [ "$network" = ours ] && [ -f "$run/latest.pt" ] && ! [ -d "$run/pseudo" ]; then
      echo "error: $run is of a version before 0.9.0, which trained otherwise; name another OUTPUT_FOLDER" >&2
      exit 2
    fi
    if ! [ -f "$run/validation/summary.json" ]; then
      train histology_nuclei "$histology" "$run" "$seed" --vary_images True --images_per_epoch 40
      ours_alone=()
      [ "$network" = ours ] && ours_alone=("${slides[@]}")
      evaluate histology_nuclei "$histology" "$run" validation "${ours_alone[@]}"
    fi
  done
done
