"""DICOM: a PACS sends by C-STORE, a viewer reads by DICOMweb.

Reading order: `command` (bytes), `wire` with `pacing` and `intake` (receiving), `scp` (the listening port), `translate`
(data set → facts), `render` (frame → picture), `dicomweb` (HTTP), `outcome` (errors on both wires).
"""
