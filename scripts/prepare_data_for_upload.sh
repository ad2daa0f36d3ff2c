#!/usr/bin/env bash
# Packs data files as data.zip, to be uploaded to Google Drive or attached to a release (docs/training_colab_setup.md).
#
#   scripts/prepare_data_for_upload.sh [--allow-large] [--out FILE] [FOLDER [NAME...]]
#
# FOLDER   default: data/processed
# NAME     files or folders in it that are packed; default: one .jsonl each whose name begins with train, val and test
#
# The same files give the same bytes. Beside the archive, FILE.sha256 is written. Exit 3: a file is missing or empty, or
# the archive is larger than data.size_limit_mb of training/configs/colab_setup.yaml (--allow-large: that is no error).
set -euo pipefail
[[ $- == *p* ]] || exec env -u SHELLOPTS -u BASHOPTS "$BASH" -p -- "${BASH_SOURCE[0]}" "$@" # takes nothing from the user's shell

# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
unset -v PYTHONPATH

large=no out=data.zip words=()
while (($#)); do
    case $1 in
        --allow-large) large=yes ;;
        --out)
            (($# > 1)) || { echo "--out needs a file." >&2; exit 2; }
            out=$2
            shift
            ;;
        -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        -*) echo "prepare_data_for_upload.sh: unknown option $1" >&2; exit 2 ;;
        *) words+=("$1") ;;
    esac
    shift
done
((${#words[@]})) || words=(data/processed)

limit=$(sed -n 's/^ *size_limit_mb: *\([0-9]*\).*/\1/p' "$root/training/configs/colab_setup.yaml")
python3 - "$out" "${words[@]}" << 'PACK'
import hashlib, sys, zipfile
from pathlib import Path

out, folder, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]


def refuse(text):
    print(f"error: {text}", file=sys.stderr)
    sys.exit(3)


if not folder.is_dir():
    refuse(f"there is no folder {folder}: name the one with your data files.")
if not names:
    for part in ("train", "val", "test"):
        found = sorted(path.name for path in folder.glob(f"{part}*.jsonl"))
        if len(found) != 1:
            refuse(f"{folder} must have one file {part}*.jsonl, and has {', '.join(found) or 'none'}: name the files to pack.")
        names += found
files = []
for name in names:
    path = folder / name
    below = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    if not below or not all(one.is_file() for one in below):
        refuse(f"{path} is missing.")
    files += below
for path in files:
    if path.stat().st_size == 0:
        refuse(f"{path} is empty.")
with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
    for path in sorted(set(files)):
        entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())  # with a constant date
        entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
        with path.open("rb") as reading, archive.open(entry, "w", force_zip64=True) as writing:
            while block := reading.read(1 << 20):
                writing.write(block)
with out.open("rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
Path(f"{out}.sha256").write_text(f"{digest}  {out.name}\n", encoding="utf-8")
print(f"{out}: {len(set(files))} files, {out.stat().st_size / 1e6:.1f} MB, SHA-256 {digest}")
PACK

bytes=$(stat -c %s -- "$out")
if ((bytes > limit * 1000000)); then
    printf '%s is larger than %d MB: uploads of that size often end early. Put it into a bucket, and name the bucket in the
notebook: DATA = "s3://BUCKET/PREFIX" (docs/object-stores.md).\n' "$out" "$limit" >&2
    [[ $large == yes ]] || { echo "With --allow-large it is packed all the same." >&2; rm -f -- "$out" "$out.sha256"; exit 3; }
fi
name=$(basename -- "$out")
origin=$(git -C "$root" remote get-url origin 2> /dev/null || echo https://github.com/YOUR_USERNAME/athanor)
origin=${origin%.git}
cat << TEXT
Upload it in one of three ways, and set DATA in the notebook:
  1. Google Drive: drag $name and $name.sha256 into a folder of your Drive.
       DATA = "/content/drive/MyDrive/FOLDER/$name"
  2. A release of your repository: gh release create v0.1 $out $out.sha256
       DATA = "$origin/releases/download/v0.1/$name"
  3. Any web server, for a look by hand: wget $origin/releases/download/v0.1/$name && sha256sum -c $name.sha256
TEXT
