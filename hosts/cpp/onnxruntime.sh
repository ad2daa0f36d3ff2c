#!/usr/bin/env bash
# onnxruntime.sh DIR [PYTHON]: makes DIR/include and DIR/lib for cmake -DONNXRUNTIME_ROOT=DIR on a Debian without the
# package libonnxruntime-dev (Debian 12): the library of the Python package onnxruntime that PYTHON has (default:
# python3), and the headers of Debian 13's package. The library supports the interface of all older headers.
set -euo pipefail
[[ $# -ge 1 ]] || { echo "usage: onnxruntime.sh DIR [PYTHON]" >&2; exit 2; }
mkdir -p -- "$1/lib" "$1/include" "$1/apt/lists/partial" "$1/apt/cache/archives/partial"
root=$(cd -- "$1" && pwd)
python=${2:-python3}

library=$("$python" - << 'END'
import glob, importlib.util, os
package = importlib.util.find_spec("onnxruntime")
folder = os.path.dirname(package.origin) if package else ""
found = sorted(glob.glob(os.path.join(folder, "capi", "libonnxruntime.so.*")))
print(found[-1] if found else "")
END
)
[[ -n $library ]] || {
    echo "error: $python has no onnxruntime with a libonnxruntime.so: pip install onnxruntime" >&2
    exit 1
}
ln -sfn -- "$library" "$root/lib/libonnxruntime.so"
ln -sfn -- "$library" "$root/lib/libonnxruntime.so.1"

[[ ! -f $root/include/onnxruntime_cxx_api.h ]] || exit 0
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} trixie main" > "$root/apt/sources.list"
options=(-qq -o Dir::Etc::sourcelist="$root/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::State::lists="$root/apt/lists" -o Dir::Cache="$root/apt/cache" -o APT::Sandbox::User=root)
apt-get "${options[@]}" update
cd -- "$root/apt"
apt-get "${options[@]}" download libonnxruntime-dev
dpkg-deb -x libonnxruntime-dev_*.deb unpacked
cd -- "$root"
cp -- "$root"/apt/unpacked/usr/include/onnxruntime/*.h "$root/include/"
rm -rf -- "$root/apt"
