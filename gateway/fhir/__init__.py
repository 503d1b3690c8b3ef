"""FHIR R4 (4.0.1): the wire of hospitals' records and of regional peers.

Read `document` and `xml_read` (bytes and trees), `elements`, `structure` and `validate` (what is refused), `outcome`
(how refusals are said), `translate` (trees to facts and back), `represent` and `keeping` (what is stored). Reading is
`search_columns` and `search_conditions` (what is found, and how), `searchset` and `paging` (pages), `read`, `history`;
writing is `writing`, `locating` (what a write concerns, and whether it may be), `write` (what it does), `patch`,
`removal`, `bundle`, `transaction`. `audit_events` is the trail, `auth` SMART backend services; in `routes` and
`capability` all of it meets HTTP.
"""
