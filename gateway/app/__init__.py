"""The composition root: settings → store → adapters; the only package that sees everything.

``gateway`` opens the parts, ``http`` puts the HTTP wires together, ``components`` runs each wire, ``serve`` supervises
the process tree, ``logs`` decides how log lines look.
"""
