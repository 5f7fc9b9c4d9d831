from tests.unit.admin.editors import editor, path
from tests.unit.admin.office import office

__all__ = ["editor", "office", "path"]
