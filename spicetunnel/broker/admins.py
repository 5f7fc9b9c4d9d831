"""Who may look after others' sessions: root and the admin group, by the kernel's word."""

from spicetunnel.broker.people import Asker
from spicetunnel.common.errors import NotPermittedError

GROUP = "spicetunnel-admin"


class Admins:
    def __init__(self, group: str = GROUP) -> None:
        self._group = group

    def include(self, asker: Asker) -> bool:
        """A shared account speaks for people, and is none of them itself."""
        is_admin = asker.uid == 0 or self._group in asker.person.groups
        return is_admin and not asker.via

    def require(self, asker: Asker) -> None:
        """Raises NotPermittedError for anybody else."""
        if not self.include(asker):
            raise NotPermittedError(
                "this is for the admins of this server",
                f"they are root and the members of the group {self._group}",
            )
