#!/usr/bin/env bash
# bench/label_efficiency.sh synthetic|real OUT stores|rates|runs|table|why [SHARED]
# The tables of docs/results/label-efficiency-*.md:
#
#   stores   synthetic: the SYNTHETIC cohort, 4,000 patients, 10 s at 100 Hz; real: every real
#            12-lead record, 7 s at 100 Hz, by bench/real_ecgs.sh from SHARED
#   rates    (synthetic) short pretrainings by each of RATES, scored on the validation part
#   runs     the pretrainings: METHODS x SEEDS, STEPS steps each
#   table    synthetic: AUROC of mPCWP > 18 mmHg; real: of sex, NORM, and age, on PTB-XL folds 9-10
#            with the labels of folds 1-8
#   why      (synthetic) what of input space the encoders have learnt: bench/coordinates.py
#
# Every method has the same encoder, records and steps. In a step the encoder sees 320 s of ECG:
# 5 s of each of 64 records (ssl-dml), 2.5 s of each of 128 (log-ratio), or twice 2.5 s of each of
# 64 (simclr, vicreg; of the real ones pclr, too, since few patients there have two records); or 64
# whole records (pclr, triplet), or both halves of them (cmsc), which is twice that, 640 s. JOBS pretrainings run at a time, each
# on OMP_NUM_THREADS threads. What is finished is not done again, and several `table`s, each with
# some of METHODS and STARTS (and REFERENCE one of them), may fill one folder side by side.
set -euo pipefail
usage='usage: bench/label_efficiency.sh synthetic|real OUT stores|rates|runs|table|why [SHARED]'
what=${1:?$usage} out=${2:?$usage} stage=${3:?$usage}
here=$(dirname "$0")
METHODS=${METHODS:-ssl-dml log-ratio simclr cmsc pclr vicreg} # and triplet
SEEDS=${SEEDS-0 1 2 3 4}
RATES=${RATES:-1e-3 3e-3}
WIDTH=${WIDTH:-16}
JOBS=${JOBS:-2}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
case $what in
  synthetic)
    stores=("$out/store") labelled=$out/store seconds=10
    STEPS=${STEPS:-2000} FIT_STEPS=${FIT_STEPS:-500} FRACTIONS=${FRACTIONS:-0.01 0.05 0.25 1}
    ;;
  real)
    stores=("$out/stores"/{ptb-xl,challenge,code15,code15-followup,cinc2011})
    labelled=$out/stores/ptb-xl seconds=7
    STEPS=${STEPS:-1000} FIT_STEPS=${FIT_STEPS:-200} FRACTIONS=${FRACTIONS:-0.1 0.25 1}
    ;;
  *)
    echo "$usage" >&2
    exit 2
    ;;
esac
signal=(--signal.fs 100 --signal.seconds "$seconds")

rate_of() { # the better of RATES on the validation part of the SYNTHETIC cohort
  case $1 in
    vicreg) echo 1e-3 ;;
    *) echo 3e-3 ;;
  esac
}

pretrain() { # METHOD STEPS RATE SEED FOLDER [SPLITS]
  [ -f "$5/contract.json" ] && return
  local verb=$1 how=(--fit.batch_size 64)
  local crops=(--augment.crop_s 2.5 --augment.mask_s 0.5 1)
  case $1 in
    ssl-dml) how=(--config landmarks) ;;
    log-ratio) verb=ssl-dml how=(--config log_ratio) ;;
    triplet) verb=ssl-dml how+=(--config fixed --mine_fs 50) ;;
    simclr | vicreg) how+=("${crops[@]}") ;;
    pclr) [ "$what" = synthetic ] || how+=(--lone augment "${crops[@]}") ;;
  esac
  ecgfast pretrain "$verb" "${how[@]}" --data.paths "${stores[@]}" \
    --data.splits "${6:-all}" "${signal[@]}" --encoder.width "$WIDTH" --optim.lr "$3" \
    --optim.warmup_steps 50 --fit.steps "$2" --fit.seed "$4" --fit.out "$5" --fit.progress false > "$5.log" 2>&1 || {
    echo "failed: $5.log" >&2
    return 1
  }
}

# Lines of arguments of pretrain, JOBS at a time; the first that fails ends all.
pretrain_all() {
  local line
  while read -r line; do
    while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n; done
    # shellcheck disable=SC2086 # the line is words
    pretrain $line &
  done
  while [ -n "$(jobs -rp)" ]; do wait -n; done
}

table() { # FOLDER, then what `ecgfast labeleff` is told: the label, the task
  local folder=$1 method inits=()
  for method in $METHODS; do inits+=("$method=$out/$method-{seed}"); done
  read -ra others <<< "${STARTS:-supervised=random@full ssl-dml-full=$out/ssl-dml-{seed\}@full random dtw-knn beat-knn}"
  # shellcheck disable=SC2086 # FRACTIONS are words
  ecgfast labeleff --init "${inits[@]}" "${others[@]}" --data.paths "$labelled" "${@:2}" \
    "${signal[@]}" --encoder.width "$WIDTH" --neighbours.fs 50 --fractions $FRACTIONS \
    --fit.steps "$FIT_STEPS" --full.hidden 0 --full.head_dropout 0 --full.augment.crop_s 5 \
    --full.optim.lr 1e-3 --reference "${REFERENCE:-supervised}" --out "$folder"
}

mkdir -p "$out"
case $what-$stage in
  synthetic-stores)
    [ -f "$out/store/store.json" ] || python - "$out/store" << 'PY'
import sys

from ecgfast.config import Signal
from ecgfast.data.synthetic import write_cohort

write_cohort(sys.argv[1], 4000, signal=Signal(fs=100.0), seed=0)
PY
    ;;
  real-stores) SEEDS="" "$here/real_ecgs.sh" "${4:?$usage}" "$out/stores" ;;
  synthetic-rates)
    inits=()
    for method in $METHODS; do
      for rate in $RATES; do inits+=("$method-$rate=$out/rate-$method-$rate"); done
    done
    for init in "${inits[@]}"; do
      name=${init%%=*}
      echo "${name%-*e-*} ${RATE_STEPS:-400} ${name#"${name%-*e-*}"-} 99 ${init#*=} train"
    done | pretrain_all
    ecgfast labeleff --init "${inits[@]}" --data.paths "$labelled" --label mpcwp \
      --task classification --threshold 18 --test val --validation "" --fractions 0.05 0.25 \
      --out "$out/rates"
    ;;
  *-runs)
    for seed in $SEEDS; do
      for method in $METHODS; do
        echo "$method $STEPS $(rate_of "$method") $seed $out/$method-$seed"
      done
    done | pretrain_all
    ;;
  synthetic-table)
    table "$out/table" --label mpcwp --task classification --threshold 18 --looks 5
    ;;
  synthetic-why)
    runs=()
    for method in $METHODS; do [ "$method" = triplet ] || runs+=("$out/$method-0"); done
    python "$here/coordinates.py" "$labelled" "$out/table/subsets.json" "${runs[@]}"
    ;;
  real-table)
    folds=(--data.splits train val --validation "")
    for label in sex norm; do
      table "$out/$label" "${folds[@]}" --label "$label" --task classification
    done
    table "$out/age" "${folds[@]}" --label age --task regression
    ;;
  *)
    echo "$usage" >&2
    exit 2
    ;;
esac
