"""Arrays and JSON on disk: whole or absent, and never wrong in silence."""

__all__: list[str] = []
