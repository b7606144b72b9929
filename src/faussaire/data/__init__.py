"""Data: a source is opened, checked, packed once, and then streamed.

Nothing here imports torch. Import from the modules, so that each use pays only for what it needs:
`sources.open_source`, `check.check`, `pack.pack`, `stream.Stream`.
"""
