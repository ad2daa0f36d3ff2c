"""Prints what is configured for pip on this host in uv's terms, so that a package index, a folder of wheels,
certificates and constraints that are set for pip hold for uv too.

Each entry ends with a NUL: `NAME=VALUE` is an environment variable of uv, `--option` an argument of `uv pip`. Variables
of uv that are set already are left out: they win. pip itself is not needed. Read by scripts/installer.sh.
"""

from __future__ import annotations

import configparser
import os
import sys
from pathlib import Path

# pip's option -> uv's variable, where the value means the same
SAME = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "constraint": "UV_CONSTRAINT",
    "client-cert": "SSL_CLIENT_CERT",
    "retries": "UV_HTTP_RETRIES",
}
OLDER_NAMES = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}
PROXY_VARIABLES = ("http_proxy", "https_proxy", "HTTPS_PROXY")
TRUE = ("1", "true", "yes", "on", "y", "t")


def config_files(environment: dict[str, str]) -> list[Path]:
    """pip's configuration files, those that count less first."""
    named = environment.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises for a user without a home
    folders = environment.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    user = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    files = [Path(folder) / "pip/pip.conf" for folder in folders.split(os.pathsep)]
    files += [Path("/etc/pip.conf"), home / ".pip/pip.conf", user / "pip/pip.conf", Path(sys.prefix) / "pip.conf"]
    return [*files, Path(named)] if named else files


def pip_options(environment: dict[str, str]) -> dict[str, str]:
    """The options of `pip install`: of its files' sections `global` and `install`, then of PIP_* in `environment`."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for file in config_files(environment):
        parser = configparser.RawConfigParser()
        parser.read(file, encoding="utf-8")  # a file that is missing is skipped
        for section, options in sections.items():
            if parser.has_section(section):
                options |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    variables = {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in environment.items()
        if name.startswith("PIP_") and value
    }
    return sections["global"] | sections["install"] | variables


def location(text: str) -> str:
    """A place that --find-links names, as a URL: uv separates several by commas, which a path may contain."""
    if "://" in text:
        return text.replace(",", "%2C")
    return Path(text).expanduser().absolute().as_uri()


def certificates(options: dict[str, str], environment: dict[str, str]) -> dict[str, str]:
    bundle = options.get("cert") or environment.get("REQUESTS_CA_BUNDLE") or environment.get("CURL_CA_BUNDLE")
    if bundle:
        path = Path(bundle).expanduser()
        return {"SSL_CERT_DIR" if path.is_dir() else "SSL_CERT_FILE": str(path)}
    return {"UV_SYSTEM_CERTS": "1"}  # as pip, which trusts what the system trusts


def uv_settings(environment: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """(variables, arguments) of uv that mean what is configured for pip."""
    options = pip_options(environment)
    # pip takes the best version of all indexes, uv by default that of the first index that has the package
    variables = {"UV_INDEX_STRATEGY": "unsafe-best-match", **certificates(options, environment)}
    for name, variable in SAME.items():
        if options.get(name):
            variables[variable] = " ".join(options[name].split())
    if options.get("find-links"):
        variables["UV_FIND_LINKS"] = ",".join(location(place) for place in options["find-links"].split())
    for name in ("timeout", "default-timeout"):
        if options.get(name):
            variables["UV_HTTP_TIMEOUT"] = str(max(1, int(float(options[name]))))
    for name, switch, single in (
        ("no-binary", "UV_NO_BINARY", "UV_NO_BINARY_PACKAGE"),
        ("only-binary", "UV_NO_BUILD", "UV_NO_BUILD_PACKAGE"),
    ):
        names = options.get(name, "").replace(",", " ").split()
        if ":all:" in names:
            variables[switch] = "1"
        elif names and names != [":none:"]:
            variables[single] = " ".join(names)
    if options.get("proxy"):
        variables |= dict.fromkeys(PROXY_VARIABLES, options["proxy"])
    if options.get("pre", "").lower() in TRUE:
        variables["UV_PRERELEASE"] = "allow"
    if options.get("keyring-provider") in ("subprocess", "disabled"):
        variables["UV_KEYRING_PROVIDER"] = options["keyring-provider"]
    variables = {
        name: value
        for name, value in variables.items()
        if not (name.startswith("UV_") and (name in environment or OLDER_NAMES.get(name) in environment))
    }
    return variables, ["--no-index"] if options.get("no-index", "").lower() in TRUE else []


if __name__ == "__main__":
    settings, arguments = uv_settings(dict(os.environ))
    for entry in [*(f"{name}={value}" for name, value in settings.items()), *arguments]:
        sys.stdout.write(entry + "\0")
