"""FHIR trees to canonical facts, and canonical rows to FHIR trees.

Promises: no socket, no database session, no clock; the inward side reads only what it understands and leaves
the rest to the stored bytes; the outward side writes only what the gateway itself owns, with references by type and
identifier and without copied names.
"""
