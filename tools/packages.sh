# For the scripts beside this file: what they need, and how it gets there. Sourced, not run.

# Each: the Debian or Ubuntu package, and what shows that it is there: a command, or a <header>.
build_packages=("g++ g++" "cmake cmake" "ninja-build ninja" "libeigen3-dev <eigen3/Eigen/Core>"
  "nlohmann-json3-dev <nlohmann/json.hpp>" "libcli11-dev <CLI/CLI.hpp>"
  "zlib1g-dev <zlib.h>")
test_packages=("doctest-dev <doctest/doctest.h>" "python3 python3")
ci_packages=("clang clang++" "libomp-dev libomp" "clang-format-14 clang-format-14"
  "clang-tidy clang-tidy" "libbenchmark-dev <benchmark/benchmark.h>")

# Whether $1, a command, a <header> or libomp (which only clang can find), is there.
is_there() {
  case $1 in
    "<"*) echo "#include $1" | g++ -E -x c++ - > /dev/null 2>&1 ;;
    libomp) echo "int main() {}" | clang++ -fopenmp -x c++ - -o /dev/null > /dev/null 2>&1 ;;
    *) command -v "$1" > /dev/null ;;
  esac
}

# Installs what is missing of the given entries with apt-get; with install=no, or without apt-get,
# says what is missing and ends the script.
need_packages() {
  local missing=() entry
  for entry in "$@"; do
    is_there "${entry#* }" || missing+=("${entry%% *}")
  done
  ((${#missing[@]})) || return 0
  if [[ ${install:-yes} == no ]] || ! command -v apt-get > /dev/null; then
    echo "missing: ${missing[*]} (names of Debian packages); install them and run this again" >&2
    exit 1
  fi
  local as_root=()
  ((EUID == 0)) || as_root=(sudo)
  echo "installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq < /dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends "${missing[@]}" < /dev/null > /dev/null
}
