"""The interoperability gateway for French tumour boards (RCP).

Reading order: ``errors``, ``identifiers``, ``settings`` (the words); ``model`` (what is kept); ``exchange`` (how it
enters and leaves); ``rcp`` (what the gateway does, in its users' words); the wires ``fhir``, ``dicom``, ``mssante``,
``psc``, ``portal``; ``app`` (how they are put together); ``demo`` (one dossier, end to end).
"""
