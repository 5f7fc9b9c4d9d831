from tests.unit.admin.office import office

__all__ = ["office"]
