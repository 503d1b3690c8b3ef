"""What the HTTP wires share.

Reading order: `body` (bytes under a named limit), `request_id`, `authenticators` (who is calling), `outcome` (from the
category of an error to a status), `proxy`, `rate`, `headers`, `sessions` and `csrf` for pages, `health`, `metrics`.
"""
