#!/usr/bin/env bash
# Installs requirements/GROUP.txt and this checkout into a virtual environment, once.
#
#   [VENV=folder] [PYTHON=python3.12] bash requirements/install.sh base|test|dev|docs|oracle
#
# A second call returns at once, or waits for one that still installs. It installs again when
# requirements/ or setup.py change, when the checkout has moved, or when PYTHON names another
# version; it starts afresh after an interruption. It refuses the environment of another checkout.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
group=$1
venv=${VENV:-.venv}
stamp=$venv/mgjax-$group
unfinished=$venv/mgjax-unfinished
lock=$venv/mgjax-lock # whoever installs holds it; it names the checkout
here=$(pwd -P)
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

# Prints the folder of the checkout whose editable install an environment has; fails without mgjax.
find_owner='
import importlib.metadata, json, urllib.parse, urllib.request
found = json.loads(importlib.metadata.distribution("mgjax").read_text("direct_url.json"))
if found.get("dir_info", {}).get("editable"):
  print(urllib.request.url2pathname(urllib.parse.urlsplit(found["url"]).path))
'
check_owner() {
  local owner
  owner=$("$venv/bin/python" -I -c "$find_owner" 2>/dev/null || cat "$lock" 2>/dev/null || true)
  if [ -n "$owner" ] && [ -e "$owner/setup.py" ] && ! [ "$owner" -ef "$here" ]; then
    fail "VENV=$venv belongs to another checkout of mgjax, and an environment has room for one:" \
      "  there  $owner" "  here   $here" \
      "Name another folder, make ... VENV=folder, or give this one up first: rm -rf $venv"
  fi
}

# Locks the file that is open as 9 here, until this shell and all that it started have ended,
# however they end: not even a pip that outlives a killed shell meets a second one.
take_lock='
import fcntl, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
  fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
  print("Another installation into " + sys.argv[1] + " goes on; waiting for it.", flush=True)
  fcntl.flock(9, fcntl.LOCK_EX)
except OSError:
  pass  # a file system without locks
'

fingerprint="$(cat requirements/*.txt requirements/install.sh setup.py | cksum) $here"
usable() {
  present=$(look "$venv/bin/python") &&
    { [ -z "$wanted" ] || [ "$(minor "$wanted")" = "$(minor "$present")" ]; }
}
installed() {
  ! [ -e "$unfinished" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$fingerprint" ] && usable
}
if installed; then
  exit 0
fi
if [ -e "$venv" ] && ! [ -e "$venv/pyvenv.cfg" ] && ! [ -e "$lock" ]; then
  fail "VENV=$venv exists and is no virtual environment: name another folder or remove it."
fi

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
need_python() {
  if [ -z "${PYTHON:-}" ]; then
    fail "mgjax needs Python 3.11, 3.12 or 3.13 with venv, and found none:$tried" \
      'On Debian 12 and Ubuntu 24.04 this installs one: apt-get install -y python3 python3-venv' \
      'If there is one elsewhere, name it: make ... PYTHON=/path/to/python3.12'
  fi
}
usable || need_python

check_owner
mkdir -p "$venv"
exec 9>>"$lock"
"${PYTHON:-$venv/bin/python}" -E -c "$take_lock" "$venv"
if installed; then
  exit 0 # by the one that this waited for
fi
check_owner
printf '%s\n' "$here" >"$lock"

if [ -e "$unfinished" ] || ! usable; then
  if [ -e "$unfinished" ]; then
    echo "The last installation into $venv did not finish: starting afresh." >&2
  fi
  need_python
  echo "Making $venv with $PYTHON."
  touch "$unfinished"
  kept=(! -name "${unfinished##*/}" ! -name "${lock##*/}")
  find "$venv/" -mindepth 1 -maxdepth 1 "${kept[@]}" -exec rm -rf {} +
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
