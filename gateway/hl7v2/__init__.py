"""The HL7 v2 wire over MLLP: documents (CDA) that hospital systems send.

Reading order: `mllp` (frames on bytes), `peers` (who calls), `intake` (kept, then the step, then the answer),
`segments` and `translate` (what a message says), `flags` (the metadata of the French volet), `outcome` (the ACK).
"""
