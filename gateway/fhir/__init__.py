"""FHIR R4 (4.0.1): the wire of hospitals' records and of regional peers.

Read `document` (bytes and trees), `validate` (what is refused), `outcome` (how refusals are said), `translate`
(trees to facts and back), `search` (parameters to conditions), then `read`, `write` and `bundle` (the interactions) and
`auth` (SMART backend services).
"""
