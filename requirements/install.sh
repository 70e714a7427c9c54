#!/usr/bin/env bash
# Installs requirements/GROUP.txt and this checkout into a virtual environment, once.
#
#   [VENV=folder] [PYTHON=python3.12] bash requirements/install.sh base|test|dev|docs|oracle
#
# A second call returns at once. It installs again when requirements/ or setup.py change, when the
# checkout has moved, or when PYTHON names another version; it starts afresh after an interruption.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
group=$1
venv=${VENV:-.venv}
stamp=$venv/mgjax-$group
unfinished=$venv/mgjax-unfinished
unset PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

# Prints the version of a Python that will do; prints what is wrong and fails for any other. It must
# be readable for every Python since 2.7, for those are what it is there to turn down.
probe='
import platform, sys, sysconfig
version, problem = platform.python_version(), None
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
  problem = ""
elif platform.python_implementation() != "CPython":
  problem = " of " + platform.python_implementation()
elif sysconfig.get_config_var("Py_GIL_DISABLED"):
  problem = " without the global interpreter lock, for which not every package has a wheel"
else:
  try:
    import ensurepip, venv
  except ImportError:
    problem = (" without venv; on Debian and Ubuntu this adds it: apt-get install -y python%d.%d-venv"
               % sys.version_info[:2])
if problem is not None:
  sys.exit("is Python " + version + problem)
print(version)
'
look() {
  if ! command -v "$1" >/dev/null; then
    echo 'not found'
    return 1
  fi
  local answer
  if answer=$("$1" -E -c "$probe" 2>&1); then
    echo "${answer##*$'\n'}"
  else
    printf '%s\n' "${answer:-does not run}" | head -n 1
    return 1
  fi
}
minor() { echo "$1" | cut -d . -f 1,2; }

wanted=
if [ -n "${PYTHON:-}" ]; then
  if ! wanted=$(look "$PYTHON"); then
    fail "PYTHON=$PYTHON: $wanted" 'mgjax needs Python 3.11, 3.12 or 3.13 with venv.'
  fi
fi

fingerprint="$(cat requirements/*.txt requirements/install.sh setup.py | cksum) $(pwd -P)"
if [ -e "$unfinished" ]; then
  echo "The last installation into $venv did not finish: starting afresh." >&2
elif ! present=$(look "$venv/bin/python"); then
  if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
    fail "VENV=$venv exists and is no virtual environment: name another folder or remove it."
  fi
elif [ -z "$wanted" ] || [ "$(minor "$wanted")" = "$(minor "$present")" ]; then
  if [ "$(cat "$stamp" 2>/dev/null)" = "$fingerprint" ]; then
    exit 0
  fi
  reuse=yes
fi

if [ -z "${reuse:-}" ]; then
  tried=
  if [ -z "$wanted" ]; then
    for candidate in python3.13 python3.12 python3.11 python3; do
      if answer=$(look "$candidate"); then
        PYTHON=$candidate
        break
      fi
      tried="$tried"$'\n'"  $candidate: $answer"
    done
  fi
  if [ -z "${PYTHON:-}" ]; then
    fail "mgjax needs Python 3.11, 3.12 or 3.13 with venv, and found none:$tried" \
      'On Debian 12 and Ubuntu 24.04 this installs one: apt-get install -y python3 python3-venv' \
      'If there is one elsewhere, name it: make ... PYTHON=/path/to/python3.12'
  fi
  echo "Making $venv with $PYTHON."
  rm -rf "$venv"
  mkdir -p "$venv"
  touch "$unfinished"
  "$PYTHON" -E -m venv "$venv" || fail "$PYTHON could not make a virtual environment; see above."
fi

echo "Installing requirements/$group.txt into $venv; the first time this takes a few minutes."
touch "$unfinished"
rm -f "$stamp"
install=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
{
  "${install[@]}" -r "requirements/$group.txt" &&
    "${install[@]}" --no-deps --no-build-isolation --editable .
} || fail 'The installation failed; pip says above why. The same command tries again.'
printf '%s\n' "$fingerprint" >"$stamp"
rm "$unfinished"
