"""DICOM in: files sorted into series, series read as volumes or pictures, what is wrong with them said."""

from bundle.cases.dicom.selection import SeriesSelection
from bundle.cases.dicom.series import DicomSeries, Exclusion
from bundle.cases.dicom.source import DicomSource

__all__ = ["DicomSeries", "DicomSource", "Exclusion", "SeriesSelection"]
