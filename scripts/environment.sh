# shellcheck shell=bash disable=SC2034
# Sourced first by the scripts of this project: what a user's shell exports must not change what they do.
#
# A script that sources this has started itself again as `bash -p`: under that, bash takes no functions, options or
# start-up files from the environment. What is left are variables that bash, the programs called and Python act on.

# A standard descriptor that is closed would be given to the next file that a program opens.
true <&0 || exec 0< /dev/null
true >&1 || exec 1> /dev/null
true >&2 || exec 2> /dev/null

unset -v BASH_ENV ENV CDPATH GLOBIGNORE TMOUT GREP_OPTIONS POSIXLY_CORRECT _POSIX2_VERSION TAR_OPTIONS GZIP XZ_OPT
# Python: another library, another program at its start or end, other semantics of the code, warnings as errors; and no
# bytecode kept (images of Python set it), for which every process would compile torch and the rest again, for seconds
unset -v PYTHONHOME PYTHONPLATLIBDIR PYTHONEXECUTABLE PYTHONSTARTUP PYTHONINSPECT PYTHONOPTIMIZE PYTHONWARNINGS \
    PYTHONDEVMODE PYTHONHASHSEED PYTHONIOENCODING PYTHONCASEOK PYTHONDONTWRITEBYTECODE
# Sorting, ranges and upper case are not a matter of language, and names of files are UTF-8 (or bytes).
export LC_ALL=C PYTHONUTF8=1
# The working directory is the user's: a torch.py or random.py in it must not be imported.
export PYTHONSAFEPATH=1
umask u=rwx # the owner must be able to read the files; the rights of group and others are the user's choice

if [[ -n ${TMPDIR:-} && ! (-d $TMPDIR && -w $TMPDIR) ]]; then
    printf 'note: TMPDIR=%q is no folder that can be written: /tmp is used.\n' "$TMPDIR" >&2 || true
    unset -v TMPDIR
fi

set_python_path() { # set_python_path ROOT: exports PYTHONPATH; sets ignored_path to what of the user's is left out
    local entry entries=() given=${PYTHONPATH:-}
    ignored_path=''
    export PYTHONPATH=$1
    # It comes before the environment's packages, so it is taken only where it is meant for this: it leads to a domain
    # (ATHANOR_DOMAINS), or belongs to an interpreter that is used as it is. An empty entry is the current folder.
    if [[ -z ${ATHANOR_DOMAINS:-}${ATHANOR_PYTHON:-} ]]; then
        [[ $given == "$1" ]] || ignored_path=$given
        return
    fi
    IFS=: read -r -d '' -a entries < <(printf '%s:\0' "$given") || true
    for entry in ${entries[@]+"${entries[@]}"}; do
        [[ -z $entry || $entry == "$1" ]] || PYTHONPATH+=:$entry
    done
}
