"""Pro Santé Connect: how a professional proves who he is.

Reading order: `oidc` (the protocol), `accounts` (who the answer names), `sign_in` (routes and sessions).
"""
