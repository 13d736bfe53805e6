#!/bin/sh
# make_run.sh FOLDER UPSTREAM: a run folder with a router for the stand-in, in a minute or two.
# What is made already is not made again.
set -eu
here=$(dirname "$0")
run=$1/run
test -f "$run/policies/default.json" && exit 0
python "$here/questions.py" "$1/questions"
m3router label --examples "$1/questions/examples.jsonl" --images "$1/questions/images" \
  --out "$run" --endpoint "$2" --options "$here/options.toml" --in-flight 4
m3router train "$run" --estimator logistic
m3router calibrate "$run" --budget 150
