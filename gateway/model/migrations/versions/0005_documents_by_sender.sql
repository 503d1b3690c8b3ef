-- Two establishments may bring the same document of their own patients: neither learns that the other did.
DROP INDEX uq_received_document;
CREATE UNIQUE INDEX uq_received_document ON received_document (unique_id, sha256, sender) NULLS NOT DISTINCT;
