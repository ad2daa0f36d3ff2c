#!/usr/bin/env bash
# Packs data files as data.zip, to be uploaded to Google Drive or attached to a release (docs/training_colab_setup.md).
#
#   scripts/prepare_data_for_upload.sh [--allow-large] [--out FILE] [--split MB] [FOLDER [NAME...]]
#
# FOLDER   default: data/processed
# NAME     files or folders in it that are packed; default: one .jsonl each whose name begins with train, val and test
# --out    default: data.zip. NAME.tar: not compressed, for many files of audio or pictures
# --split  with a .tar: several, NAME-000.tar and so on, of about MB megabytes each
#
# The same files give the same bytes. Beside each archive, FILE.sha256 is written. Exit 3: a file is missing or empty, or
# the archive is larger than data.size_limit_mb of training/configs/colab_setup.yaml (--allow-large: that is no error).
set -euo pipefail
[[ $- == *p* ]] || exec env -u SHELLOPTS -u BASHOPTS "$BASH" -p -- "${BASH_SOURCE[0]}" "$@" # takes nothing from the user's shell

# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
unset -v PYTHONPATH

large=no out=data.zip split=0 words=()
while (($#)); do
    case $1 in
        --allow-large) large=yes ;;
        --out)
            (($# > 1)) || { echo "--out needs a file." >&2; exit 2; }
            out=$2
            shift
            ;;
        --split)
            [[ ${2:-} =~ ^[1-9][0-9]{0,5}$ ]] || { echo "--split needs a number of megabytes." >&2; exit 2; }
            split=$2
            shift
            ;;
        -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        -*) echo "prepare_data_for_upload.sh: unknown option $1" >&2; exit 2 ;;
        *) words+=("$1") ;;
    esac
    shift
done
((${#words[@]})) || words=(data/processed)

[[ $split == 0 || $out == *.tar ]] || { echo "--split goes with --out NAME.tar." >&2; exit 2; }

limit=$(sed -n 's/^ *size_limit_mb: *\([0-9]*\).*/\1/p' "$root/training/configs/colab_setup.yaml")
list=$(mktemp)
trap 'rm -f -- "$list"' EXIT
python3 - "$out" "$split" "$list" "${words[@]}" << 'PACK'
import hashlib, sys, tarfile, zipfile
from pathlib import Path

out, split, written, folder, names = Path(sys.argv[1]), int(sys.argv[2]) * 10**6, sys.argv[3], Path(sys.argv[4]), sys.argv[5:]


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
def zipped(out, files):
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for path in files:
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())  # with a constant date
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            with path.open("rb") as reading, archive.open(entry, "w", force_zip64=True) as writing:
                while block := reading.read(1 << 20):
                    writing.write(block)


def tarred(out, files):
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in files:
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())  # with a constant date, owner and mode
            entry.size = path.stat().st_size
            with path.open("rb") as reading:
                archive.addfile(entry, reading)


def parts(files):
    """The files in order, in groups of up to `split` bytes, or of one file that is larger."""
    group, total = [], 0
    for path in files:
        if group and total + path.stat().st_size > split:
            yield group
            group, total = [], 0
        group.append(path)
        total += path.stat().st_size
    yield group


files = sorted(set(files))
groups = list(parts(files)) if split else [files]
for number, group in enumerate(groups):
    made = out.with_name(f"{out.stem}-{number:03}.tar") if split else out
    (tarred if made.suffix == ".tar" else zipped)(made, group)
    with made.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    Path(f"{made}.sha256").write_text(f"{digest}  {made.name}\n", encoding="utf-8")
    print(f"{made}: {len(group)} files, {made.stat().st_size / 1e6:.1f} MB, SHA-256 {digest}")
    with open(written, "a", encoding="utf-8") as file:
        file.write(f"{made}\n")
PACK

mapfile -t made < "$list"
for one in "${made[@]}"; do
    (($(stat -c %s -- "$one") <= limit * 1000000)) && continue
    printf '%s is larger than %d MB: uploads of that size often end early. Pack parts (--out data.tar --split 400), or put
the data into a bucket, and name it in the notebook: DATA = "s3://BUCKET/PREFIX" (docs/object-stores.md).\n' "$one" "$limit" >&2
    [[ $large == yes ]] && break
    echo "With --allow-large it is packed all the same." >&2
    rm -f -- "${made[@]}" "${made[@]/%/.sha256}"
    exit 3
done
name=$(basename -- "${made[0]}")
shown=$name files="$out $out.sha256"
((split == 0)) || { shown="$(basename -- "${out%.tar}")-*.tar" files="${out%.tar}-*"; }
origin=$(git -C "$root" remote get-url origin 2> /dev/null || echo https://github.com/YOUR_USERNAME/athanor)
origin=${origin%.git}
cat << TEXT
Upload it in one of three ways, and set DATA in the notebook:
  1. Google Drive: drag $shown and $shown.sha256 into a folder of your Drive.
       DATA = "/content/drive/MyDrive/FOLDER/$shown"
  2. A release of your repository: gh release create v0.1 $files
       DATA = "$origin/releases/download/v0.1/$name"
  3. Any web server, for a look by hand: wget $origin/releases/download/v0.1/$name && sha256sum -c $name.sha256
TEXT
