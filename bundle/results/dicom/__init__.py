"""Results as DICOM objects: segmentation, measurement report and contours (SEG, SR, RT Structure Set)."""
