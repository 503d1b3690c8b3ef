-- What happened that somebody asked to be told of, who asked, and what each was told.
CREATE TABLE happening (
    kind text NOT NULL,
    root_id uuid NOT NULL,
    at timestamptz NOT NULL,
    id uuid NOT NULL,
    CONSTRAINT pk_happening PRIMARY KEY (id)
);
CREATE TABLE subscription (
    resource_id text NOT NULL,
    partner_id uuid NOT NULL,
    client text NOT NULL,
    scopes text[] NOT NULL,
    topic text NOT NULL,
    filters text[] NOT NULL,
    endpoint text NOT NULL,
    headers text,
    media text NOT NULL,
    content text NOT NULL,
    heartbeat_s integer,
    timeout_s integer NOT NULL,
    ends_at timestamptz,
    state text NOT NULL,
    handshakes integer NOT NULL,
    events bigint NOT NULL,
    active_at timestamptz,
    posted_at timestamptz,
    id uuid NOT NULL,
    CONSTRAINT pk_subscription PRIMARY KEY (id),
    CONSTRAINT uq_subscription_resource_id UNIQUE (resource_id),
    CONSTRAINT ck_subscription_state CHECK (state IN ('requested', 'active', 'error', 'off')),
    CONSTRAINT ck_subscription_content CHECK (content IN ('empty', 'id-only', 'full-resource')),
    CONSTRAINT fk_subscription_partner_id FOREIGN KEY(partner_id) REFERENCES partner (id)
);
CREATE INDEX ix_subscription_live ON subscription (topic) WHERE state <> 'off';
CREATE TABLE subscription_event (
    subscription_id uuid NOT NULL,
    number bigint NOT NULL,
    happening_id uuid NOT NULL,
    at timestamptz NOT NULL,
    focus_id text NOT NULL,
    message_id uuid,
    CONSTRAINT pk_subscription_event PRIMARY KEY (subscription_id, number),
    CONSTRAINT uq_subscription_event_subscription_id_happening_id UNIQUE (subscription_id, happening_id),
    CONSTRAINT fk_subscription_event_subscription_id FOREIGN KEY(subscription_id) REFERENCES subscription (id),
    CONSTRAINT fk_subscription_event_message_id FOREIGN KEY(message_id) REFERENCES message (id)
);
