# shellcheck shell=bash
# What .ci/run and .ci/long have in common: sourced in the root of the tree.

say() { printf '\n== %s\n' "$*"; }

# Package indexes fail now and then.
retry() {
  local attempt
  for attempt in 1 2 3; do
    "$@" && return
    echo "attempt $attempt failed: $*" >&2
    sleep $((5 * attempt))
  done
  return 1
}

# A supported Python: $PYTHON, or the first of these.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3 python}; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      echo "$candidate"
      return
    fi
  done
  echo "no Python 3.11 or later found" >&2
  return 1
}

# A virtual environment in folder $2, made by the Python $1, and entered.
enter_environment() {
  "$1" -m venv "$2"
  # shellcheck disable=SC1091
  if [ -d "$2/Scripts" ]; then source "$2/Scripts/activate"; else source "$2/bin/activate"; fi
  retry python -m pip install --quiet --upgrade "pip>=25.1" # the first that knows groups
}

# Nothing that the caller has set changes what is tested. Where there are no data sets, what needs them is skipped.
clean_settings() {
  local data=${FASTLSTM_DATA_DIR:-$PWD/../shared/data}
  unset FASTLSTM_BACKEND FASTLSTM_NUM_THREADS FASTLSTM_MAX_ISA FASTLSTM_DATA_DIR PYTHONPATH
  if [ -d "$data" ]; then
    FASTLSTM_DATA_DIR=$(cd "$data" && pwd)
    export FASTLSTM_DATA_DIR
  fi
  # No silent fallback to pure Python: an extension that does not build is an error.
  export FASTLSTM_REQUIRE_EXTENSIONS=1
  export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1
}
