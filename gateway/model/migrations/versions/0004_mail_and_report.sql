-- A receipt names the envelope of what it tells of; a mail that came twice is known by its bytes.
CREATE INDEX ix_message_envelope ON message ((details ->> 'envelope_id')) WHERE direction = 'out';
CREATE INDEX ix_message_sha256 ON message (sha256) WHERE direction = 'in';
