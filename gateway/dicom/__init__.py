"""DICOM: a PACS sends by C-STORE, a viewer reads by DICOMweb.

Reading order: `command` (bytes), `wire` with `pacing` and `intake` (receiving), `scp` (the listening port), `translate`
(data set → facts), `frames`, `render` and `legible` (object → picture, page), `drawing` with `easel` (outside of the
process that serves), `rendered` and `dicomweb` (HTTP), `outcome` (errors on both wires).
"""
