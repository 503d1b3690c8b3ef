"""Pro Santé Connect: how a professional proves who he is.

Reading order: `oidc` (the protocol), `tokens` (what the provider signed), `accounts` (whom its
answer names), `sessions` (kept on the server), `sign_in` (routes), `outcome` (refusals as pages).
"""
