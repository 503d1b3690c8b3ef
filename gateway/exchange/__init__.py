"""How messages enter and leave: kept once (inbox), delivered (outbox), in the background (jobs); their bytes (blobs)."""
