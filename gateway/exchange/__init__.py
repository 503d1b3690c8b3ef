"""How messages enter and leave: kept once (inbox), posted (outbox), delivered (delivery), nudged (jobs); blobs."""
