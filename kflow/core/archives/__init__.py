"""Unpack tar and zip archives whole or not at all."""

from kflow.core.archives.extraction import ArchiveError, Extraction, extract_archive, is_merged, merge_archive
from kflow.core.archives.staging import short_name, sync

__all__ = ["ArchiveError", "Extraction", "extract_archive", "is_merged", "merge_archive", "short_name", "sync"]
