"""``resilience plugin``: for authors of storages; `new` writes a project, `check` puts a storage to the proof."""
