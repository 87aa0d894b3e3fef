"""MONAI Label, PACS node and batch engines will stand here; nothing is served yet."""
