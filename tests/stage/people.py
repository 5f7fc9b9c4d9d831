"""An account of the stage."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

#: The start of every account's and group's name. With the place of the home it marks ours.
PREFIX = "st-"


@dataclass(frozen=True)
class Person:
    """A person or a service with an account. Equal names mean the same account."""

    name: str

    @property
    def uid(self) -> int:
        return pwd.getpwnam(self.name).pw_uid

    @property
    def gid(self) -> int:
        return pwd.getpwnam(self.name).pw_gid

    @property
    def groups(self) -> list[int]:
        return os.getgrouplist(self.name, self.gid)

    @property
    def group_name(self) -> str:
        return grp.getgrgid(self.gid).gr_name

    @property
    def home(self) -> Path:
        return Path(pwd.getpwnam(self.name).pw_dir)

    @property
    def key(self) -> Path:
        """The private SSH key. Root's ssh accepts it too: ssh checks the modes of its own user's
        files only."""
        return self.home / ".ssh" / "id_ed25519"

    @property
    def env(self) -> dict[str, str]:
        return {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name}

    def owns(self, path: Path, mode: int) -> Path:
        """Make them the owner of `path`, with `mode`."""
        os.chown(path, self.uid, self.gid)
        path.chmod(mode)
        return path

    def directory(self, path: Path, mode: int = 0o700) -> Path:
        """Make them the owner of the directory `path`, which is made if it is missing."""
        path.mkdir(exist_ok=True)
        return self.owns(path, mode)
